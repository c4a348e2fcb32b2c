"""What ``watch`` notices (W3)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from asgi_bg._looking.desk import Desk
from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.base import Batch
from tests.cli.helpers import new_job
from tests.helpers import need
from tests.journal.helpers import change, success

need("typer")
from asgi_bg.cli import _following  # noqa: E402 - not there without the extra
from asgi_bg.cli._following import Follower  # noqa: E402

NOW = time.time()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SQLiteJournal]:
    with closing(SQLiteJournal(tmp_path / "jobs.db")) as journal:
        journal.open()
        yield journal


def told(follower: Follower) -> list[tuple[str, str]]:
    return [(job.id, job.status.value) for job in follower.look()]


def test_first_look_tells_what_has_not_ended(journal: SQLiteJournal) -> None:
    ended, waiting = (new_job("t", NOW + n, is_held=True) for n in range(2))
    journal.commit(Batch(added=[ended, waiting], marks=[success(ended.id)]))
    follower = Follower(Desk(journal), None)
    assert told(follower) == [(waiting.id, "queued")]
    assert told(follower) == []


def test_every_change_is_told_once(journal: SQLiteJournal) -> None:
    """Also of a job that is written after a newer one, and of one that is old and retried."""
    old, late, new = (new_job("t", NOW + n, is_held=True) for n in range(3))
    journal.commit(Batch(added=[old], marks=[change(old.id, "failed", error="no")]))
    follower = Follower(Desk(journal), None)
    assert told(follower) == []
    journal.commit(Batch(added=[new]))
    assert told(follower) == [(new.id, "queued")]
    journal.commit(Batch(added=[late], marks=[success(late.id)]))
    assert told(follower) == [(late.id, "succeeded")]
    journal.retry(old.id)
    assert told(follower) == [(old.id, "queued")]
    journal.commit(Batch(marks=[change(new.id, "running")]))
    journal.commit(Batch(marks=[change(new.id, "running", progress=0.5)]))
    assert told(follower) == [(new.id, "running")]
    journal.commit(Batch(marks=[success(new.id)]))
    assert told(follower) == [(new.id, "succeeded")]
    assert told(follower) == []


def test_old_job_that_runs_again_is_told(
    journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is on none of the newest pages."""
    monkeypatch.setattr(_following, "PAGE", 5)
    old, *others = (new_job("t", NOW + n, is_held=True) for n in range(30))
    marks = [change(old.id, "failed"), *(success(job.id) for job in others)]
    journal.commit(Batch(added=[old, *others], marks=marks))
    follower = Follower(Desk(journal), None)
    assert told(follower) == []
    journal.retry(old.id)
    assert told(follower) == []
    [row] = journal.claim(10, time.time())
    journal.commit(Batch(marks=[change(row.id, "running")]))
    assert told(follower) == [(old.id, "running")]
    journal.commit(Batch(marks=[change(old.id, "failed")]))
    assert told(follower) == [(old.id, "failed")]


def test_many_jobs_between_two_looks_are_told(
    journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, up to so many pages; and what is remembered stays bounded."""
    monkeypatch.setattr(_following, "PAGE", 10)
    monkeypatch.setattr(_following, "PAGES", 5)
    monkeypatch.setattr(_following, "REMEMBERED", 60)
    follower = Follower(Desk(journal), None)
    assert told(follower) == []
    for start, count, expected in ((0, 45, 45), (100, 80, 50)):
        jobs = [new_job("t", NOW + start + n, is_held=True) for n in range(count)]
        journal.commit(Batch(added=jobs, marks=[success(job.id) for job in jobs]))
        assert told(follower) == [(job.id, "succeeded") for job in jobs[-expected:]]
        assert told(follower) == []
        assert len(follower._states) <= 60


def test_other_tasks_are_not_told(journal: SQLiteJournal) -> None:
    follower = Follower(Desk(journal), "mine")
    mine, other = new_job("mine", NOW, is_held=True), new_job("other", NOW, is_held=True)
    journal.commit(Batch(added=[mine, other]))
    assert told(follower) == [(mine.id, "queued")]
