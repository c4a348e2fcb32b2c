"""Journals: where jobs are kept so that they survive the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_bg.journal.base import Journal

if TYPE_CHECKING:
    from asgi_bg.journal.sqlite import SQLiteJournal

__all__ = ["Journal", "SQLiteJournal"]


def __getattr__(name: str) -> Any:
    # Whoever keeps no jobs, or keeps them elsewhere, need not have sqlite3.
    if name == "SQLiteJournal":
        from asgi_bg.journal.sqlite import SQLiteJournal

        return SQLiteJournal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
