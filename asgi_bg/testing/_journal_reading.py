"""The contract of journals: what can be read, by whom (W1, W3)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from asgi_bg.journal.base import Batch, Handover
from asgi_bg.testing._journal_jobs import NOW, change, new_job, success, waiting
from asgi_bg.testing._journal_site import JournalSite


class Reading(JournalSite):
    """What is read of jobs."""

    def test_what_is_not_there(self) -> None:
        """It is no error."""
        assert self.journal.get(new_job().id) is None
        assert self.journal.get_many([new_job().id]) == []
        assert self.journal.holder_of("k") is None
        assert self.journal.next_due() is None
        assert self.journal.cancellations() == []
        assert self.journal.recover() == []

    def test_counts(self) -> None:
        """There is one for each status."""
        running, succeeded, failed, cancelled, _ = self.add(*(new_job() for _ in range(5)))
        self.mark(
            change(running, "running"),
            success(succeeded),
            change(failed, "failed"),
            change(cancelled, "cancelled"),
        )
        assert self.journal.counts() == dict.fromkeys(
            ("queued", "running", "succeeded", "failed", "cancelled"), 1
        )

    def test_finding_the_newest_first(self) -> None:
        """By status, by task, and page by page."""
        jobs = self.add(*(new_job(n, task=f"app:{'ab'[n % 2]}") for n in range(6)))
        self.mark(success(jobs[0]), success(jobs[1]))

        def find(*wanted: object) -> list[str]:
            return [row.id for row in self.journal.find(*wanted)]  # type: ignore[arg-type]

        newest = jobs[::-1]
        assert find(None, None, None, 9) == newest
        assert find(None, None, None, 2) == newest[:2]
        assert find(None, None, newest[1], 2) == newest[2:4]
        assert find("succeeded", None, None, 9) == newest[4:]
        assert find("queued", None, None, 9) == newest[:4]
        assert find(None, "app:a", None, 9) == [jobs[4], jobs[2], jobs[0]]
        assert find("queued", "app:a", jobs[4], 9) == [jobs[2]]

    def test_several_by_their_ids(self) -> None:
        """Those that there are."""
        jobs = self.add(new_job(), waiting(1), new_job(2))
        found = self.journal.get_many([jobs[0], new_job().id, jobs[2]])
        assert sorted(row.id for row in found) == sorted([jobs[0], jobs[2]])

    def test_searching(self) -> None:
        """For text in either case, and on from page to page."""
        jobs = self.add(
            *(new_job(n, task=f"app:{'ab'[n % 2]}", call=f'["Needle {n}"]') for n in range(6)),
            new_job(9, call='["hay"]'),
        )
        self.mark(success(jobs[0]))
        found: list[str] = []
        after = None
        for _ in range(9):
            rows, after = self.journal.search(None, None, "nEEDLE", after, 2, 5.0)
            found += [row.id for row in rows]
            if after is None:
                break
        assert found == jobs[5::-1]
        assert after is None, "it came to an end"
        rows, _ = self.journal.search("queued", "app:a", "needle", None, 9, 5.0)
        assert [row.id for row in rows] == [jobs[4], jobs[2]]
        rows, _ = self.journal.search(None, None, "no such word", None, 9, 5.0)
        assert rows == []
        rows, _ = self.journal.search(None, None, None, None, 9, 5.0)
        assert [row.id for row in rows] == jobs[::-1]

    def test_samples(self) -> None:
        """The oldest of each stretch, without its end."""
        jobs = self.add(*(new_job(n) for n in range(4)))
        self.mark(success(jobs[0]), Handover(jobs[1], "arq", NOW))
        stretches = [(NOW, NOW + 2), (NOW + 2, NOW + 9), (NOW + 9, NOW + 99)]
        first, second, third = self.journal.sample(stretches, 9)
        assert [(each.status, each.is_handed_over) for each in first] == [
            ("succeeded", False), ("queued", True),
        ]  # fmt: skip
        assert (first[0].task, first[0].queued_at, first[0].finished_at) == ("app:work", NOW, NOW)
        assert (len(second), third) == (2, [])
        assert [len(each) for each in self.journal.sample(stretches, 1)] == [1, 1, 0]

    def test_how_all_jobs_stand(self) -> None:
        """With the owners, and who of them is this process."""
        other = self.other()
        other.call("commit", Batch(added=[new_job(), new_job()]))
        tried, handed, _, _ = self.add(new_job(), new_job(), waiting(7), new_job(8))
        self.mark(Handover(handed, "arq", NOW), change(tried, attempt=1, run_after=NOW + 60))
        standing = self.journal.standing(9)
        assert standing.counts == self.journal.counts()
        assert (standing.retrying, standing.handed_over) == (1, 1)
        assert standing.oldest == NOW + 7
        assert all(owner.is_alive for owner in standing.owners)
        assert sorted((each.is_own, each.pid, each.held) for each in standing.owners) == [
            (False, other.process.pid, 2), (True, os.getpid(), 1),
        ]  # fmt: skip
        assert self.journal.standing(0).retrying == 0

    def test_who_only_reads_is_no_owner(self) -> None:
        """W3: in a process that has not opened the journal; it may also cancel, retry, purge."""
        failed, free = self.add(new_job(), waiting())
        self.mark(change(failed, "failed"))
        reader = self.make_journal()
        try:
            row = reader.get(free)
            assert row is not None
            assert reader.counts()["queued"] == 1
            assert reader.has_ready()
            assert reader.retry(failed)
            reader.cancel(free, "why", NOW)
            assert reader.purge("cancelled", NOW + 1, 9) == 1
            assert len(reader.standing(9).owners) <= 1
        finally:
            reader.close()
        assert self.claim() == [failed]

    def test_reading_from_many_threads_while_others_write(self) -> None:
        """No reader hinders the writer, or gets half of a batch."""
        self.add(waiting())

        def read(_: int) -> bool:
            counts = self.journal.counts()
            rows = self.journal.find(None, None, None, 1000)
            return counts["queued"] % 10 == 1 and len(rows) % 10 == 1

        with ThreadPoolExecutor(4) as pool:
            reads = [pool.submit(read, n) for n in range(40)]
            for n in range(20):
                self.add(*(waiting(n) for _ in range(10)))
            assert all(each.result() for each in reads)
