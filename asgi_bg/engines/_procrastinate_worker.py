"""Declared tasks in Procrastinate's workers, and what becomes of a job whose worker died."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import msgspec
from procrastinate import App, BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.exceptions import ProcrastinateException
from procrastinate.job_context import AbortReason
from procrastinate.jobs import DEFAULT_QUEUE, Job, Status
from procrastinate.manager import JobManager
from psycopg import Error

from asgi_bg._job import job_extras
from asgi_bg._record import describe_error
from asgi_bg._task import Task, declared_task
from asgi_bg.engines._procrastinate_jobs import (
    PRIORITIES,
    Notes,
    Outcome,
    envelope_of,
    lock_of,
    notes_in,
)
from asgi_bg.engines._procrastinate_sql import FORGET, NOTE
from asgi_bg.engines.base import Again, Envelope
from asgi_bg.engines.worker import Worker
from asgi_bg.exceptions import EngineError

__all__ = ["RETRY_STALLED", "Roster", "retry_stalled"]

logger = logging.getLogger("asgi_bg")

CRASH_LIMIT = 3
"""Running in so many workers that died fails a job, as it does without an engine (J5)."""

POISONOUS = f"the workers that ran it died {CRASH_LIMIT} times during it, so it is not run any more"

OUTCOME_LIMIT = 1_000_000
"""How many bytes of an outcome are kept; a longer one is not."""

TRACEBACK_LIMIT = 20_000
"""How many characters of a traceback are kept, from its end."""

STALLED = 30.0
"""After how many seconds without a sign of life a worker counts as dead, at least."""

HEARTBEATS = 3
"""How many signs of life it may miss, where they are set to be rarer than usual."""

RETRY_STALLED = "asgi_bg:retry_stalled"
"""The task that looks for jobs of dead workers, every minute."""

Encode = Callable[[str, tuple[Any, ...], dict[str, Any]], str]


class Interrupted(Exception):
    """An attempt was broken off, as its worker is being shut down."""


class Retries(BaseRetryStrategy):
    """Has a job run again that says so, or whose worker has ended."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Return when to run a job again that has raised something; None for never."""
        if isinstance(exception, Interrupted):
            return RetryDecision(retry_at=_now())
        if isinstance(exception, Again):
            return RetryDecision(retry_at=_now() + timedelta(seconds=exception.delay))
        return None


