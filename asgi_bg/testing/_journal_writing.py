"""The contract of journals: what is written, and how jobs change (J1, J6, J10)."""

from __future__ import annotations

from asgi_bg.journal.base import Batch, Handover
from asgi_bg.testing._journal_jobs import CHANGED, NOW, change, new_job, success, waiting
from asgi_bg.testing._journal_site import JournalSite

_FIELDS = ("id", "task", "call", "options", "queued_at", "run_after", "priority", "key", "after")


class Writing(JournalSite):
    """What `Journal.commit` does, and what users ask for."""

    def test_it_says_where_it_is_and_what_it_takes(self) -> None:
        """For messages, and for the limit of arguments."""
        assert isinstance(self.journal.path, str)
        assert self.journal.max_payload > 0

    def test_it_can_be_closed_and_opened_again(self) -> None:
        """And what was written is there."""
        [job] = self.add(waiting())
        self.journal.close()
        self.journal.close()
        self.journal.open()
        assert self.row(job).id == job

    def test_a_job_reads_as_it_was_written(self) -> None:
        """J1: all of it, whatever the characters."""
        odd = '["\\u0000 ü 漢", {}]'
        job = new_job(
            0.25, task="app:ü", call=odd, options='{"retries": 1}', run_after=NOW + 60,
            priority=-3, key="k", after="0" * 32, origin='["GET","/"]',
        )  # fmt: skip
        self.add(job)
        row = self.row(job.id)
        assert {name: getattr(row, name) for name in _FIELDS} == {
            name: getattr(job, name) for name in _FIELDS
        }
        assert row.origin == job.origin
        assert (row.status, row.attempt, row.interrupted, row.crashes) == ("queued", 0, 0, 0)
        assert row.owner is not None, "this process owns what it adds and holds"
        assert row.started_at is row.finished_at is None
        assert row.result is row.error is None
        assert not row.is_recovered

    def test_a_job_that_nobody_holds(self) -> None:
        """It is nobody's."""
        [job] = self.add(waiting())
        assert self.row(job).owner is None

    def test_a_job_written_twice_is_there_once(self) -> None:
        """As after a commit of which nobody knows whether it was done."""
        job = new_job(key="k")
        self.add(job)
        self.mark(success(job.id))
        self.add(job)
        assert self.row(job.id).status == "succeeded"
        assert self.journal.counts()["queued"] == 0

    def test_many_jobs_in_a_batch(self) -> None:
        """J1: concurrent requests share a commit."""
        jobs = self.add(*(waiting(n) for n in range(1000)))
        assert self.journal.counts()["queued"] == 1000
        self.journal.commit(Batch(dropped=jobs))
        assert self.journal.commit(Batch()) == {}

    def test_a_success(self) -> None:
        """It ends the job, and takes the error of an attempt before away."""
        [job] = self.add(new_job(run_after=NOW))
        self.mark(change(job, error="e", traceback="t", is_held=True))
        assert self.row(job).error == "e"
        self.mark(success(job, 2, '"r"'))
        row = self.row(job)
        assert (row.status, row.attempt, row.result) == ("succeeded", 2, '"r"')
        assert (row.started_at, row.finished_at, row.owner) == (NOW, NOW, None)
        assert row.error is row.traceback is None

    def test_a_change_writes_all_that_changes(self) -> None:
        """J6: attempts, waits and progress."""
        [job] = self.add(new_job())
        self.mark(change(job, "running", 2, **CHANGED))
        row = self.row(job)
        assert {name: getattr(row, name) for name in CHANGED} == CHANGED
        assert (row.status, row.attempt) == ("running", 2)
        assert row.owner is not None
        assert self.journal.counts()["running"] == 1

    def test_of_several_marks_the_last_counts_but_none_after_an_end(self) -> None:
        """In one batch, and in one after the other."""
        first, second = self.add(new_job(), new_job())
        self.mark(
            change(first, "running"),
            success(second),
            success(first),
            change(second, "failed", error="late"),
        )
        self.mark(change(first, "cancelled", 9), success(second, 9))
        for job in (first, second):
            assert (self.row(job).status, self.row(job).attempt) == ("succeeded", 1)

    def test_a_mark_changes_no_job_of_somebody_else(self) -> None:
        """J4: whoever has it, and also when nobody has."""
        other = self.other()
        theirs = new_job()
        other.call("commit", Batch(added=[theirs]))
        [nobodys] = self.add(waiting())
        self.mark(success(theirs.id, 5), change(nobodys, "failed", 5))
        assert [self.row(job).status for job in (theirs.id, nobodys)] == ["queued", "queued"]

    def test_a_dropped_job_leaves_nothing(self) -> None:
        """M5: neither a row nor a key; but only this process's."""
        other = self.other()
        theirs = new_job()
        other.call("commit", Batch(added=[theirs]))
        [job] = self.add(new_job(key="k"))
        again, both = new_job(key="k"), new_job()
        batch = Batch(added=[again, both], dropped=[job, both.id, theirs.id])
        assert self.journal.commit(batch) == {}
        assert self.journal.get(job) is self.journal.get(both.id) is None
        assert self.journal.holder_of("k") == again.id
        assert self.row(theirs.id).status == "queued"

    def test_a_key_has_one_job(self) -> None:
        """J6: the id of a second one leads to the first, whatever is asked."""
        winner, loser, third = new_job(key="k"), new_job(key="k"), new_job(key="k")
        self.add(winner)
        assert self.journal.commit(Batch(added=[loser, waiting()])) == {loser.id: winner.id}
        assert self.other().call("commit", Batch(added=[third])) == {third.id: winner.id}
        assert self.journal.counts()["queued"] == 2
        assert self.row(loser.id).id == self.row(third.id).id == winner.id
        self.mark(change(winner.id, "failed"))
        assert self.journal.holder_of("k") == winner.id, "within its retention"
        assert self.journal.retry(third.id)
        assert self.row(winner.id).status == "queued"
        self.journal.cancel(loser.id, "why", NOW)
        assert self.row(winner.id).status == "cancelled"

    def test_a_key_is_free_when_its_job_is_forgotten(self) -> None:
        """J9."""
        [job] = self.add(new_job(key="k"))
        self.mark(success(job))
        assert self.journal.purge(None, NOW + 1, 9) == 1
        assert self.journal.holder_of("k") is None
        self.add(new_job(key="k"))

    def test_two_jobs_of_a_key_in_one_batch(self) -> None:
        """J6."""
        first, second = new_job(key="k"), new_job(key="k")
        assert self.journal.commit(Batch(added=[first, second])) == {second.id: first.id}

    def test_a_job_that_was_handed_over(self) -> None:
        """E1: it is queued, nobody's, never claimed and not counted."""
        [job] = self.add(new_job())
        self.mark(Handover(job, "arq", NOW))
        row = self.row(job)
        assert (row.status, row.engine, row.finished_at, row.owner) == ("queued", "arq", NOW, None)
        assert self.claim() == []
        assert self.journal.counts()["queued"] == 0
        assert not self.journal.has_ready()

    def test_cancelling(self) -> None:
        """One that nobody has ends; of one that somebody has, that one is told."""
        other = self.other()
        theirs = new_job()
        other.call("commit", Batch(added=[theirs]))
        free, over = self.add(waiting(), new_job())
        self.mark(success(over))
        for job in (free, theirs.id, over, new_job().id):
            self.journal.cancel(job, "why", NOW)
        row = self.row(free)
        assert (row.status, row.finished_at, row.error) == ("cancelled", NOW, "why")
        assert self.row(over).status == "succeeded"
        assert self.row(theirs.id).status == "queued"
        assert other.call("cancellations") == [theirs.id]
        assert self.journal.cancellations() == []

    def test_retrying(self) -> None:
        """Only what failed or was cancelled, and with all attempts before it."""
        failed, cancelled, done, open_job = self.add(new_job(), new_job(), new_job(), new_job())
        self.mark(change(failed, "failed", 3, error="e", interrupted=2))
        self.mark(change(cancelled, "cancelled"), success(done))
        assert self.journal.retry(failed)
        assert self.journal.retry(cancelled)
        for job in (done, open_job, new_job().id):
            assert not self.journal.retry(job)
        row = self.row(failed)
        assert (row.status, row.attempt, row.finished_at, row.owner) == ("queued", 0, None, None)
        assert sorted(self.claim()) == sorted([failed, cancelled])

    def test_purging(self) -> None:
        """J9: by status and by when it ended, and so many at a time."""
        jobs = self.add(*(new_job() for _ in range(5)))
        self.mark(*(success(job) for job in jobs[:3]), change(jobs[3], "failed"))
        assert self.journal.purge("failed", NOW - 1, 9) == 0
        assert self.journal.purge("failed", NOW + 1, 9) == 1
        assert self.journal.purge(None, NOW + 1, 2) == 2
        assert self.journal.purge(None, NOW + 1, 9) == 1
        assert [row.id for row in self.journal.find(None, None, None, 9)] == [jobs[4]]

    def test_expiring_comes_to_an_end(self) -> None:
        """J9: it looks at some jobs at a time, and forgets none that has not ended."""
        [over, open_job] = self.add(new_job(), waiting())
        self.mark(success(over))
        rounds = 0
        while self.journal.expire(NOW + 1e10, 10):
            rounds += 1
            assert rounds < 100
        assert self.row(open_job).status == "queued"
