"""For Procrastinate: hand jobs over to its workers, by way of PostgreSQL.

Needs the extra ``asgi_bg[procrastinate]``, or a Procrastinate that is there anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

from asgi_bg._task import Task
from asgi_bg.engines.base import (
    Engine,
    Feature,
    Message,
    Native,
    Performer,
    Report,
    check_consume,
    check_timeout,
    each_declared,
)
from asgi_bg.engines.worker import Worker
from asgi_bg.events import EventHandler
from asgi_bg.exceptions import EngineError, NotSerializable

try:
    from procrastinate import App, PsycopgConnector
    from procrastinate.jobs import DEFAULT_QUEUE
    from procrastinate.manager import JobManager
except ImportError as exc:
    raise ImportError(
        "asgi_bg.engines.procrastinate needs Procrastinate and psycopg; install them with: "
        "pip install 'asgi_bg[procrastinate]'"
    ) from exc

from asgi_bg.engines._procrastinate_jobs import report_of
from asgi_bg.engines._procrastinate_limits import check_options
from asgi_bg.engines._procrastinate_line import Line, Opening
from asgi_bg.engines._procrastinate_native import native_of
from asgi_bg.engines._procrastinate_numbers import Numbers
from asgi_bg.engines._procrastinate_rescue import STALLED, Rescue, retry_stalled
from asgi_bg.engines._procrastinate_sender import Sender
from asgi_bg.engines._procrastinate_sql import LOOK, TABLES
from asgi_bg.engines._procrastinate_worker import Roster

__all__ = ["ProcrastinateEngine"]

MAX_WORKED = 100
"""How many jobs the app's own process takes from the queue at once, unless it is told otherwise:
those it has, no other process can take."""

CLOSE_TIMEOUT = 2.0
"""How many seconds Procrastinate's worker gets to let go, once its jobs have ended."""


