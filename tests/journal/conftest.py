"""Journals for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bg.exceptions import JournalError
from asgi_bg.journal.sqlite import SQLiteJournal
from tests.journal.helpers import Other, check_counts

Make = Callable[..., SQLiteJournal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def make(path: Path) -> Iterator[Make]:
    """Make open journals on one file; each is an owner of its own."""
    made: list[SQLiteJournal] = []

    def make_one(**options: Any) -> SQLiteJournal:
        journal = SQLiteJournal(path, **options)
        made.append(journal)
        journal.open()
        return journal

    yield make_one
    for journal in made:
        with contextlib.suppress(JournalError):
            journal.close()


@pytest.fixture
def journal(make: Make, path: Path) -> Iterator[SQLiteJournal]:
    """An open journal; after the test its counts are checked."""
    yield make()
    check_counts(path)


@pytest.fixture
def other(path: Path) -> Iterator[Other]:
    """Another process with the same journal."""
    process = Other(path)
    yield process
    process.close()
