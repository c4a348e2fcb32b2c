"""The attempts of a job before its last one, as the journal has them."""

from __future__ import annotations

import contextlib

import msgspec

from asgi_bg._job import PastAttempt
from asgi_bg._record import PAST_LIMIT, PAST_TRACEBACK
from asgi_bg.journal._text import text_of
from asgi_bg.journal.base import JobRow


def past_in(row: JobRow) -> list[PastAttempt]:
    """Return the attempts of a job before its last one."""
    if row.past is not None:
        with contextlib.suppress(ValueError):  # edited by hand
            return msgspec.json.decode(row.past, type=list[PastAttempt])
    return []


def past_with_last(row: JobRow) -> str | None:
    """Return them and the last one, of a job that is queued anew, as JSON text."""
    past = past_in(row)
    is_kept = bool(past) and past[-1].is_it(row.attempt, row.started_at)
    if not row.attempt or is_kept:  # as it is where it was cancelled before the next one
        return row.past
    traceback = None if row.traceback is None else row.traceback[-PAST_TRACEBACK:]
    last = PastAttempt(row.attempt, row.started_at, row.finished_at, row.error, traceback)
    return text_of([*past[1 - PAST_LIMIT :], last])