class ProcrastinateEngine(Engine):
    """Hands jobs over to Procrastinate's workers.

    Each job is what a task's ``defer_async`` would make of it, but many are sent in one
    statement. Procrastinate's ids are numbers, so a job's own id is its ``queueing_lock``. A job
    that is sent again while it waits or runs, or soon after it has ended, is there once.

    The engine has connections of its own, and neither opens nor closes the app, but for
    ``consume=True``.

    Args:
        app: Procrastinate's app, with a `procrastinate.PsycopgConnector`.
        consume: Whether the app's own process works the queue too.
        timeout: How long PostgreSQL may take to acknowledge jobs, in seconds.

    Raises:
        TypeError, ValueError: An argument does not fit.
    """

    name = "procrastinate"
    supports: frozenset[Feature] = frozenset(
        ("cancel", "concurrency", "delay", "priority", "queue", "results", "retries", "timeout")
    )

    def __init__(self, app: App, *, consume: bool = False, timeout: float = 5.0) -> None:
        if not isinstance(app, App):
            raise TypeError(f"app must be a procrastinate.App, got {app!r}")
        if not isinstance(app.connector, PsycopgConnector):
            raise TypeError(
                "the app's connector must be a procrastinate.PsycopgConnector, got "
                f"{app.connector!r}"
            )
        self.timeout = check_timeout(timeout)
        self.consume = check_consume(consume)
        self._app = app
        self._sending = Line(app.connector)
        self._asking = Line(app.connector)  # what searches long is not to hold up what is sent
        self._numbers = Numbers(self._asking)
        self._sender = Sender(self._sending, self._numbers)
        self._worker = Worker(self)
        self._roster = Roster(app, self._worker, super().encode_native)
        self._rescue = Rescue(app)
        self._is_registered = False
        self._opening = Opening(app)

    def register(
        self,
        *tasks: Task[..., Any],
        retry_stalled: bool | str = True,
        on_event: EventHandler | Iterable[EventHandler] = (),
    ) -> None:
        """Make declared tasks the app's own, for ``procrastinate --app=module.app worker``.

        Args:
            *tasks: The tasks; all declared ones, also those declared later, if none is given.
            retry_stalled: Whether workers look every minute for jobs of others that died, and
                have them run again; Procrastinate itself leaves them as they are. If no worker
                works the queue ``default``: the name of one that is worked.
            on_event: A function, or several, called in the workers with each `JobEvent` of the
                jobs of declared tasks (R9); where ``consume=True`` works the queue, it is those
                of the runner.

        Raises:
            TypeError: One of them is not declared with ``@task``, or cannot be called with
                events.
            EngineError: The app has a task of Procrastinate's own of the same name.
        """
        self._worker.subscribe(on_event)
        self._is_registered = True
        each_declared(tasks, self._roster.add)
        if retry_stalled:
            queue = DEFAULT_QUEUE if retry_stalled is True else retry_stalled
            self._rescue.add(queue)

    def check(self, task: Task[..., Any]) -> None:
        super().check(task)
        check_options(task, time.time())

    def native(self, func: object) -> Native | None:
        return native_of(self._app, func, lambda name, kwargs: self.encode_native(name, (), kwargs))

    def encode_native(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if args:
            raise NotSerializable(
                f"Procrastinate's tasks take keyword arguments only, and {name} was given "
                f"{len(args)} positional one(s)"
            )
        return super().encode_native(name, args, kwargs)

    async def open(self) -> None:
        await self._sending.connect()
        found = await self._sending.execute_query_one_async(TABLES)
        if not found["are_there"]:
            raise EngineError(
                "the database has no tables of Procrastinate's; make them with: "
                "procrastinate --app=... schema --apply"
            )
        if not found["are_new"]:
            raise EngineError(
                "the database has the tables of an older Procrastinate; migrate them, as "
                "Procrastinate's documentation says under 'Migrate the Procrastinate schema'"
            )

    async def close(self) -> None:
        self._sender.broken_at = time.time()
        self._sending.drop()
        self._asking.drop()

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        return await self._sender.send(messages)

    async def fetch(self, id: str) -> Report | None:
        number = await self._numbers.of(id)
        if number is None:
            return None
        rows = await self._asking.execute_query_all_async(LOOK, number=number)
        return report_of(rows[0]) if rows else None

    async def cancel(self, id: str) -> bool:
        number = await self._numbers.of(id)
        if number is None:
            return False
        return await JobManager(self._asking).cancel_job_by_id_async(number)

    async def retry_stalled(self, seconds: float = STALLED) -> int:
        """Have the jobs of declared tasks run again whose workers have died.

        The workers do that themselves every minute, if `register` has been told so. A job that
        was running in three workers that died is failed instead.

        Args:
            seconds: For how long a worker has shown no sign of life that counts as dead; they
                show one every 10 seconds.

        Returns:
            How many there were.
        """
        return await retry_stalled(JobManager(self._asking), seconds)

    async def work(
        self, performer: Performer, max_jobs: int, stopping: asyncio.Event, grace: float
    ) -> None:
        if not self._is_registered:
            self.register()
        self._worker.performer = performer
        working = asyncio.ensure_future(self._work(max_jobs, grace))
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((working, stop), return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                return await working  # which raises
            working.cancel()  # by which it takes no more jobs, and lets those end that it has
            await asyncio.wait((working,), timeout=grace + CLOSE_TIMEOUT)
        finally:
            stop.cancel()
            working.cancel()
            working.add_done_callback(_see)
            self._worker.performer = None

    async def _work(self, max_jobs: int, grace: float) -> None:
        # A pool would try for half a minute.
        await asyncio.wait_for(self._asking.connect(), self.timeout)
        options: dict[str, Any] = {
            "concurrency": min(max_jobs, MAX_WORKED),
            **self._app.worker_defaults,
            "install_signal_handlers": False,
            "shutdown_graceful_timeout": grace,
            "wait": True,
        }
        async with self._opening.opened():
            await self._app.run_worker_async(**options)


def _see(call: asyncio.Future[Any]) -> None:
    """Look at what a call that nobody waits for has raised, or asyncio would speak of it."""
    if not call.cancelled():
        call.exception()
