"""For ARQ: hand jobs over to its workers, by way of Redis.

Needs the extra ``asgi_bg[arq]``, or an ARQ that is there anyway.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from asgi_bg._job import JobStatus
from asgi_bg._options import check_count, check_seconds
from asgi_bg._task import Task, on_declared
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
from asgi_bg.exceptions import EngineError

try:
    from arq.connections import ArqRedis, RedisSettings
    from arq.constants import default_queue_name
    from arq.jobs import (
        Deserializer,
        Serializer,
        deserialize_job,
        deserialize_result,
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
from asgi_bg.engines._arq_app import AppWorker
from asgi_bg.engines._arq_jobs import (
    entry_of,
    milliseconds,
    queue_of,
    report_of,
    with_plain_options,
)
from asgi_bg.engines._arq_worker import LEASES, Functions, Leases, Roster

__all__ = ["ArqEngine"]

BREATH = 50
"""After how many messages the event loop gets to do something else."""

KEEP_RESULT = 3600.0
"""For how many seconds ARQ keeps a result, unless it is told otherwise."""

LONGEST_DELAY = 100 * 365 * 86400.0
"""For how many seconds a job may be put off; Redis counts no further than some millennia."""

OUR_OPTIONS = frozenset(
    ("job_deserializer", "job_serializer", "redis_pool", "redis_settings", "retry_jobs")
)
"""Those arguments of `arq.worker.Worker` that are the engine's to give."""

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
        self._keep_result: int | None = milliseconds(KEEP_RESULT)
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
        limit: float | timedelta | None = options.get("job_timeout")
        roster = Roster(
            self._functions, functions, None if limit is None else milliseconds(limit) / 1000
        )
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
        if not functions and not options.get("cron_jobs"):
            # For so long ARQ takes a job for running until it is held; this is no limit then.
            values["job_timeout"] = self._lease
        if isinstance(self._target, RedisSettings):
            values["redis_settings"] = self._target
        else:
            values["redis_pool"] = self._with_serializer(_arq_queue.twin_of(self._target))
        if values["queue_name"] == self._queue:
            self._app_settings = roster, values
            keep: float | timedelta = options.get("keep_result", KEEP_RESULT)
            self._keep_result = None if options.get("keep_result_forever") else milliseconds(keep)
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
        return super().encode_native(name, args, with_plain_options(name, kwargs))

    async def open(self) -> None:
        await self._client()

    async def close(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            await _arq_queue.disconnect(redis)

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        if not messages:
            return []
        redis = await self._client()
        now = timestamp_ms()
        entries: list[_arq_queue.Entry] = []
        for position, message in enumerate(messages):
            if position % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            entries.append(
                entry_of(
                    message,
                    now,
                    queue=self._queue,
                    expires=self._expires,
                    serializer=self._serializer,
                )
            )
        await _arq_queue.enqueue(redis, entries)
        self._queues.update(entry.queue for entry in entries)
        return [None] * len(messages)

    async def fetch(self, id: str) -> Report | None:
        found = await _arq_queue.look(await self._client(), id)
        if found.result is not None:
            return report_of(deserialize_result(found.result, deserializer=self._deserializer))
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
        queue = queue_of(job.function, job.args)
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
        values.update(redis_pool=pool, max_jobs=max_jobs, burst=False)
        self._worker.performer = performer
        try:
            worker = AppWorker(stopping, roster, **values)
            try:
                await worker.serve(grace)
            finally:
                await values["on_shutdown"](worker.ctx)
        finally:
            self._worker.performer = None
            await _arq_queue.disconnect(pool)

    async def _client(self) -> ArqRedis:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # What was opened in a loop that has ended is of no use any more.
            self._loop, self._redis = loop, None
        if self._redis is None:
            made = await _arq_queue.connect(self._target)
            if self._redis is not None:
                await _arq_queue.disconnect(made)  # another call was faster
            else:
                self._redis = made
        return self._redis

    def _with_serializer(self, redis: ArqRedis) -> ArqRedis:
        redis.job_serializer = self._serializer
        redis.job_deserializer = self._deserializer
        redis.default_queue_name = self._queue
        redis.expires_extra_ms = self._expires
        return redis

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
            # Not the URL itself, as there may be a password in it.
            raise ValueError(
                f"redis must be a URL such as redis://127.0.0.1:6379/0, got another text: {exc}"
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
