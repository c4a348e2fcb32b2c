"""Owners that come, go and die in any order, against a model in plain Python: J3 to J6."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_bg.journal.base import Batch, Change, Mark, NewJob, Success
from asgi_bg.journal.sqlite import SQLiteJournal
from tests.journal.helpers import NOW, change, check_counts, crash, files_left, success

FINAL = ("succeeded", "failed", "cancelled")
CHOICE = st.integers(0, 2**16)


@dataclasses.dataclass
class Owned:
    """An owner, alive or dead, and what it has noted and not committed."""

    journal: SQLiteJournal
    token: str
    number: int
    added: list[NewJob] = dataclasses.field(default_factory=list)
    marks: list[Mark] = dataclasses.field(default_factory=list)
    dropped: list[str] = dataclasses.field(default_factory=list)
    begun: dict[str, int] = dataclasses.field(default_factory=dict)
    owed: Batch = dataclasses.field(default_factory=Batch)

    @property
    def told(self) -> Batch:
        """What it has told that is not written yet."""
        return Batch(
            [*self.owed.added, *self.added],
            [*self.owed.marks, *self.marks],
            [*self.owed.dropped, *self.dropped],
        )

    @property
    def busy(self) -> set[str]:
        """The jobs that this is about."""
        told = self.told
        return {entry.id for entry in (*told.added, *told.marks)} | {*told.dropped}

    def gather(self) -> None:
        """Let what has been told be of the next commit, as the writer's thread does."""
        if not self.owed:
            self.journal.turn()
        self.owed = self.told
        self.added, self.marks, self.dropped = [], [], []


@dataclasses.dataclass
class Kept:
    """A job as it should be."""

    id: str
    priority: int
    key: str | None
    after: str | None
    run_after: float | None
    owner: str | None
    status: str = "queued"
    attempt: int = 0
    interrupted: int = 0
    crashes: int = 0
    is_cancelled: bool = False
    is_recovered: bool = False
    finished_at: float | None = None

    @property
    def is_over(self) -> bool:
        return self.status in FINAL


