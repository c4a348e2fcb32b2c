"""For ARQ: hand jobs over to its workers, by way of Redis.

Needs the extra ``asgi_bg[arq]``, or an ARQ that is there anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from asgi_bg._job import JobStatus
from asgi_bg._options import check_count, check_seconds
from asgi_bg._task import Task, declared_task, on_declared
from asgi_bg.engines.base import (
    Engine,
    Feature,
    Message,
    Native,
    Performer,
    Report,
    check_timeout,
)
from asgi_bg.engines.worker import Worker
from asgi_bg.exceptions import EngineError, JobFailed

try:
    from arq.connections import ArqRedis, RedisSettings
    from arq.constants import default_queue_name
    from arq.jobs import (
        Deserializer,
        JobResult,
        Serializer,
        deserialize_job,
        deserialize_result,
        serialize_job,
        serialize_result,
    )
    from arq.utils import timestamp_ms, to_unix_ms
    from arq.worker import Function
    from arq.worker import Worker as ArqWorker
except ImportError as exc:
    raise ImportError(
        "asgi_bg.engines.arq needs ARQ; install it with: pip install 'asgi_bg[arq]'"
    ) from exc

from asgi_bg.engines import _arq_json, _arq_queue
from asgi_bg.engines._arq_worker import LEASES, AppWorker, Functions, Leases, Roster

__all__ = ["ArqEngine"]

BREATH = 50
"""After how many messages the event loop gets to do something else."""

CLOSE_TIMEOUT = 1.0
"""How many seconds connections get to be closed."""

KEEP_RESULT = 3600.0
"""For how many seconds ARQ keeps a result, unless it is told otherwise."""

LONGEST_DELAY = 100 * 365 * 86400.0

OUR_OPTIONS = frozenset(
    ("job_deserializer", "job_serializer", "redis_pool", "redis_settings", "retry_jobs")
)
"""Those arguments of `arq.worker.Worker` that are the engine's to give."""

NATIVE_OPTIONS: dict[str, tuple[type, ...]] = {
    "_queue_name": (str,),
    "_defer_by": (int, float, timedelta),
    "_defer_until": (datetime,),
    "_expires": (int, float, timedelta),
    "_job_try": (int,),
}
"""Those arguments that `arq.connections.ArqRedis.enqueue_job` takes for itself."""

_read_changes = msgspec.json.Decoder(dict[str, Any]).decode

Hook = Callable[[dict[Any, Any]], Awaitable[Any]]


