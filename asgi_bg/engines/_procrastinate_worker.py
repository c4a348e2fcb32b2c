"""Declared tasks in Procrastinate's workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import msgspec
from procrastinate import App, BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.job_context import AbortReason
from procrastinate.jobs import DEFAULT_QUEUE, Job

from asgi_bg._job import job_extras
from asgi_bg._task import Task
from asgi_bg.engines._failing import words_of
from asgi_bg.engines._procrastinate_jobs import envelope_of, lock_of
from asgi_bg.engines._procrastinate_limits import PRIORITIES
from asgi_bg.engines._procrastinate_notes import Notes, Outcome, note, notes_in
from asgi_bg.engines.base import Again, Envelope
from asgi_bg.engines.worker import Worker
from asgi_bg.exceptions import EngineError

__all__ = ["Roster"]

logger = logging.getLogger("asgi_bg")

OUTCOME_LIMIT = 1_000_000
"""How many bytes of an outcome are kept; a longer one is not."""

TRACEBACK_LIMIT = 20_000
"""How many characters of a traceback are kept, from its end."""

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


def _failure(error: Exception) -> Outcome:
    words, traceback = words_of(error)
    return Outcome(error=words, traceback=traceback[-TRACEBACK_LIMIT:])


def _now() -> datetime:
    return datetime.now(timezone.utc)
