"""What is noted in a ledger, as bytes and back."""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_bg.journal._text import text_of
from asgi_bg.journal.base import Batch, Change, Handover, Mark, NewJob, Success

_KIND_OF: dict[int, type[NewJob | Mark]] = {
    **{len(kind.__struct_fields__): kind for kind in (NewJob, Success, Change, Handover)},
    # As written before there were origins and past attempts.
    10: NewJob,
    14: Change,
}


def entry_of(item: Mark | NewJob) -> bytes:
    """Return the entry that says what is to be written."""
    return text_of(item).encode()


def over(ids: list[str]) -> bytes:
    """Return the entry that says that nothing noted of these jobs so far counts any more."""
    return msgspec.json.encode([ids])


def batch_of(noted: list[bytes]) -> Batch:
    """Return what a ledger says is to be written; what is none of our entries says nothing."""
    added: dict[str, NewJob] = {}
    marks: dict[str, Mark] = {}
    for entry in noted:
        try:
            fields = msgspec.json.decode(entry, type=list[Any])
            if len(fields) == 1:
                for gone in msgspec.convert(fields[0], list[str]):
                    added.pop(gone, None)
                    marks.pop(gone, None)
                continue
            item: NewJob | Mark = msgspec.convert(fields, _KIND_OF[len(fields)])
            if isinstance(item, NewJob):
                added[item.id] = item
            else:
                marks[item.id] = item
        except (ValueError, KeyError):
            continue  # damaged
    return Batch(list(added.values()), list(marks.values()))
