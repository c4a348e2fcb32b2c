"""The home of jobs in a worker that makes their calls in its own threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

from asgi_bg import events
from asgi_bg._job import JobInfo
from asgi_bg._record import JobRecord
from asgi_bg.events import Events
from asgi_bg.exceptions import EngineError

__all__ = ["InlineHome", "Reporter"]

Reporter: TypeAlias = Callable[[float, str], object]
"""Told the fraction done, and the words."""


class InlineHome:
    """Looks after a job for the time of one attempt, or of its sending; an `asgi_bg._record.Home`.

    Whether it is cancelled, what it returns and what becomes of it afterwards are the worker's.

    Args:
        subscribers: Told of what happens to it.
        report: Told of its progress.
    """

    def __init__(self, subscribers: Events, report: Reporter | None = None) -> None:
        self.owner = f"pid:{os.getpid()}"
        self.hears_begins = bool(subscribers.handlers)
        self._subscribers = subscribers
        self._report = report

    def tell(
        self, name: str, record: JobRecord, change: Callable[[JobInfo], JobInfo] | None = None
    ) -> None:
        """Tell the subscribers of it, if there are any; as `asgi_bg.events.Events.emit` does."""
        if self._subscribers.handlers:
            self._subscribers.emit(name, record, change)

    def began(self, record: JobRecord, run: int) -> None:
        """Tell that the task is being called."""
        self.tell(events.STARTED, record)

    def progressed(self, record: JobRecord) -> None:
        """Tell how far the task is, the worker too."""
        if self._report is not None:
            self._report(record.fraction or 0.0, record.message)
        self.tell(events.PROGRESSED, record)

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Do nothing: what ends an attempt is raised into it, or ends the process."""

    def named(self, record: JobRecord) -> None:
        """Do nothing: nobody asks for it here."""

    def begins(self, record: JobRecord) -> None:
        """Do nothing: it is in no journal."""

    def returned(self, record: JobRecord, value: Any) -> None:
        """Do nothing: it is in no journal."""

    async def result_of(self, id: str, timeout: float | None) -> Any:
        """Raise, as the job is somebody else's once it was sent."""
        raise _refusal(id)

    async def info_of(self, id: str) -> JobInfo:
        """Raise, as the job is somebody else's once it was sent."""
        raise _refusal(id)


def _refusal(id: str) -> EngineError:
    return EngineError(
        f"job {id} was sent by a worker, which does not follow it; do in its own task what is to "
        "be done with its result"
    )