class Journals(RuleBasedStateMachine):
    """Several owners of one file.

    Each rule does something to the file and the same to the model; after each one, all rows
    are compared.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.path = Path(self.directory) / "jobs.db"
        self.now = NOW
        self.made = 0
        self.alive: list[Owned] = []
        self.dead: list[Owned] = []
        self.jobs: dict[str, Kept] = {}
        self.twins: dict[str, str] = {}
        self.over: set[str] = set()  # whose end was noted, by who owned them

    # The model.

    def write(
        self, owner: str, added: list[NewJob], marks: list[Mark], dropped: list[str]
    ) -> dict[str, str]:
        """Do what a commit is to do."""
        for gone in dropped:
            job = self.jobs.get(gone)
            if job is not None and job.owner in (owner, None) and not job.is_over:
                del self.jobs[gone]
        twins: dict[str, str] = {}
        for new in added:
            if new.id in dropped or new.id in self.jobs:
                continue
            holder = self.holder_of(new.key)
            if holder is not None:
                self.twins[new.id] = twins[new.id] = holder
                continue
            held_by = owner if new.is_held else None
            self.jobs[new.id] = Kept(
                new.id, new.priority, new.key, new.after, new.run_after, held_by
            )
        for mark in {mark.id: mark for mark in marks}.values():
            job = self.jobs.get(mark.id)
            if job is None or job.owner != owner or job.is_over or job.attempt > mark.attempt:
                continue
            job.attempt = mark.attempt
            job.finished_at = mark.finished_at
            if isinstance(mark, Success):
                job.status, job.run_after, job.owner = "succeeded", None, None
            else:
                job.status, job.run_after = mark.status, mark.run_after
                job.interrupted = mark.interrupted
                job.owner = owner if mark.is_held else None
        return twins

    def commit(self, owner: Owned, added: Sequence[NewJob] = (), *marks: Mark) -> None:
        """Commit this, and what is owed from before, as the writer's thread does."""
        owed, owner.owed = owner.owed, Batch()
        batch = Batch([*owed.added, *added], [*owed.marks, *marks], owed.dropped)
        twins = owner.journal.commit(batch)
        assert twins == self.write(owner.token, batch.added, batch.marks, batch.dropped)

    def write_noted(self, owner: Owned) -> None:
        """Do what is to be done with what was noted and not committed."""
        self.write(owner.token, owner.told.added, owner.told.marks, [])

    def holder_of(self, key: str | None) -> str | None:
        return next((job.id for job in self.jobs.values() if key and job.key == key), None)

    def owned_by(self, owner: Owned) -> list[Kept]:
        return [job for job in self.jobs.values() if job.owner == owner.token and not job.is_over]

    def idle_of(self, owner: Owned) -> list[Kept]:
        """What an owner holds and has told all about."""
        return [job for job in self.owned_by(owner) if job.id not in owner.busy]

    def release(self, owner: Owned, *, is_recovered: bool) -> list[str]:
        jobs = self.owned_by(owner)
        for job in jobs:
            job.owner, job.status = None, "queued"
            job.is_recovered = is_recovered or job.is_recovered
        return [job.id for job in jobs]

    def some_owner(self, choice: int) -> Owned:
        return self.alive[choice % len(self.alive)]

    def some_job(self, choice: int) -> str:
        ids = [*self.jobs, *self.twins]
        return ids[choice % len(ids)]

    def new_job(
        self, run_after: float | None, priority: int, key: str | None, chain: int
    ) -> NewJob:
        self.made += 1
        # Sorts as an id does, by the milliseconds first, and is the same when replayed.
        new = f"{int(self.now * 1000):012x}{self.made:020x}"
        after = self.some_job(chain) if chain % 3 == 0 and self.jobs else None
        due = None if run_after is None else self.now + run_after
        return NewJob(new, "app:work", "[]", None, self.now, due, priority, key, after, True)

    # Owners.

    @initialize()
    def begin(self) -> None:
        self.opens()

    @precondition(lambda self: len(self.alive) < 3)
    @rule()
    def opens(self) -> None:
        journal = SQLiteJournal(self.path, durability="normal")
        journal.open()
        assert journal._ownership is not None
        self.alive.append(Owned(journal, journal._ownership.token, journal._owner))

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE)
    def dies(self, choice: int) -> None:
        owner = self.some_owner(choice)
        self.alive.remove(owner)
        self.dead.append(owner)
        crash(owner.journal)

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE)
    def closes(self, choice: int) -> None:
        """It writes what it has noted, and what it had begun is anybody's."""
        owner = self.some_owner(choice)
        self.alive.remove(owner)
        owner.journal.close()
        self.write_noted(owner)
        self.release(owner, is_recovered=False)

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE)
    def recovers(self, choice: int) -> None:
        orphans = self.some_owner(choice).journal.recover()
        expected: dict[str, bool] = {}
        for owner in sorted(self.dead, key=lambda owner: owner.number):
            self.write_noted(owner)
            for begun, attempt in owner.begun.items():
                job = self.jobs.get(begun)
                if job is None or job.owner != owner.token or job.is_over:
                    continue
                job.attempt = max(job.attempt, attempt)
                job.interrupted += 1
                job.crashes += 1
                job.run_after, job.status = None, "queued"
                if job.crashes == 3:
                    job.status, job.finished_at = "failed", self.now
                    job.owner = None
                    expected[begun] = True
                    self.over.add(begun)
            expected |= dict.fromkeys(self.release(owner, is_recovered=True), False)
        self.dead.clear()
        assert {orphan.id: orphan.is_poisonous for orphan in orphans} == expected

    # What owners do.

    @precondition(lambda self: self.alive)
    @rule(
        choice=CHOICE,
        run_after=st.none() | st.integers(0, 5),
        priority=st.integers(0, 2),
        key=st.none() | st.sampled_from(["k", "l"]),
        chain=CHOICE,
        is_held=st.booleans(),
        count=st.integers(1, 3),
    )
    def adds(
        self,
        choice: int,
        run_after: float | None,
        priority: int,
        key: str | None,
        chain: int,
        is_held: bool,
        count: int,
    ) -> None:
        owner = self.some_owner(choice)
        jobs: list[NewJob] = []
        for _ in range(count):
            job = self.new_job(run_after, priority, key, chain)
            after = jobs[-1].id if jobs else job.after
            values = {"after": after, "is_held": is_held}
            jobs.append(NewJob(*(values.get(f, getattr(job, f)) for f in job.__struct_fields__)))
        self.commit(owner, jobs)

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE, key=st.none() | st.sampled_from(["k", "l"]))
    def notes_a_new_job(self, choice: int, key: str | None) -> None:
        owner = self.some_owner(choice)
        job = self.new_job(None, 0, key, 1)
        owner.journal.note(job)
        owner.added.append(job)

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE, limit=st.integers(1, 5))
    def claims(self, choice: int, limit: int) -> None:
        owner = self.some_owner(choice)
        rows = owner.journal.claim(limit, self.now)
        waiting = [job for job in self.jobs.values() if job.owner is None and not job.is_over]
        for job in waiting:
            if job.run_after is not None and job.run_after <= self.now:
                job.run_after = None
        expected: list[Kept] = []
        for job in sorted(waiting, key=lambda job: (-job.priority, job.id)):
            former = self.jobs.get(job.after or "")
            is_blocked = former and not former.is_over and former.run_after is None
            if (
                job.run_after is None
                and len(expected) < limit
                and (not is_blocked or former in expected)
            ):
                expected.append(job)
        assert [row.id for row in rows] == [job.id for job in expected]
        assert not self.over & {row.id for row in rows}, "one of them has ended"
        for row, job in zip(rows, expected, strict=True):
            assert row.is_recovered == job.is_recovered
            job.owner, job.is_recovered = owner.token, False

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE, which=CHOICE)
    def starts(self, choice: int, which: int) -> None:
        owner = self.some_owner(choice)
        jobs = [job for job in self.idle_of(owner) if job.id not in owner.begun]
        if jobs:
            job = jobs[which % len(jobs)]
            owner.begun[job.id] = job.attempt + 1
            owner.journal.note_start(job.id, job.attempt + 1)

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE, which=CHOICE)
    def shows_progress(self, choice: int, which: int) -> None:
        owner = self.some_owner(choice)
        jobs = [job for job in self.idle_of(owner) if job.id in owner.begun]
        if jobs:
            job = jobs[which % len(jobs)]
            mark = change(
                job.id, "running", owner.begun[job.id], progress=0.5, interrupted=job.interrupted
            )
            self.commit(owner, (), mark)

    @precondition(lambda self: self.alive)
    @rule(
        choice=CHOICE,
        which=CHOICE,
        how=st.sampled_from([*FINAL, "success", "tried again here", "put off", "given back"]),
        delay=st.integers(1, 5),
    )
    def tells_of_an_attempt(self, choice: int, which: int, how: str, delay: int) -> None:
        """It is noted, and committed with the next flush, if there is one."""
        owner = self.some_owner(choice)
        jobs = [job for job in self.idle_of(owner) if job.id in owner.begun]
        if not jobs:
            return
        job = jobs[which % len(jobs)]
        attempt = owner.begun.pop(job.id)
        mark: Mark
        if how == "success":
            mark = success(job.id, attempt, at=self.now)
        elif how in FINAL:
            mark = change(job.id, how, attempt, finished_at=self.now, interrupted=job.interrupted)
        else:
            mark = change(
                job.id,
                "queued",
                attempt,
                run_after=None if how == "given back" else self.now + delay,
                is_held=how == "tried again here",
                interrupted=job.interrupted + (how == "given back"),
            )
        owner.journal.note(mark)
        owner.marks.append(mark)
        if not isinstance(mark, Change) or mark.finished_at is not None:
            self.over.add(job.id)

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE, which=CHOICE)
    def drops(self, choice: int, which: int) -> None:
        owner = self.some_owner(choice)
        jobs = [job.id for job in self.idle_of(owner) if job.id not in owner.begun]
        jobs += [job.id for job in owner.told.added]
        if jobs:
            owner.dropped.append(jobs[which % len(jobs)])

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE, fails=st.booleans())
    def flushes(self, choice: int, fails: bool) -> None:
        """As the writer's thread does; a commit that fails is made up for by the next one."""
        owner = self.some_owner(choice)
        owner.gather()
        if not fails:
            self.commit(owner)

    # What users do.

    @precondition(lambda self: self.alive and self.jobs)
    @rule(choice=CHOICE, which=CHOICE)
    def cancels(self, choice: int, which: int) -> None:
        known = self.some_job(which)
        self.some_owner(choice).journal.cancel(known, "why", self.now)
        job = self.jobs.get(self.twins.get(known, known))
        if job is not None and not job.is_over:
            if job.owner is None:
                job.status, job.finished_at = "cancelled", self.now
                self.over.add(job.id)
            else:
                job.is_cancelled = True

    @precondition(lambda self: self.alive and self.jobs)
    @rule(choice=CHOICE, which=CHOICE)
    def retries(self, choice: int, which: int) -> None:
        known = self.some_job(which)
        is_retried = self.some_owner(choice).journal.retry(known)
        job = self.jobs.get(self.twins.get(known, known))
        assert is_retried == (job is not None and job.status in ("failed", "cancelled"))
        if job is not None and is_retried:
            job.status, job.owner, job.run_after, job.finished_at = "queued", None, None, None
            job.attempt = job.interrupted = job.crashes = 0
            job.is_cancelled = False
            self.over.discard(job.id)

    @precondition(lambda self: self.alive)
    @rule(choice=CHOICE, status=st.none() | st.sampled_from(FINAL), age=st.integers(0, 9))
    def purges(self, choice: int, status: str | None, age: int) -> None:
        gone = self.some_owner(choice).journal.purge(status, self.now - age, 100)
        expected = [
            job.id
            for job in self.jobs.values()
            if job.is_over
            and status in (None, job.status)
            and job.finished_at is not None
            and job.finished_at <= self.now - age
        ]
        assert gone == len(expected)
        for purged in expected:
            del self.jobs[purged]
        if expected:
            self.twins = {loser: job for loser, job in self.twins.items() if job in self.jobs}

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    # What is always so.

    @precondition(lambda self: self.alive)
    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        journal = self.alive[0].journal
        connection = journal._file.connection
        assert connection is not None
        tokens = dict(connection.execute("SELECT id, token FROM owners"))
        assert sorted(tokens.values()) == sorted(o.token for o in (*self.alive, *self.dead))
        owned = connection.execute("SELECT id, owner FROM jobs")
        owners = {job: tokens.get(owner) for job, owner in owned}
        rows = {row.id: row for row in journal.find(None, None, None, 1000)}
        assert rows.keys() == self.jobs.keys(), "none is missing, and none comes back"
        for job in self.jobs.values():
            row = rows[job.id]
            for name in (
                "status",
                "attempt",
                "interrupted",
                "crashes",
                "run_after",
                "is_recovered",
            ):
                assert getattr(row, name) == getattr(job, name), (job.id, name)
            assert owners[job.id] == job.owner, job.id
            assert (row.finished_at is not None) == job.is_over
        counted = Counter(job.status for job in self.jobs.values())
        assert {status: n for status, n in journal.counts().items() if n} == counted
        for owner in self.alive:
            asked = {job.id for job in self.owned_by(owner) if job.is_cancelled}
            assert set(owner.journal.cancellations()) == asked
        for key in ("k", "l"):
            assert journal.holder_of(key) == self.holder_of(key)
        for loser, winner in self.twins.items():
            found = journal.get(loser)
            assert (found.id if found else None) == (winner if winner in self.jobs else None)
        put_off = [
            job.run_after
            for job in self.jobs.values()
            if job.run_after is not None and job.owner is None and not job.is_over
        ]
        assert journal.next_due() == min(put_off, default=None)

    def teardown(self) -> None:
        """In the end somebody comes, and gets all that is left."""
        for owner in self.alive:
            crash(owner.journal)
        self.dead += self.alive
        self.alive = []
        self.opens()
        self.recovers(0)
        self.now += 1000
        while any(job.owner is None and not job.is_over for job in self.jobs.values()):
            self.claims(0, 5)
            for job in self.idle_of(self.alive[0]):
                self.commit(self.alive[0], (), success(job.id, job.attempt + 1))
        self.the_file_says_what_the_model_says()
        self.alive[0].journal.close()
        check_counts(self.path)
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("SELECT count(*) FROM owners").fetchone() == (0,)
        assert files_left(self.path) == ["jobs.db"]
        shutil.rmtree(self.directory)


TestJournals = Journals.TestCase
TestJournals.settings = settings(stateful_step_count=40, deadline=None)
