"""Which parts of a job are sealed where there are keys: its call, and what came of it (J10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from asgi_bg.exceptions import JournalError
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal.base import Batch, Change, Handover, JobRow, NewJob, Success

SEALED = "(sealed with a key that is not here)"

_PARTS = ("call", "result", "message", "error", "traceback", "logs", "past")

Entry = TypeVar("Entry", bound="NewJob | Success | Change | Handover")


def sealed_batch(sealer: Sealer, batch: Batch) -> Batch:
    """Return a batch as it is to be written."""
    if not sealer.is_active:
        return batch
    return Batch(
        [sealed(sealer, job) for job in batch.added],
        [sealed(sealer, mark) for mark in batch.marks],
        batch.dropped,
    )


def sealed(sealer: Sealer, entry: Entry) -> Entry:
    """Return an entry as it is to be written."""
    if not sealer.is_active:
        return entry
    parts = {
        name: sealer.seal(getattr(entry, name))
        for name in _PARTS
        if name in entry.__struct_fields__
    }
    return msgspec.structs.replace(entry, **parts)


def opened(sealer: Sealer, values: Iterable[Any]) -> JobRow:
    """Return the row that has these values.

    Raises:
        JournalError: None of the keys opens it.
    """
    row = JobRow(*values)
    if not sealer.is_active and not sealer.is_sealed(row.call):
        return row
    parts = {name: sealer.open(getattr(row, name)) for name in _PARTS}
    return msgspec.structs.replace(row, **parts)


def shown(sealer: Sealer, values: Sequence[Any]) -> JobRow:
    """Return a row as one of several: what no key opens says so, and spoils no other."""
    try:
        return opened(sealer, values)
    except JournalError:
        parts = dict.fromkeys(_PARTS, None) | {"call": SEALED, "message": SEALED}
        return msgspec.structs.replace(JobRow(*values), **parts)
