"""What is measured of a job, whoever it is measured for."""

from __future__ import annotations

import time
from typing import Final

from asgi_bg import events
from asgi_bg._ids import instant_of
from asgi_bg._record import JobRecord

ENDS: Final = frozenset((events.SUCCEEDED, events.FAILED, events.RETRYING, events.CANCELLED))
"""The events with which an attempt is over; a job that waits can be cancelled, too."""

BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25),
    *(0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
"""Bounds of histograms in seconds, as the messaging conventions of OpenTelemetry advise."""

LONG_BUCKETS: Final = (*BUCKETS, 30.0, 60.0, 300.0, 1800.0)
"""Those, and some for what may take longer than an answer to a message."""


def wait_of(name: str, record: JobRecord) -> float | None:
    """Return how many seconds a job was due before its first attempt began.

    None for later attempts, and for a job that was queued anew by hand: when such became due
    is not known any more.

    Args:
        name: The event that is told of it.
        record: The job, which has begun.
    """
    # The attempt that is to be followed by another one is among those of the past already.
    before = len(record.past or ()) - (name == events.RETRYING)
    if record.attempt != 1 or before or record.started_at is None:
        return None
    # An engine does not say when it got the job, and its id tells when it was made.
    made = None if record.brought is None else instant_of(record.id)
    due = record.queued_at if made is None else made
    options = record.task.options
    if options.delay is not None:
        due += options.delay
    elif options.run_at is not None:
        due = max(due, options.run_at.timestamp())
    return max(0.0, record.started_at - due)


def had_attempt(record: JobRecord) -> bool:
    """Whether an attempt is over.

    A job can also end while it waits: for its first attempt or another one, or for a thread.
    """
    return record.has_slot and record.started_at is not None


def duration_of(record: JobRecord) -> float:
    """Return how many seconds the attempt took that is over."""
    end = record.finished_at or time.time()
    return max(0.0, end - (record.started_at or end))


def error_type_of(name: str, record: JobRecord) -> str | None:
    """Return the kind of an attempt's error, of which there are few; None if it has none."""
    if name == events.SUCCEEDED:
        return None
    if name == events.CANCELLED:
        return events.CANCELLED
    kind = type(record.exception)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