class Roster:
    """Puts declared tasks among the tasks of an app, under their own names.

    Args:
        app: The app.
        worker: Who runs their jobs.
        encode: Writes the arguments of a call as JSON.
    """

    def __init__(self, app: App, worker: Worker, encode: Encode) -> None:
        self._app = app
        self._worker = worker
        self._encode = encode
        self._ending: asyncio.Task[None] | None = None
        self._former: int | None = None

    @property
    def _tasks(self) -> dict[str, Any]:
        return cast("Any", self._app).tasks  # type: ignore[no-any-return]

    def add(self, task: Task[..., Any]) -> None:
        """Take a declared task in.

        Raises:
            EngineError: Procrastinate has another task of that name.
        """
        name = task.name
        former = self._tasks.get(name)
        if former is not None and not isinstance(former.retry_strategy, Retries):
            raise EngineError(
                f"the app has a task of Procrastinate's own called {name!r} already; "
                "give the declared task another name"
            )

        async def run(context: JobContext, /, **arguments: Any) -> Any:
            return await self._run(name, context, arguments)

        # These count where somebody else defers it by its name.
        options = task.options
        self._tasks.pop(name, None)  # one that is declared anew takes its place
        self._app.task(
            name=name,
            queue=options.queue or DEFAULT_QUEUE,
            priority=options.priority if options.priority in PRIORITIES else 0,
            lock=lock_of(name, options.concurrency),
            pass_context=True,
            retry=Retries(),
        )(run)

    def add_rescue(self, queue: str) -> None:
        """Have the workers look for jobs of dead ones every minute, unless they do already."""
        if RETRY_STALLED in self._tasks:
            return

        @self._app.periodic(cron="* * * * *", periodic_id="asgi_bg")
        @self._app.task(
            name=RETRY_STALLED, queueing_lock=RETRY_STALLED, queue=queue, pass_context=True
        )
        async def look(context: JobContext, timestamp: int) -> None:
            await retry_stalled(context.app.job_manager, _patience_of(self._app))
            former, self._former = self._former, context.job.id
            if former is not None:  # or there would be a row for every minute
                await self._app.connector.execute_query_async(
                    FORGET, number=former, task=RETRY_STALLED
                )

    async def _run(self, name: str, context: JobContext, arguments: dict[str, Any]) -> Any:
        """Run one attempt, and note how it ends."""
        job = context.job
        notes = notes_in(arguments)
        envelope = envelope_of(arguments) or self._envelope(name, job, arguments)
        if self._worker.performer is None:
            self._end_with_loop()
        try:
            value = await self._worker.perform(
                name, envelope, job.attempts + 1 - notes.interruptions
            )
        except Again:
            raise
        except asyncio.CancelledError:
            if context.abort_reason() is AbortReason.USER_REQUEST:
                raise
            # A shutdown; some versions do not tell the reason, and PostgreSQL knows better.
            noted = Notes(interruptions=notes.interruptions + 1)
            await asyncio.shield(self._note(context, notes, noted))
            raise Interrupted("its worker is shut down, and another one runs it") from None
        except Exception as exc:
            await self._keep(context, notes, _failure(exc))
            raise
        if value is not None or notes.outcome is not None:  # of an attempt before this one
            await self._keep(context, notes, Outcome(result=value))
        return value

    def _envelope(self, name: str, job: Job, arguments: dict[str, Any]) -> Envelope:
        """Return the envelope of a job that somebody else has deferred, by the task's name."""
        call = self._encode(name, (), arguments)
        return {"id": job.queueing_lock or str(job.id), "call": call, "options": None}

    async def _keep(self, context: JobContext, notes: Notes, outcome: Outcome) -> None:
        text = msgspec.json.encode(outcome)
        if len(text) > OUTCOME_LIMIT:
            logger.debug(
                "what job %s returned is too large to be kept",
                context.job.id,
                extra=job_extras(str(context.job.queueing_lock), context.job.task_name),
            )
            return
        await self._note(context, notes, Notes(outcome=text.decode()))

    async def _note(self, context: JobContext, notes: Notes, more: Notes) -> None:
        try:
            await note(context.app.job_manager, context.job, notes, more)
        except Exception as exc:
            # Then Procrastinate cannot note either that the job has ended.
            logger.debug(
                "how job %s ended could not be noted: %r",
                context.job.id,
                exc,
                extra=job_extras(str(context.job.queueing_lock), context.job.task_name),
            )

    def _end_with_loop(self) -> None:
        """See to it that what serves the jobs is closed at the end of the worker.

        Nothing of Procrastinate's tells of that, but `asyncio.run` does: it cancels what is left.
        """
        loop = asyncio.get_running_loop()
        if self._ending is None or self._ending.get_loop() is not loop:
            self._ending = loop.create_task(self._close_at_end())

    async def _close_at_end(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._worker.aclose()


async def note(manager: JobManager, job: Job, notes: Notes, more: Notes) -> bool:
    """Note something in the arguments of a job that runs; return whether that still stands.

    Args:
        manager: Whose connector is used.
        job: The job, as it was when its attempt began.
        notes: What was noted then.
        more: What is to be noted.
    """
    found = await manager.connector.execute_query_all_async(
        NOTE,
        number=job.id,
        attempts=job.attempts,
        crashes=notes.crashes,
        notes=more.as_json,
    )
    return bool(found)


async def retry_stalled(manager: JobManager, seconds: float) -> int:
    """Have the jobs of declared tasks run again whose workers have died.

    Returns:
        How many there were.
    """
    stalled = await manager.get_stalled_jobs(seconds_since_heartbeat=seconds)
    revived = 0
    for job in stalled:
        if declared_task(job.task_name) is not None:
            revived += await _revive(manager, job)
    return revived


async def _revive(manager: JobManager, job: Job) -> bool:
    """Have a job run again, if nobody else has seen to that meanwhile."""
    notes = notes_in(job.task_kwargs)
    crashes = notes.crashes + 1
    more = Notes(crashes=crashes, interruptions=notes.interruptions + 1)
    if crashes >= CRASH_LIMIT:
        more = Notes(
            crashes=crashes, outcome=msgspec.json.encode(Outcome(error=POISONOUS)).decode()
        )
    try:
        if not await note(manager, job, notes, more):
            return False
        if crashes >= CRASH_LIMIT:
            logger.error(
                "job %s of task %s: %s",
                job.queueing_lock,
                job.task_name,
                POISONOUS,
                extra=job_extras(str(job.queueing_lock), job.task_name),
            )
            await manager.finish_job(job, status=Status.FAILED, delete_job=False)
            return False
        await manager.retry_job(job, retry_at=_now())
    except (Error, ProcrastinateException) as exc:
        # Such as: the same job waits, as it was sent twice.
        logger.warning(
            "job %s of a worker that died is left as it is: %s",
            job.id,
            exc,
            extra=job_extras(str(job.queueing_lock), job.task_name),
        )
        return False
    return True


def _patience_of(app: App) -> float:
    """Return after how many seconds without a sign of life a worker of an app counts as dead."""
    defaults = cast("dict[str, Any]", app.worker_defaults)
    interval: float = defaults.get("update_heartbeat_interval", 0.0)
    timeout: float = defaults.get("stalled_worker_timeout", 0.0)
    return max(STALLED, timeout, HEARTBEATS * interval)


def _failure(error: Exception) -> Outcome:
    lines = "".join(traceback.format_exception(error))
    return Outcome(
        error=_writable(describe_error(error)), traceback=_writable(lines[-TRACEBACK_LIMIT:])
    )


def _writable(text: str) -> str:
    # Half a surrogate pair, as file names have it, cannot be encoded.
    return text.encode("utf-8", "backslashreplace").decode()


def _now() -> datetime:
    return datetime.now(timezone.utc)
