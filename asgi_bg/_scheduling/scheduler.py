"""The jobs of one event loop: their admission, their way to an attempt, their stop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_bg import events
from asgi_bg._collector import BackgroundTasks
from asgi_bg._job import JobInfo
from asgi_bg._logs import keep_logs
from asgi_bg._origin import Origin, Request
from asgi_bg._record import JobRecord
from asgi_bg._scheduling.admission import Admission, Admitted, task_or_native
from asgi_bg._scheduling.attempts import Attempts
from asgi_bg._scheduling.deadlines import Deadlines
from asgi_bg._scheduling.drain import Drain
from asgi_bg._scheduling.ends import Ends
from asgi_bg._scheduling.lane import Lane, run_apart
from asgi_bg._scheduling.parts import Parts
from asgi_bg._scheduling.ready import Ready
from asgi_bg._scheduling.stopping import Stopping
from asgi_bg._task import Task, as_task

if TYPE_CHECKING:
    from asgi_bg._keeping.keeper import Keeper
    from asgi_bg._keeping.saving import Saving
    from asgi_bg._scheduling.handing import Handing
    from asgi_bg.engines._link import Link

logger = logging.getLogger("asgi_bg")

RETURN_TIMEOUT = 5.0
"""How many seconds after the end of a response its jobs start, returned the app or not (M4)."""


class Scheduler:
    """Takes the jobs of one event loop from their admission to their end.

    It is their `asgi_bg._record.Home`, and the dispatcher of their lanes; what it does itself
    is to decide where a job goes next. All methods belong to the loop's thread, but for `admit`,
    `withdraw`, `cancel`, `call` and those of the home.

    Attributes:
        parts: What the runner is made of.
        loop, thread: The event loop, and the thread in which it runs.
        ordered: Whether the jobs of one request run one after another (R2).
        task_of: Returns the task that something is which was given to ``add_task``.
        hears_begins: Whether it wants to know of every attempt that begins.
        returns: Waits for apps that have ended their response to return.
        is_supervised: Whether requests end without waiting for their jobs.
    """

    def __init__(self, parts: Parts) -> None:
        keeper, link = parts.keeper, parts.link
        self.parts = parts
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.owner = f"pid:{os.getpid()}"
        self.ordered = parts.limits.ordered
        self.is_supervised = False
        self.returns = Deadlines(self.loop, RETURN_TIMEOUT)
        self._keeper = keeper
        self._drain = Drain(self.loop)
        self._ends = Ends(parts)
        self._attempts = Attempts(self, parts, self._drain, self._ends)
        self._stopping = Stopping(self._attempts, self._ends)
        self._admission = Admission(self, parts, self._attempts)
        self._ready = Ready(self.loop, self._drain, self._attempts.functions.collect)
        self._handing: Handing | None = None
        self.task_of: Callable[[Any], Task[..., Any]] = (
            as_task if link is None else task_or_native(link)
        )
        self.hears_begins = bool(parts.events.handlers) or parts.limits.timeout is not None
        keep_logs()
        if keeper is not None:
            self._attach(keeper, link)

    def _attach(self, keeper: Keeper, link: Link | None) -> None:
        # Imported here, as they bring half of the package along, and few programs need it
        # that keep no jobs.
        from asgi_bg._scheduling.handing import Handing
        from asgi_bg._scheduling.intake import Intake

        if link is not None:
            self._handing = Handing(self.loop, self.parts, link, keeper, self._drain, self._ends)
        keeper.attach(Intake(self, keeper, self.parts.registry, self.parts.events))

    # Their way in.

    def admit(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> Admitted:
        """Take a new job; see `Admission.admit`."""
        return self._admission.admit(task, args, kwargs, source)

    def pack(self, record: JobRecord) -> None:
        """Make the call of a job one for another process."""
        self._attempts.pack(record)

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """End a job that was admitted and is not to run."""
        self._ends.withdraw(record, reason)

    def drop(self, records: list[JobRecord]) -> None:
        """End jobs that are not to run on their response, with one warning (M5)."""
        self._ends.drop(records)

    # Their way on.

    def soon(self, lane: Lane) -> None:
        """Start the jobs of a lane, together with those of some others."""
        self._ready.add(lane)

    def start_now(self) -> None:
        """Start the jobs of all lanes that are to be started soon."""
        self._ready.start()

    def submit(self, record: JobRecord) -> bool:
        """Start a job as soon as there is room; False if it has ended, or is put off."""
        if record.finished_at is not None or record.is_away:
            return False
        if record.kept is not None and self._handing is not None:
            self._handing.forward(record)
            return False
        if record.run_after is not None and record.run_after > time.time():
            if record.kept is None or self.keeper.try_to_wait(record):
                self._put_off(record)
            return False
        if record.kept is not None and not self.keeper.try_to_hold(record):
            return False
        self._attempts.slots.request(record)
        return record.has_slot or record.turn > 0

    def _put_off(self, record: JobRecord) -> None:
        # Event loops promise timers of up to a day; a longer wait is waited in parts.
        wait = min((record.run_after or 0.0) - time.time(), 86_400.0)
        record.timer = self.loop.call_later(wait, self._submit_loose, record)

    def _submit_loose(self, record: JobRecord) -> None:
        """Submit a job that belongs to no lane, or has left it."""
        record.timer = None
        run_apart(self, [record])

    def readmit(self, record: JobRecord) -> None:
        """Run a job again that has ended."""
        record.home = self
        record.reopen()
        self._submit_loose(record)

    # Their way into the journal.

    @property
    def forwards(self) -> bool:
        """Whether jobs that are kept are handed over to an engine instead of being run."""
        return self._handing is not None

    @property
    def keeper(self) -> Keeper:
        """Who keeps jobs in the journal, for those that are."""
        assert self._keeper is not None  # noqa: S101 - it has made them what they are
        return self._keeper

    def save(self, tasks: BackgroundTasks) -> Saving:
        """Have the new jobs of a collector written, before a response goes on (J1)."""
        return self.keeper.saver.save(tasks, self.loop)

    def save_late(self, tasks: BackgroundTasks) -> None:
        """Have the new jobs of a collector written, for which no response waits."""
        self.keeper.saver.save_late(tasks)

    def refuse(self, saving: Saving, reason: str) -> None:
        """End jobs that could not be written (J2)."""
        for record in saving.records:
            if record.finished_at is None:
                self.withdraw(record, reason)

    def send_away(self, record: JobRecord) -> None:
        """Let a job wait in the journal, for this process or another one."""
        if self._handing is not None:
            self._handing.send_away(record)
        else:
            self.keeper.give_back(record)

    async def written(self) -> None:
        """Wait until all jobs that were added so far are kept."""
        if self._keeper is not None:
            await self._keeper.archive.written()

    async def forwarded(self) -> None:
        """Wait until the jobs of this loop were handed over, or the engine is away."""
        if self._handing is not None:
            await self._handing.settled()

    # As their home.

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Cancel a job in whatever state it is; one that has ended stays as it is."""
        self.call(partial(self._stopping.cancel, record, reason))

    def begins(self, record: JobRecord) -> None:
        """Note that an attempt of a job that is kept begins; from any thread."""
        self.keeper.begins(record)

    def began(self, record: JobRecord, run: int) -> None:
        """Tell that an attempt has begun, and give it its time."""
        self._attempts.began(record, run)

    def progressed(self, record: JobRecord) -> None:
        """Tell how far a job is."""
        self.parts.events.emit(events.PROGRESSED, record)

    def returned(self, record: JobRecord, value: Any) -> None:
        """Note what the function of a job that is kept has returned, in its thread."""
        if not inspect.iscoroutine(value):  # whose end is the job's, as in `Attempts`
            self.keeper.returned(record, value)

    def named(self, record: JobRecord) -> None:
        """Make a job known by its id."""
        self.parts.registry.name(record)

    async def result_of(self, id: str, timeout: float | None) -> Any:
        """Wait for the end of a job that is kept, whoever runs it."""
        return await self.keeper.archive.result(id, timeout)

    async def info_of(self, id: str) -> JobInfo:
        """Return what is known of a job that is kept, whoever runs it."""
        return await self.keeper.archive.info(id)

    # Their stop.

    def hold(self) -> None:
        """Keep `drain` from ending until `release`."""
        self._drain.hold()

    def release(self) -> None:
        """End a `hold`."""
        self._drain.release()

    async def drain(self, timeout: float | None) -> bool:
        """Wait until nothing is ready, running or waiting for a retry; False if time is up."""
        return await self._drain.wait(timeout)

    @property
    def is_busy(self) -> bool:
        """Whether a `drain` would have to wait."""
        return self._drain.is_busy

    @property
    def running(self) -> int:
        """How many attempts hold a slot."""
        return self._attempts.slots.used

    def unfinished(self) -> list[JobRecord]:
        """All jobs admitted here that have not ended, oldest first."""
        return [record for record in tuple(self.parts.registry.unfinished) if record.home is self]

    def leave_waiting_behind(self) -> None:
        """Give those jobs back that are kept and wait for long, before a shutdown."""
        if self._handing is not None:
            self._handing.finish()
        self._stopping.leave_waiting_behind(self.unfinished())

    async def cancel_all(self, records: list[JobRecord], reason: str) -> None:
        """Cancel these jobs, or give them back; see `Stopping.cancel_all`."""
        await self._stopping.cancel_all(records, reason)

    def abandon(self) -> None:
        """End all jobs of a loop that was closed: nothing will run them any more."""
        self._stopping.abandon(self.unfinished())
        if self._keeper is not None:
            self._keeper.claims.detach(self.loop)
        self.close()

    def close(self) -> None:
        """Let go of what serves the jobs; none may be left."""
        self.is_supervised = False
        if self._handing is not None:
            self._handing.close()
        self._attempts.close()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the loop's thread: here and now, or soon."""
        if threading.get_ident() == self.thread:
            function()
            return
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop is closed, and with it ended what it was to be told about.
            logger.debug("an event loop was closed before its jobs had all returned")
