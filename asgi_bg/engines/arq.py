"""For ARQ: hand jobs over to its workers, by way of Redis.

Needs the extra ``asgi_bg[arq]``, or an ARQ that is there anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from asgi_bg._job import JobStatus
from asgi_bg._options import check_seconds
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
)
from asgi_bg.engines.worker import Worker
from asgi_bg.events import EventHandler, Events
from asgi_bg.exceptions import EngineError

try:
    from arq.connections import ArqRedis, RedisSettings
    from arq.constants import default_queue_name
    from arq.jobs import Deserializer, Serializer, deserialize_job, deserialize_result
    from arq.utils import timestamp_ms
    from arq.worker import Function
except ImportError as exc:
    raise ImportError(
        "asgi_bg.engines.arq needs ARQ; install it with: pip install 'asgi_bg[arq]'"
    ) from exc

from asgi_bg.engines import _arq_json, _arq_queue
from asgi_bg.engines._arq_app import AppWorker
from asgi_bg.engines._arq_jobs import (
    Keeping,
    cancelled_result,
    entry_of,
    milliseconds,
    queue_of,
    report_of,
    with_plain_options,
)
from asgi_bg.engines._arq_line import Line, disconnect, target_of
from asgi_bg.engines._arq_settings import KEEP_RESULT, Plan, Planner
from asgi_bg.engines._arq_worker import Functions

__all__ = ["ArqEngine"]

BREATH = 50
"""After how many messages the event loop gets to do something else."""

LONGEST_DELAY = 100 * 365 * 86400.0
"""For how many seconds a job may be put off; Redis counts no further than some millennia."""


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
        if (job_serializer is None) != (job_deserializer is None):
            raise ValueError(
                "job_serializer and job_deserializer belong together; give both or neither"
            )
        check_seconds("expires", expires, zero=False)
        check_seconds("lease", lease, zero=False)
        self.timeout = check_timeout(timeout)
        self.consume = check_consume(consume)
        self._keeping = Keeping(
            queue,
            int(expires * 1000),
            job_serializer or _arq_json.serialize,
            job_deserializer or _arq_json.deserialize,
        )
        target = target_of(redis)
        self._line = Line(target)
        # Nothing in a job says where it waits, and who cancels it has to know.
        self._queues = {queue}
        self._worker = Worker(self)
        functions = Functions(
            self._worker,
            super().encode_native,
            self._keeping.serializer,
            self._keeping.expires,
        )
        self._planner = Planner(target, self._keeping, lease, self._worker, functions)
        self._keep_result: int | None = milliseconds(KEEP_RESULT)
        self._plan: Plan | None = None

    def worker_settings(
        self,
        *tasks: Task[..., Any],
        functions: Sequence[Any] = (),
        on_event: EventHandler | Iterable[EventHandler] = (),
        **options: Any,
    ) -> type:
        """Return the settings of workers, for ``arq module.WorkerSettings``.

        With ``consume=True`` the app's own process works by them too, if they are for the
        engine's own queue; the last ones, if there are several.

        Args:
            *tasks: The tasks; all declared ones, also those declared later, if none is given.
            functions: Functions of ARQ's own.
            on_event: A function, or several, called in the workers with each `JobEvent` of the
                jobs of declared tasks (R9); where ``consume=True`` works the queue, it is those
                of the runner.
            **options: Other arguments of `arq.worker.Worker`. A ``job_timeout`` counts for the
                tasks without a time limit of their own, too.

        Raises:
            TypeError: The worker has no such argument, or the engine gives it itself; or a
                task is not declared with ``@task``; or a handler cannot be called with events.
            EngineError: A function of ARQ's own has the name of a task.
        """
        plan = self._planner.plan(tasks, functions, Events(on_event), options)
        if plan.values["queue_name"] == self._keeping.queue:
            self._plan, self._keep_result = plan, plan.keep_result
        return type("WorkerSettings", (), {"__doc__": "Settings of ARQ workers.", **plan.values})

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
        await self._line.client()

    async def close(self) -> None:
        await self._line.drop()

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        if not messages:
            return []
        redis = await self._line.client()
        now = timestamp_ms()
        entries: list[_arq_queue.Entry] = []
        for position, message in enumerate(messages):
            if position % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            entries.append(entry_of(message, now, self._keeping))
        await _arq_queue.enqueue(redis, entries)
        self._queues.update(entry.queue for entry in entries)
        return [None] * len(messages)

    async def fetch(self, id: str) -> Report | None:
        found = await _arq_queue.look(await self._line.client(), id)
        if found.result is not None:
            deserialize = self._keeping.deserializer
            return report_of(deserialize_result(found.result, deserializer=deserialize))
        if found.data is None:
            return None
        job = deserialize_job(found.data, deserializer=self._keeping.deserializer)
        return Report(
            status=JobStatus.running if found.is_running else JobStatus.queued,
            task=job.function,
            attempt=found.starts,
        )

    async def cancel(self, id: str) -> bool:
        redis = await self._line.client()
        found = await _arq_queue.look(redis, id)
        if found.data is None:
            return False
        job = deserialize_job(found.data, deserializer=self._keeping.deserializer)
        queue = queue_of(job.function, job.args)
        result = cancelled_result(
            id, job, found.starts, queue or self._keeping.queue, self._keeping
        )
        queues = self._queues if queue is None else {queue, *self._queues}
        return await _arq_queue.withdraw(redis, id, queues, result, self._keep_result)

    async def work(
        self, performer: Performer, max_jobs: int, stopping: asyncio.Event, grace: float
    ) -> None:
        if self._plan is None:
            self.worker_settings()
        assert self._plan is not None  # noqa: S101 - has been made here
        roster = self._plan.roster
        values = await self._planner.connected(self._plan)
        values.update(max_jobs=max_jobs, burst=False)
        self._worker.performer = performer
        try:
            worker = AppWorker(stopping, roster, **values)
            try:
                await worker.serve(grace)
            finally:
                await values["on_shutdown"](worker.ctx)
        finally:
            self._worker.performer = None
            await disconnect(values["redis_pool"])
