"""Hands jobs over to an engine, which runs them in place of this process (E1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from asgi_bg import events
from asgi_bg._failures import failure_of
from asgi_bg._job import JobStatus
from asgi_bg._keeping.elsewhere import handed_over
from asgi_bg._keeping.keeper import Keeper
from asgi_bg._messages import extras
from asgi_bg._record import JobRecord
from asgi_bg._scheduling.drain import Drain
from asgi_bg._scheduling.ends import Ends
from asgi_bg._scheduling.parts import Parts
from asgi_bg.engines._link import Link
from asgi_bg.engines._message import message_of
from asgi_bg.engines._outbox import Outbox
from asgi_bg.exceptions import EngineError

logger = logging.getLogger("asgi_bg")


class Handing:
    """The way of the jobs of one event loop to an engine; the desk of the outbox.

    Without a journal there is no outbox: the engine has acknowledged a job before its response
    went on, and it is handed over already when it comes here.

    Args:
        loop: The event loop.
        parts: What the runner is made of.
        link: The way to the engine.
        keeper: Who keeps the jobs until then.
        drain: Waits for what is being sent.
        ends: Ends jobs that the engine refuses.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parts: Parts,
        link: Link,
        keeper: Keeper,
        drain: Drain,
        ends: Ends,
    ) -> None:
        self.loop = loop
        self._engine = link.engine.name
        self._drain = drain
        self._ends = ends
        self._registry = parts.registry
        self._events = parts.events
        self._keeper = keeper
        link.attach(loop)
        self._outbox = Outbox(link, self, message_of) if keeper.has_disk else None

    def forward(self, record: JobRecord) -> None:
        """Send a job, when its turn comes."""
        if self._outbox is None:
            self.handed_over([record])
        elif self._keeper.try_to_hold(record):
            self._outbox.add(record)

    async def settled(self) -> None:
        """Wait until the jobs were handed over, or the engine is away."""
        if self._outbox is not None:
            await self._outbox.settled()

    def finish(self) -> None:
        """Let the jobs wait in the journal from now on, should the engine be away."""
        if self._outbox is not None:
            self._outbox.finish()

    def close(self) -> None:
        """Send no more."""
        if self._outbox is not None:
            self._outbox.close()

    # What the outbox tells.

    def handed_over(self, records: Sequence[JobRecord]) -> None:
        """Let go of jobs that the engine has now."""
        records = [r for r in records if r.finished_at is None and not r.is_away]
        self._keeper.hand_over(records, self._engine)
        self._registry.handed_over += len(records)
        if self._events.handlers:
            change = partial(handed_over, engine=self._engine)
            for record in records:
                self._events.emit(events.HANDED_OVER, record, change)

    def refused(self, record: JobRecord, reason: str) -> None:
        """Fail a job that the engine will never take."""
        if record.finished_at is None and not record.is_away:
            error = EngineError(f"the engine {self._engine} does not take the job: {reason}")
            record.fail(failure_of(error))
            self._ends.end(record, JobStatus.failed, events.FAILED)
            logger.error(
                "task %s cannot be handed over: %s (job %s)",
                record.task_name,
                error,
                record.id,
                extra=extras(record),
            )

    def send_away(self, record: JobRecord) -> None:
        """Let a job wait in the journal, if there is one, for this process or another one."""
        if self._outbox is None:
            self.handed_over([record])
        else:
            self._keeper.give_back(record)

    def hold(self) -> None:
        """Keep the drain from ending until `release`."""
        self._drain.hold()

    def release(self) -> None:
        """End a `hold`."""
        self._drain.release()
