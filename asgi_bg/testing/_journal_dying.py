"""The contract of journals: processes that end, and processes that die (J3, J4, J5)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from asgi_bg.journal.base import Batch, Mark, Orphan
from asgi_bg.testing._journal_jobs import NOW, change, new_job, success, waiting
from asgi_bg.testing._journal_process import OtherProcess
from asgi_bg.testing._journal_site import JournalSite


class Dying(JournalSite):
    """What becomes of the jobs of a process when that is gone."""

    def recover(self, dead: OtherProcess) -> dict[str, Orphan]:
        """Kill a process, and take its jobs over."""
        dead.kill()
        return {orphan.id: orphan for orphan in self.journal.recover()}

    def test_closing_gives_all_back(self) -> None:
        """Without a crash being counted, and with what was noted."""
        other = self.other()
        running, put_off, done = new_job(), new_job(1), new_job(2)
        other.call("commit", Batch(added=[running, put_off, done]))
        marks: list[Mark] = [
            change(running.id, "running"),
            change(put_off.id, run_after=NOW + 5, is_held=True),
        ]
        other.call("commit", Batch(marks=marks))
        other.call("note_start", done.id, 1)
        other.call("note", success(done.id, result='"r"'))
        other.call("close")
        row = self.row(running.id)
        assert (row.status, row.crashes, row.owner) == ("queued", 0, None)
        assert self.row(done.id).result == '"r"'
        assert self.claim() == [running.id]
        assert self.claim(now=NOW + 5) == [put_off.id]
        assert self.journal.recover() == []

    def test_what_was_committed_is_there(self) -> None:
        """J1: whatever becomes of the process right after."""
        other = self.other()
        jobs = [waiting(n) for n in range(10)]
        for job in jobs:
            other.call("commit", Batch(added=[job]))
        other.kill()
        assert self.claim() == [job.id for job in jobs]

    def test_the_jobs_of_a_killed_process_are_taken(self) -> None:
        """J3: those that it held, claimed or was running; and only they."""
        other = self.other()
        claimed, mine = self.add(waiting(), new_job())
        assert other.call("claim", 9, NOW) == [claimed]
        waits, runs = new_job(1), new_job(2)
        other.call("commit", Batch(added=[waits, runs]))
        other.call("note_start", runs.id, 1)
        other.call("commit", Batch(marks=[change(runs.id, "running", 1, started_at=NOW)]))
        found = self.recover(other)
        assert set(found) == {claimed, waits.id, runs.id}
        assert not any(orphan.is_poisonous for orphan in found.values())
        row = self.row(runs.id)
        assert (row.status, row.attempt, row.interrupted, row.crashes) == ("queued", 1, 1, 1)
        assert self.row(waits.id).crashes == 0
        assert self.row(waits.id).is_recovered
        assert self.claim() == [claimed, waits.id, runs.id]
        assert self.row(mine).status == "queued"
        assert self.journal.recover() == []

    def test_a_process_that_lives_keeps_its_jobs(self) -> None:
        """J4: however silent it is."""
        other = self.other()
        job = new_job()
        other.call("commit", Batch(added=[job]))
        os.kill(other.process.pid, signal.SIGSTOP)
        try:
            assert self.journal.recover() == []
            assert self.claim() == []
        finally:
            with suppress(ProcessLookupError):
                os.kill(other.process.pid, signal.SIGCONT)
        other.call("commit", Batch(marks=[success(job.id)]))
        assert self.row(job.id).status == "succeeded"

    def test_one_of_several_takes_them(self) -> None:
        """J4."""
        dying, third = self.other(), self.other()
        dying.call("commit", Batch(added=[new_job(n) for n in range(5)]))
        dying.kill()
        assert sorted(map(len, (third.call("recover"), self.journal.recover()))) == [0, 5]

    def test_three_crashes_fail_a_job(self) -> None:
        """J5: and only that one; after it was retried by hand, it has as many again."""
        [job] = self.add(waiting())
        for n in (1, 2, 3):
            other = self.other()
            assert other.call("claim", 1, NOW) == [job]
            beside = new_job(n)
            other.call("commit", Batch(added=[beside]))
            other.call("note_start", job, n)
            found = self.recover(other)
            assert found[job].is_poisonous is (n == 3)
            assert found[beside.id].is_poisonous is False
            self.mark(*(success(claimed) for claimed in self.claim() if claimed == beside.id))
            self.mark(change(job, attempt=n, interrupted=n))  # given back, if it was claimed
        row = self.row(job)
        assert (row.status, row.attempt, row.crashes) == ("failed", 3, 3)
        assert row.error
        assert row.finished_at is not None
        assert self.claim() == []
        assert self.journal.retry(job)
        assert self.row(job).crashes == 0

    def test_what_was_noted_and_not_committed(self) -> None:
        """J3: an end that was noted is none that is run again, and no job is lost."""
        other = self.other()
        late, done, tried = new_job(2), new_job(), new_job(1)
        other.call("commit", Batch(added=[done, tried]))
        for job in (done, tried):
            other.call("note_start", job.id, 1)
        other.call("note", success(done.id, result="7"))
        other.call("note", change(tried.id, run_after=NOW + 9, error="e", is_held=True))
        other.call("note", late)
        found = self.recover(other)
        assert set(found) == {late.id, tried.id}
        assert (self.row(done.id).status, self.row(done.id).result) == ("succeeded", "7")
        row = self.row(tried.id)
        assert (row.attempt, row.crashes, row.error, row.run_after) == (1, 0, "e", NOW + 9)
        assert self.claim() == [late.id]

    def test_what_was_dropped_does_not_come_back(self) -> None:
        """M5: though it was noted."""
        other = self.other()
        job = new_job()
        other.call("note", job)
        other.call("turn")
        other.call("commit", Batch(added=[job]))
        other.call("commit", Batch(dropped=[job.id]))
        assert self.recover(other) == {}
        assert self.journal.get(job.id) is None

    def test_a_cancelled_job_stays_so(self) -> None:
        """Though its owner has died before it could do anything about it."""
        other = self.other()
        job = new_job()
        other.call("commit", Batch(added=[job]))
        self.journal.cancel(job.id, "why", NOW)
        other.kill()
        self.journal.recover()
        if self.row(job.id).status != "cancelled":
            assert self.claim() == [job.id]
            assert self.journal.cancellations() == [job.id], "whoever has it next is asked"
