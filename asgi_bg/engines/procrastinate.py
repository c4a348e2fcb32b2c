"""For Procrastinate: hand jobs over to its workers, by way of PostgreSQL.

Needs the extra ``asgi_bg[procrastinate]``, or a Procrastinate that is there anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from asgi_bg._job import JobStatus
from asgi_bg._task import Task, on_declared
from asgi_bg.engines.base import (
    Again,
    Engine,
    Envelope,
    Message,
    Native,
    Performer,
    Report,
    check_timeout,
)
from asgi_bg.engines.worker import Worker
from asgi_bg.exceptions import EngineError, NotSerializable

try:
    import psycopg
    from procrastinate import App, BaseRetryStrategy, JobContext, RetryDecision, exceptions
    from procrastinate.jobs import DEFAULT_QUEUE, Job, JobDeferrer
    from procrastinate.tasks import Task as ProcrastinateTask
except ImportError as exc:
    raise ImportError(
        "asgi_bg.engines.procrastinate needs Procrastinate and psycopg; install them with: "
        "pip install 'asgi_bg[procrastinate]'"
    ) from exc

__all__ = ["ProcrastinateEngine"]

MAX_WORKED = 100
"""How many jobs the app's own process takes from the queue at once at most, of all its runner's
places: each of them needs a connection now and then."""

STALLED = 30.0
"""After how many seconds without a sign of life a worker's jobs are run by another one."""

RETRY_STALLED = "asgi_bg:retry_stalled"
"""The task that looks for them, every minute."""

KNOWN = 100_000
"""Of how many jobs the number that Procrastinate knows them by is remembered."""

_PRIORITIES = range(-(2**31), 2**31)

_STATUS = {
    "todo": JobStatus.queued,
    "doing": JobStatus.running,
    "succeeded": JobStatus.succeeded,
    "failed": JobStatus.failed,
    "cancelled": JobStatus.cancelled,
    "aborting": JobStatus.running,
    "aborted": JobStatus.cancelled,
}

_FIND = """
SELECT max(id) AS id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s
"""

_LOOK = """
SELECT
    status::text AS status, task_name, attempts,
    (SELECT max(at) FROM procrastinate_events
        WHERE job_id = jobs.id AND type = 'started') AS started_at,
    (SELECT max(at) FROM procrastinate_events
        WHERE job_id = jobs.id AND type IN ('succeeded', 'failed', 'cancelled', 'aborted')
    ) AS finished_at
FROM procrastinate_jobs AS jobs WHERE id = %(number)s
"""


