"""The journal of this package keeps the contract of journals, and that finds who does not (E6)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from asgi_bg.journal import Journal, SQLiteJournal
from asgi_bg.testing._journal_writing import Writing
from asgi_bg.testing.journal_contract import JournalContract


class TestSQLite(JournalContract):
    """In plain text."""

    def make_journal(self) -> Journal:
        return SQLiteJournal(self.place / "jobs.db")

    def make_elsewhere(self) -> str:
        path = str(self.place / "jobs.db")
        return f"from asgi_bg.journal import SQLiteJournal\njournal = SQLiteJournal({path!r})"


class TestSQLiteWithKeys(Writing):
    """Sealed: what is written comes back as it was (J10)."""

    def make_journal(self) -> Journal:
        return SQLiteJournal(self.place / "jobs.db", keys=[bytes(32)])

    def make_elsewhere(self) -> str:
        path = str(self.place / "jobs.db")
        return (
            "from asgi_bg.journal import SQLiteJournal\n"
            f"journal = SQLiteJournal({path!r}, keys=[bytes(32)])"
        )


# Journals that do not keep it; each shall be found out by the test that is named.

FAULTY = """
import msgspec
from asgi_bg.journal import SQLiteJournal


class Forgetful(SQLiteJournal):
    "Says that it has written, and has not."

    def commit(self, batch):
        return {}


class Lazy(SQLiteJournal):
    "Writes what was committed when it is closed, or next asked."

    kept = None

    def commit(self, batch):
        if batch.added and self.kept is None:
            self.kept = batch
            return {}
        return super().commit(batch)


class Keyless(SQLiteJournal):
    "Knows no keys."

    def commit(self, batch):
        batch.added = [msgspec.structs.replace(job, key=None) for job in batch.added]
        return super().commit(batch)


class Generous(SQLiteJournal):
    "Gives jobs away before they are due."

    def claim(self, limit, now):
        return super().claim(limit, now + 1e6)


class Greedy(SQLiteJournal):
    "Gives more than was asked for."

    def claim(self, limit, now):
        return super().claim(999, now)


class Disorderly(SQLiteJournal):
    "Gives the newest first."

    def claim(self, limit, now):
        return super().claim(limit, now)[::-1]


class Unchained(SQLiteJournal):
    "Does not know which job follows which."

    def commit(self, batch):
        batch.added = [msgspec.structs.replace(job, after=None) for job in batch.added]
        return super().commit(batch)


class Trusting(SQLiteJournal):
    "Takes nobody for dead."

    def recover(self):
        return []


class Hasty(SQLiteJournal):
    "Believes only in what was committed."

    def note(self, entry):
        pass

    def note_start(self, id, attempt):
        pass


class Deaf(SQLiteJournal):
    "Does not hear that a job is to be cancelled."

    def cancellations(self):
        return []


class Indiscriminate(SQLiteJournal):
    "Finds jobs of any status."

    def find(self, status, task, after, limit):
        return super().find(None, task, after, limit)


class Endless(SQLiteJournal):
    "Says that there is always more."

    def search(self, *wanted):
        found, after = super().search(*wanted)
        return found, after or (found[-1].id if found else "0" * 32)


class Whole(SQLiteJournal):
    "Has the end of a stretch in it."

    def sample(self, stretches, limit):
        return super().sample([(since, until + 0.001) for since, until in stretches], limit)


class Blind(SQLiteJournal):
    "Sees no owners."

    def standing(self, limit):
        return msgspec.structs.replace(super().standing(limit), owners=[])


class Selfish(SQLiteJournal):
    "Owns what it reads."

    def get(self, id):
        if self._ownership is None:
            self.open()
        return super().get(id)


class Stubborn(SQLiteJournal):
    "Keeps its jobs when it is closed."

    def close(self):
        if self._ownership is not None:
            ownership, self._ownership = self._ownership, None
            ownership.end(keep=True)
        super().close()


class Eager(SQLiteJournal):
    "Retries whatever it is."

    def retry(self, id):
        super().retry(id)
        return True


class Hoarding(SQLiteJournal):
    "Purges nothing."

    def purge(self, status, before, limit):
        return 0
"""

FOUND_BY = {
    "Forgetful": "test_what_was_committed_is_there",
    "Lazy": "test_what_was_committed_is_there",
    "Keyless": "test_a_key_has_one_job",
    "Generous": "test_put_off_jobs_are_claimed_when_they_are_due",
    "Greedy": "test_higher_priorities_go_first_then_older_jobs",
    "Disorderly": "test_jobs_of_a_request_are_claimed_together",
    "Unchained": "test_a_follower_waits_for_the_job_before_it",
    "Trusting": "test_the_jobs_of_a_killed_process_are_taken",
    "Hasty": "test_what_was_noted_and_not_committed",
    "Deaf": "test_cancelling",
    "Indiscriminate": "test_finding_the_newest_first",
    "Endless": "test_searching",
    "Whole": "test_samples",
    "Blind": "test_how_all_jobs_stand",
    "Selfish": "test_who_only_reads_is_no_owner",
    "Stubborn": "test_closing_gives_all_back",
    "Eager": "test_retrying",
    "Hoarding": "test_purging",
}


@pytest.mark.parametrize(("kind", "test"), FOUND_BY.items())
def test_the_contract_finds_what_is_wrong(kind: str, test: str, tmp_path: Path) -> None:
    """E6: a contract that everything passes would be none."""
    path = str(tmp_path / "jobs.db")
    names: dict[str, Any] = {}
    exec(FAULTY, names)

    class Faulty(JournalContract):
        def make_journal(self) -> Journal:
            made: Journal = names[kind](path)
            return made

        def make_elsewhere(self) -> str:
            return f"{FAULTY}\njournal = {kind}({path!r})"

    contract = Faulty()
    with contextlib.contextmanager(contract.on_site)():
        with pytest.raises(AssertionError):
            getattr(contract, test)()