class ArqEngine(Engine):
    """Hands jobs over to ARQ's workers.

    Each job is what `arq.connections.ArqRedis.enqueue_job` would make of it, but many are sent
    at once. A job whose id ARQ knows, as it waits, runs or has a result, is not queued again.
    Workers are started with ``arq module.WorkerSettings``, and `worker_settings` makes those.

    Jobs and results are JSON, and nothing is pickled, unless another serializer is given.

    Args:
        redis: Where Redis is: settings, a URL, or a client that knows it; the engine makes
            connections of its own.
        queue: The name of the queue, for tasks without ``queue=``.
        consume: Whether the app's own process works the queue too.
        timeout: How long it may take to acknowledge jobs, in seconds.
        expires: For how many seconds a job is kept from when it may start; ARQ fails one that
            no worker has taken by then.
        lease: After how many seconds the job of a worker that died is run again. A worker
            whose event loop is blocked for so long counts as dead.
        job_serializer: Writes jobs and results, for workers with functions of ARQ's own that
            are used to another format. The workers must have the same.
        job_deserializer: Reads what that has written.

    Raises:
        TypeError, ValueError: An argument does not fit.
    """

    name = "arq"
    supports: frozenset[Feature] = frozenset(
        ("cancel", "delay", "queue", "results", "retries", "timeout")
    )

    def __init__(
        self,
        redis: RedisSettings | str | ArqRedis = RedisSettings(),
        *,
        queue: str = default_queue_name,
        consume: bool = False,
        timeout: float = 5.0,
        expires: float = 30 * 86400.0,
        lease: float = 60.0,
        job_serializer: Serializer | None = None,
        job_deserializer: Deserializer | None = None,
    ) -> None:
        if not (isinstance(queue, str) and queue):
            raise TypeError(f"queue must be a string that is not empty, got {queue!r}")
        if not isinstance(consume, bool):
            raise TypeError(f"consume must be True or False, got {consume!r}")
        if (job_serializer is None) != (job_deserializer is None):
            raise ValueError(
                "job_serializer and job_deserializer belong together; give both or neither"
            )
        check_seconds("expires", expires, zero=False)
        check_seconds("lease", lease, zero=False)
        self.timeout = check_timeout(timeout)
        self.consume = consume
        self._target = _target_of(redis)
        self._queue = queue
        self._expires = int(expires * 1000)
        self._lease = lease
        self._serializer = job_serializer or _arq_json.serialize
        self._deserializer = job_deserializer or _arq_json.deserialize
        self._keep_result: int | None = _ms(KEEP_RESULT)
        self._redis: ArqRedis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Nothing in a job says where it waits, and who cancels it has to know.
        self._queues = {queue}
        self._worker = Worker(self)
        self._functions = Functions(
            self._worker, super().encode_native, self._serializer, self._expires
        )
        self._app_settings: tuple[Roster, dict[str, Any]] | None = None

    def worker_settings(
        self, *tasks: Task[..., Any], functions: Sequence[Any] = (), **options: Any
    ) -> type:
        """Return the settings of workers, for ``arq module.WorkerSettings``.

        With ``consume=True`` the app's own process works by them too, if they are for the
        engine's own queue; the last ones, if there are several.

        Args:
            *tasks: The tasks; all declared ones, also those declared later, if none is given.
            functions: Functions of ARQ's own.
            **options: Other arguments of `arq.worker.Worker`. A ``job_timeout`` counts for the
                tasks without a time limit of their own, too.

        Raises:
            TypeError: The worker has no such argument, or the engine gives it itself.
            EngineError: A function of ARQ's own has the name of a task.
        """
        _check_worker_options(options)
        roster = Roster(self._functions, functions, limits="job_timeout" in options)
        if not tasks:
            on_declared(roster.add)
        for task in tasks:
            roster.add(task)
        values: dict[str, Any] = {
            "queue_name": self._queue,
            "expires_extra_ms": self._expires,
            **options,
            "functions": roster,
            "job_serializer": self._serializer,
            "job_deserializer": self._deserializer,
            "on_startup": self._startup(roster, options.get("on_startup")),
            "on_shutdown": self._shutdown(options.get("on_shutdown")),
        }
        if isinstance(self._target, RedisSettings):
            values["redis_settings"] = self._target
        else:
            values["redis_pool"] = self._with_serializer(_arq_queue.twin_of(self._target))
        if values["queue_name"] == self._queue:
            self._app_settings = roster, values
            keep: float | timedelta = options.get("keep_result", KEEP_RESULT)
            self._keep_result = None if options.get("keep_result_forever") else _ms(keep)
        return type("WorkerSettings", (), {"__doc__": "Settings of ARQ workers.", **values})

    def check(self, task: Task[..., Any]) -> None:
        super().check(task)
        options = task.options
        if options.queue == "":
            raise EngineError(f"task {task.name} asks for a queue without a name")
        if options.delay is not None and options.delay > LONGEST_DELAY:
            raise EngineError(
                f"task {task.name} asks for a delay of {options.delay:g} seconds, and ARQ keeps "
                f"jobs for {LONGEST_DELAY:g} at most"
            )

    def native(self, func: object) -> Native | None:
        if isinstance(func, Function):
            return Native(func.name)
        if not isinstance(func, str):
            return None
        if not func:
            raise EngineError("an ARQ function has a name, got ''")
        return Native(func)

    def encode_native(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if kwargs.get("_job_id") is not None:
            raise EngineError(
                f"the ARQ function {name} is to have an id of its own, but the job's id will be "
                "its id; leave _job_id out"
            )
        if kwargs.get("_defer_by") and kwargs.get("_defer_until"):
            raise EngineError("_defer_by and _defer_until exclude each other; give one of them")
        plain = {
            key: _plain_option(key, value) if key in NATIVE_OPTIONS else value
            for key, value in kwargs.items()
            if key != "_job_id" and not (key in NATIVE_OPTIONS and value is None)
        }
        return super().encode_native(name, args, plain)

    async def open(self) -> None:
        await self._client()

    async def close(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            await _disconnect(redis)

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        if not messages:
            return []
        redis = await self._client()
        now = timestamp_ms()
        entries: list[_arq_queue.Entry] = []
        for position, message in enumerate(messages):
            if position % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            entries.append(self._entry(message, now))
        await _arq_queue.enqueue(redis, entries)
        self._queues.update(entry.queue for entry in entries)
        return [None] * len(messages)

    async def fetch(self, id: str) -> Report | None:
        found = await _arq_queue.look(await self._client(), id)
        if found.result is not None:
            return _report_of(deserialize_result(found.result, deserializer=self._deserializer))
        if found.data is None:
            return None
        job = deserialize_job(found.data, deserializer=self._deserializer)
        return Report(
            status=JobStatus.running if found.is_running else JobStatus.queued,
            task=job.function,
            attempt=found.starts,
        )

    async def cancel(self, id: str) -> bool:
        redis = await self._client()
        found = await _arq_queue.look(redis, id)
        if found.data is None:
            return False
        job = deserialize_job(found.data, deserializer=self._deserializer)
        queue = _queue_of(job.function, job.args)
        now = timestamp_ms()
        result = serialize_result(
            job.function,
            job.args,
            job.kwargs,
            found.starts,
            to_unix_ms(job.enqueue_time),
            False,
            asyncio.CancelledError("cancelled by request"),
            now,
            now,
            id,
            queue or self._queue,
            id,
            serializer=self._serializer,
        )
        assert result is not None  # noqa: S101 - what has been read can be written
        queues = self._queues if queue is None else {queue, *self._queues}
        return await _arq_queue.withdraw(redis, id, queues, result, self._keep_result)

    async def work(
        self, performer: Performer, max_jobs: int, stopping: asyncio.Event, grace: float
    ) -> None:
        if self._app_settings is None:
            self.worker_settings()
        assert self._app_settings is not None  # noqa: S101 - has been made here
        roster, settings = self._app_settings
        values = {key: value for key, value in settings.items() if key != "redis_settings"}
        pool = self._with_serializer(await _arq_queue.connect(self._target))
        self._worker.performer = performer
        try:
            worker = AppWorker(
                stopping,
                roster,
                **{**values, "redis_pool": pool, "max_jobs": max_jobs, "burst": False},
            )
            await worker.serve(grace)
        finally:
            self._worker.performer = None
            await _disconnect(pool)

    async def _client(self) -> ArqRedis:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # What was opened in a loop that has ended is of no use any more.
            self._loop, self._redis = loop, None
        if self._redis is None:
            made = await _arq_queue.connect(self._target)
            if self._redis is not None:
                await _disconnect(made)  # another call was faster
            else:
                self._redis = made
        return self._redis

    def _with_serializer(self, redis: ArqRedis) -> ArqRedis:
        redis.job_serializer = self._serializer
        redis.job_deserializer = self._deserializer
        redis.default_queue_name = self._queue
        redis.expires_extra_ms = self._expires
        return redis

    def _entry(self, message: Message, now: int) -> _arq_queue.Entry:
        """Return a job as ARQ keeps it."""
        added = int(message.queued_at * 1000)
        start = added if message.run_after is None else math.ceil(message.run_after * 1000)
        queue = message.options.queue or self._queue
        args: tuple[Any, ...] = (message.envelope,)
        kwargs: dict[str, Any] = {}
        given: dict[str, Any] = {}
        if message.native is not None:
            plain, kwargs = message.arguments
            args = tuple(plain)
            given = {key: kwargs.pop(key) for key in NATIVE_OPTIONS if key in kwargs}
            queue = given.get("_queue_name") or queue
            if given.get("_defer_until"):
                start = _ms(given["_defer_until"])
            else:
                start += _ms(given.get("_defer_by") or 0)
        data = serialize_job(
            message.task, args, kwargs, given.get("_job_try"), added, serializer=self._serializer
        )
        keep = _ms(given.get("_expires") or 0) or max(start - now, 0) + self._expires
        return _arq_queue.Entry(message.id, queue, start, keep, data)

    def _startup(self, roster: Roster, users: Hook | None) -> Hook:
        async def startup(ctx: dict[Any, Any]) -> None:
            roster.lift_limits()
            ctx[LEASES] = Leases(ctx["redis"], self._lease)
            if users is not None:
                await users(ctx)

        return startup

    def _shutdown(self, users: Hook | None) -> Hook:
        async def shutdown(ctx: dict[Any, Any]) -> None:
            try:
                await self._worker.aclose()
                if users is not None:
                    await users(ctx)
            finally:
                if LEASES in ctx:
                    await ctx.pop(LEASES).aclose()

        return shutdown


def _target_of(redis: object) -> RedisSettings | ArqRedis:
    if isinstance(redis, str):
        try:
            return RedisSettings.from_dsn(redis)
        except (RuntimeError, ValueError) as exc:
            raise ValueError(
                f"redis must be a URL such as redis://127.0.0.1:6379/0, got {redis!r}: {exc}"
            ) from exc
    if not isinstance(redis, RedisSettings | ArqRedis):
        raise TypeError(f"redis must be RedisSettings, a URL or an ArqRedis, got {redis!r}")
    return redis


def _check_worker_options(options: Mapping[str, Any]) -> None:
    known = inspect.signature(ArqWorker).parameters.keys()
    for name in options:
        if name in OUR_OPTIONS:
            raise TypeError(f"{name} is the engine's to give; give it to ArqEngine, or leave it")
        if name not in known:
            raise TypeError(
                f"arq.worker.Worker takes no {name!r}; it takes {', '.join(sorted(known))}"
            )
    if "max_jobs" in options:
        check_count("max_jobs", options["max_jobs"], least=1)


def _plain_option(name: str, value: Any) -> Any:
    """Return an argument of ARQ's own as a plain JSON value."""
    kinds = NATIVE_OPTIONS[name]
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be of type {wanted}, got {value!r}")
    if isinstance(value, datetime):
        return value.timestamp()
    return value.total_seconds() if isinstance(value, timedelta) else value


def _ms(seconds: float | timedelta) -> int:
    """Return a duration or an instant in whole milliseconds."""
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    return round(seconds * 1000)


def _queue_of(function: str, args: Sequence[Any]) -> str | None:
    """Return the queue that a job of ours asks for."""
    if not _arq_json.is_envelope(args):
        return None
    task = declared_task(function)
    declared = None if task is None else task.options.queue
    changes = args[0]["options"]
    return declared if changes is None else _read_changes(changes).get("queue", declared)


def _report_of(result: JobResult) -> Report:
    told = result.result
    fields: dict[str, Any] = {}
    if result.success:
        fields["status"] = JobStatus.succeeded
        fields["result"] = told
    elif isinstance(told, asyncio.CancelledError):
        fields["status"] = JobStatus.cancelled
        fields["error"] = "cancelled"
    else:
        fields["status"] = JobStatus.failed
        if isinstance(told, JobFailed):
            fields["error"] = told.error
            fields["traceback"] = str(told.__cause__).strip()
        else:
            fields["error"] = _arq_json.describe(told)
    return Report(
        task=result.function,
        attempt=result.job_try,
        started_at=result.start_time.timestamp(),
        finished_at=result.finish_time.timestamp(),
        **fields,
    )


async def _disconnect(redis: ArqRedis) -> None:
    pool: Any = redis.connection_pool
    with contextlib.suppress(Exception):
        await asyncio.wait_for(pool.disconnect(), CLOSE_TIMEOUT)