class ProcrastinateEngine(Engine):
    """Hands jobs over to Procrastinate.

    Guarantees: a job that is sent twice is there once as long as it waits. Procrastinate's ids
    are numbers, so a job's own id is its ``queueing_lock``.

    Args:
        app: Procrastinate's app, with a connector of psycopg 3. It is opened when there is
            something to send, and closed with the runner, unless the caller has opened it.
        consume: Whether the app's processes work the queue too.
        timeout: How long PostgreSQL may take to acknowledge jobs, in seconds.

    Raises:
        TypeError, ValueError: An argument does not fit.
    """

    name = "procrastinate"
    supports = frozenset(
        ("delay", "results", "cancel", "retries", "timeout", "priority", "queue", "concurrency")
    )

    def __init__(self, app: App, *, consume: bool = False, timeout: float = 5.0) -> None:
        if not isinstance(app, App):
            raise TypeError(f"app must be a procrastinate.App, got {app!r}")
        self.timeout = check_timeout(timeout)
        self.consume = consume
        self._app = app
        self._is_ours = False
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._worker = Worker(self)

    def check(self, task: Task[..., Any]) -> None:
        """Refuse also what Procrastinate's columns and locks cannot hold."""
        super().check(task)
        options = task.options
        if options.concurrency not in (None, 1):
            raise EngineError(
                f"task {task.name} asks for concurrency={options.concurrency}, and Procrastinate "
                "can run jobs one at a time or without a bound; ask for 1 or leave it out"
            )
        if options.priority not in _PRIORITIES:
            raise EngineError(
                f"task {task.name} asks for priority={options.priority}, and Procrastinate takes "
                "32 bits"
            )

    # Tasks of its own.

    def native(self, func: object) -> Native | None:
        """Return what is needed to defer a task of Procrastinate's, or a configured one."""
        if isinstance(func, ProcrastinateTask):
            func = func.configure()
        if not isinstance(func, JobDeferrer):
            return None
        job = func.job
        at = job.scheduled_at
        return Native(
            job.task_name,
            {
                "queue": job.queue,
                "priority": job.priority,
                "lock": job.lock,
                "queueing_lock": job.queueing_lock,
                "scheduled_at": None if at is None else at.isoformat(),
                "task_kwargs": dict(job.task_kwargs),
            },
        )

    def encode_native(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the arguments as JSON text; Procrastinate takes keywords only."""
        if args:
            raise NotSerializable(
                f"Procrastinate's tasks take keyword arguments only, and {name} was given "
                f"{len(args)} positional one(s)"
            )
        return super().encode_native(name, args, kwargs)

    # Sending.

    async def open(self) -> None:
        """Open the app, unless its owner has, and see whether the tables are there."""
        if getattr(self._app.connector, "_async_pool", None) is None:
            self._is_ours = True  # also if this is cancelled on the way
            await self._app.open_async()
        if not await self._app.check_connection_async():
            raise EngineError(
                "the database has no tables of Procrastinate's; make them with: "
                "procrastinate --app=... schema --apply"
            )

    async def close(self) -> None:
        """Close the app, if this engine has opened it."""
        if self._is_ours:
            self._is_ours = False
            await self._app.close_async()

    async def send(self, messages: Sequence[Message]) -> list[str | None]:
        """Defer jobs, with one statement unless one of them cannot be."""
        jobs = [_job_of(message) for message in messages]
        if not jobs:
            return []
        try:
            await self._defer([message.id for message in messages], jobs)
        except (exceptions.AlreadyEnqueued, exceptions.ConnectorException) as exc:
            if len(jobs) > 1 and _is_about_a_job(exc):
                return [(await self.send([message]))[0] for message in messages]
            if isinstance(exc, exceptions.AlreadyEnqueued):
                return [_answer_to(messages[0], jobs[0])]
            if _is_about_a_job(exc):
                return [f"{type(exc.__cause__).__name__}: {exc.__cause__}"]
            raise
        return [None] * len(messages)

    async def _defer(self, ids: list[str], jobs: list[Job]) -> None:
        deferred = await self._app.job_manager.batch_defer_jobs_async(jobs)
        for own, job in zip(ids, deferred, strict=True):
            if job.id is not None:
                self._numbers[own] = job.id
        while len(self._numbers) > KNOWN:
            self._numbers.popitem(last=False)

    # Following up.

    async def fetch(self, id: str) -> Report | None:
        """Return how a job stands. Procrastinate keeps neither values nor errors."""
        number = await self._number_of(id)
        rows = await self._app.connector.execute_query_all_async(_LOOK, number=number)
        if not rows:
            return None
        row = rows[0]
        status = _STATUS[row["status"]]
        failed = f"it has {row['status']}; the worker's log says why"
        return Report(
            status=status,
            task=row["task_name"],
            attempt=row["attempts"] + (status is JobStatus.running),
            started_at=_seconds(row["started_at"]),
            finished_at=_seconds(row["finished_at"]) if status.is_final else None,
            error=failed if status in (JobStatus.failed, JobStatus.cancelled) else None,
        )

    async def cancel(self, id: str) -> bool:
        """Cancel a job that waits; return whether it waited."""
        number = await self._number_of(id)
        if number is None:
            return False
        return bool(await self._app.job_manager.cancel_job_by_id_async(number))

    async def _number_of(self, id: str) -> int | None:
        number = self._numbers.get(id)
        if number is None:
            # A search through all jobs, where another process has handed this one over.
            rows = await self._app.connector.execute_query_all_async(_FIND, lock=id)
            number = rows[0]["id"]
        return number

    # The workers.

    def register(self, *tasks: Task[..., Any], retry_stalled: bool = True) -> None:
        """Make declared tasks Procrastinate's own, for ``procrastinate --app=... worker``.

        Args:
            *tasks: The tasks; without any, all that are declared, now and later.
            retry_stalled: Whether a task is registered too that looks every minute for jobs
                of workers that died, and has them run again; Procrastinate leaves them as
                they are.
        """
        if tasks:
            for task in tasks:
                self._register(task)
        else:
            on_declared(lambda task: self._register(task) if task.is_durable else None)
        if retry_stalled and RETRY_STALLED not in self._tasks:
            self._register_retry_stalled()

    @property
    def _tasks(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self._app.tasks)  # pyright: ignore[reportUnknownMemberType]

    def _register(self, task: Task[..., Any]) -> None:
        name = task.name

        async def perform(context: JobContext, envelope: Envelope) -> Any:
            return await self._worker.perform(name, envelope, context.job.attempts + 1)

        self._tasks.pop(name, None)  # one that is declared anew takes its place
        self._app.task(
            name=name,
            queue=task.options.queue or DEFAULT_QUEUE,
            pass_context=True,
            retry=_Retries(),
        )(perform)

    def _register_retry_stalled(self) -> None:
        @self._app.periodic(cron="* * * * *", periodic_id="asgi_bg")
        @self._app.task(name=RETRY_STALLED, queueing_lock=RETRY_STALLED)
        async def retry_stalled(timestamp: int) -> None:
            await self.retry_stalled()

    async def retry_stalled(self, seconds: float = STALLED) -> int:
        """Have the jobs run again whose workers have shown no sign of life for so long.

        Returns:
            How many there were.
        """
        manager = self._app.job_manager
        stalled = list(await manager.get_stalled_jobs(seconds_since_heartbeat=seconds))
        for job in stalled:
            await manager.retry_job(job, retry_at=datetime.now(timezone.utc))
        return len(stalled)

    async def work(
        self, performer: Performer, max_jobs: int, stopping: asyncio.Event, grace: float
    ) -> None:
        """Run Procrastinate's worker in this process, until it is to stop."""
        await self.open()
        self.register()
        self._worker.performer = performer
        running = asyncio.ensure_future(
            self._app.run_worker_async(
                concurrency=min(max_jobs, MAX_WORKED),
                install_signal_handlers=False,
                shutdown_graceful_timeout=grace,
            )
        )
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((running, stop), return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                await running  # raises what has ended it
        finally:
            stop.cancel()
            running.cancel()  # which lets begun jobs end
            with contextlib.suppress(asyncio.CancelledError):
                await running
            self._worker.performer = None


class _Retries(BaseRetryStrategy):
    """Tries again what says so, and what a worker's shutdown has cut off."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, Again):
            delay = timedelta(seconds=exception.delay)
            return RetryDecision(retry_at=datetime.now(timezone.utc) + delay)
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_at=datetime.now(timezone.utc))
        return None


def _job_of(message: Message) -> Job:
    own = message.native
    if own is not None:
        at = own["scheduled_at"]
        return Job(
            queue=own["queue"],
            priority=own["priority"],
            lock=own["lock"],
            queueing_lock=own["queueing_lock"] or message.id,
            task_name=message.task,
            task_kwargs={**own["task_kwargs"], **message.arguments[1]},
            scheduled_at=None if at is None else datetime.fromisoformat(at),
        )
    due = message.run_after
    return Job(
        queue=message.options.queue or DEFAULT_QUEUE,
        priority=message.priority,
        lock=message.task if message.options.concurrency == 1 else None,
        queueing_lock=message.id,
        task_name=message.task,
        task_kwargs={"envelope": message.envelope},
        scheduled_at=None if due is None else datetime.fromtimestamp(due, timezone.utc),
    )


def _is_about_a_job(exc: BaseException) -> bool:
    """Whether it is something in a job that PostgreSQL refuses, and not PostgreSQL itself."""
    if isinstance(exc, exceptions.AlreadyEnqueued):
        return True
    return isinstance(exc.__cause__, (psycopg.DataError, psycopg.IntegrityError))


def _answer_to(message: Message, job: Job) -> str | None:
    if job.queueing_lock == message.id:
        return None  # it is there already
    return f"a job with the queueing lock {job.queueing_lock!r} waits already"


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
