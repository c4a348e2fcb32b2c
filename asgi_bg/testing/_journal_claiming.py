"""The contract of journals: who gets which job, and when (R2, J4, J6, J10)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from asgi_bg.journal.base import Batch
from asgi_bg.testing._journal_jobs import NOW, change, new_job, success, waiting
from asgi_bg.testing._journal_process import OtherProcess
from asgi_bg.testing._journal_site import JournalSite


class Claiming(JournalSite):
    """What `Journal.claim` does, and what is said of jobs that wait."""

    def test_higher_priorities_go_first_then_older_jobs(self) -> None:
        """J10."""
        order = [(5, 3.0), (0, 1.0), (9, 4.0), (0, 0.0), (-1, 0.0), (5, 2.0)]
        jobs = self.add(*(waiting(at, priority=priority) for priority, at in order))
        expected = [jobs[n] for n in (2, 5, 0, 3, 1, 4)]
        assert self.claim(2) == expected[:2]
        assert self.claim() == expected[2:]
        assert self.claim() == []

    def test_a_claimed_job_is_one_owners(self) -> None:
        """J4: also one that its process adds and holds."""
        other = self.other()
        [free, mine] = self.add(waiting(call='["x"]'), new_job())
        assert other.call("claim", 9, NOW) == [free]
        assert self.claim() == []
        assert self.row(free).owner != self.row(mine).owner
        other.call("commit", Batch(marks=[success(free)]))
        assert self.row(free).status == "succeeded"

    def test_a_claimed_job_comes_with_all_that_is_known(self) -> None:
        """As it is run from that."""
        job = waiting(call='["x"]', options='{"retries": 1}', origin='["GET","/"]')
        self.add(job)
        [row] = self.journal.claim(1, NOW)
        assert (row.id, row.task, row.call, row.options) == (
            job.id, job.task, job.call, job.options,
        )  # fmt: skip
        assert row.origin == job.origin

    def test_owners_that_claim_at_once_share(self) -> None:
        """J4: each job goes to one of them."""
        others = [self.other() for _ in range(3)]
        jobs = self.add(*(waiting(n) for n in range(150)))

        def claim(other: OtherProcess) -> list[str]:
            found: list[str] = []
            while claimed := other.call("claim", 7, NOW):
                found += claimed
            return found

        with ThreadPoolExecutor(3) as pool:
            shares = list(pool.map(claim, others))
        assert sorted(job for share in shares for job in share) == sorted(jobs)

    def test_a_job_that_is_given_back_is_anybodys(self) -> None:
        """As when a process has no room for it."""
        other = self.other()
        [job] = self.add(new_job())
        assert other.call("claim", 9, NOW) == []
        self.mark(change(job, is_held=False))
        assert self.row(job).owner is None
        assert other.call("claim", 9, NOW) == [job]

    def test_put_off_jobs_are_claimed_when_they_are_due(self) -> None:
        """J6."""
        late, soon, now = self.add(
            waiting(run_after=NOW + 60), waiting(1, run_after=NOW + 10), waiting(2)
        )
        assert self.journal.next_due() == NOW + 10
        assert self.claim() == [now]
        assert self.claim(now=NOW + 9.9) == []
        assert self.claim(now=NOW + 10) == [soon]
        assert self.journal.next_due() == NOW + 60
        assert self.claim(now=NOW + 61) == [late]
        assert self.journal.next_due() is None

    def test_a_put_off_job_of_an_owner_is_its_own(self) -> None:
        """It wakes by itself: others neither claim it nor are told of it."""
        [job] = self.add(new_job(run_after=NOW + 1))
        assert self.other().call("claim", 9, NOW + 2) == []
        assert self.journal.next_due() is None
        self.mark(change(job, run_after=NOW + 3))
        assert self.journal.next_due() == NOW + 3

    def test_jobs_of_a_request_are_claimed_together(self) -> None:
        """R2: in their order."""
        first = waiting()
        second = waiting(1, after=first.id)
        third = waiting(2, after=second.id)
        assert self.claim() == []
        self.add(first, second, third)
        assert self.claim() == [first.id, second.id, third.id]

    def test_a_follower_waits_for_the_job_before_it(self) -> None:
        """R2: claimed by somebody, or running there; priority or not."""
        other = self.other()
        first = waiting()
        second = waiting(1, after=first.id)
        third = waiting(2, after=second.id)
        self.add(first, second, third)
        assert self.claim(1) == [first.id]
        assert other.call("claim", 9, NOW) == self.claim() == []
        self.mark(change(first.id, "running"))
        assert other.call("claim", 9, NOW) == []
        self.mark(success(first.id))
        assert other.call("claim", 1, NOW) == [second.id]
        other.call("commit", Batch(marks=[change(second.id, "failed")]))
        assert self.claim() == [third.id]

    def test_a_job_that_is_put_off_has_left_its_turn(self) -> None:
        """R2: and one that is gone need not be waited for."""
        first, gone = new_job(), new_job()
        self.add(first, gone)
        followers = self.add(waiting(1, after=first.id), waiting(2, after=gone.id))
        assert self.claim() == []
        self.mark(change(first.id, run_after=NOW + 60, is_held=True))
        assert self.claim() == followers[:1]
        self.journal.commit(Batch(dropped=[gone.id]))
        assert self.claim() == followers[1:]

    def test_jobs_that_wait_for_others_stand_in_nobodys_way(self) -> None:
        """However many of them are older."""
        first = new_job()
        self.add(first, *(waiting(1, after=first.id) for _ in range(300)))
        free = self.add(*(waiting(2 + n) for n in range(3)))
        assert self.claim(1) + self.claim(1) + self.claim(9) == free

    def test_what_is_ready_and_what_is_to_be_tried_again(self) -> None:
        """Of jobs that are nobody's."""

        def look() -> tuple[bool, bool]:
            return self.journal.has_ready(), self.journal.has_retries()

        assert look() == (False, False)
        mine, _ = self.add(new_job(), waiting(run_after=NOW + 60))
        assert look() == (False, False), "held, and put off by its request"
        self.mark(change(mine, attempt=1, run_after=NOW + 60))
        assert look() == (False, True)
        self.add(waiting())
        assert look() == (True, True)
