"""For taskiq: hand jobs over to its workers, whichever its broker is.

Needs the extra ``asgi_bg[taskiq]``, or a taskiq that is there anyway, and the package of the
broker, such as ``taskiq-redis``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgi_bg._job import JobStatus
from asgi_bg._options import Options
from asgi_bg._task import Task, on_declared
from asgi_bg.engines.base import Engine, Feature, Message, Native, Performer, Report, check_timeout
from asgi_bg.engines.worker import Worker
from asgi_bg.exceptions import EngineError, NotSerializable

try:
    from pydantic import BaseModel
    from pydantic_core import to_jsonable_python
    from taskiq import AsyncBroker, BrokerMessage, TaskiqEvents, TaskiqMessage, TaskiqMiddleware
    from taskiq.decor import AsyncTaskiqDecoratedTask
    from taskiq.kicker import AsyncKicker
    from taskiq.labels import prepare_label
    from taskiq.result_backends.dummy import DummyResultBackend
    from taskiq.utils import maybe_awaitable
except ImportError as exc:
    raise ImportError(
        "asgi_bg.engines.taskiq needs taskiq; install it with: pip install 'asgi_bg[taskiq]'"
    ) from exc

from asgi_bg.engines._taskiq_line import Line
from asgi_bg.engines._taskiq_session import Session
from asgi_bg.engines._taskiq_worker import RETRIES, AppReceiver, Functions, abandon

__all__ = ["TaskiqEngine"]

logger = logging.getLogger("asgi_bg")

_lines: list[Callable[[AsyncBroker, float], Line | None]] = []
"""The better ways to brokers whose packages are there."""

try:
    from asgi_bg.engines._taskiq_redis import redis_line_to
except ImportError:  # pragma: no cover - for users of other brokers
    pass
else:
    _lines.append(redis_line_to)

try:
    from asgi_bg.engines._taskiq_rabbit import rabbit_line_to
except ImportError:  # pragma: no cover - for users of other brokers
    pass
else:
    _lines.append(rabbit_line_to)

BREATH = 50
"""After how many messages the event loop gets to do something else."""

FORGETFUL = frozenset(
    (
        "InMemoryBroker",
        "ListQueueBroker",
        "ListQueueClusterBroker",
        "ListQueueSentinelBroker",
        "PubSubBroker",
        "PubSubSentinelBroker",
        "ZeroMQBroker",
    )
)
"""Brokers that count a message as done when a worker has got it, by the names of their classes."""


class TaskiqEngine(Engine):
    """Hands jobs over to the workers of a taskiq broker.

    Jobs are sent as `taskiq.AsyncBroker` and its middlewares and formatter would send them
    themselves, but many at once. Workers are started with ``taskiq worker module:broker``.

    What it supports depends on the broker, its queues and its result backend. A job may run
    twice, as taskiq does not look at ids.

    Args:
        broker: The broker. The engine starts it when it is needed, unless it has been
            started by then, and shuts down what it has started itself.
        consume: Whether the app's own process works the queue too. It makes the broker a
            worker's from now on, wherever this is executed.
        timeout: How long it may take to acknowledge jobs, in seconds.

    Raises:
        TypeError, ValueError: An argument does not fit.
    """

    name = "taskiq"

    def __init__(self, broker: AsyncBroker, *, consume: bool = False, timeout: float = 5.0) -> None:
        if not isinstance(broker, AsyncBroker):
            raise TypeError(f"broker must be a taskiq.AsyncBroker, got {broker!r}")
        if not isinstance(consume, bool):
            raise TypeError(f"consume must be True or False, got {consume!r}")
        self.timeout = check_timeout(timeout)
        self.consume = consume
        self._broker = broker
        self._line = _line_to(broker, self.timeout)
        self._worker = Worker(self)
        self._functions = Functions(
            broker, self._worker, lambda: "delay" in self._line.supports, self.timeout
        )
        self._registered: set[str] = set()
        self._registers_all = False
        self._session = Session(broker, self._line)
        self._is_working = False
        self._begun: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None
        self.supports = self._features()
        broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, self._begin_worker)
        broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, self._end_worker)
        if consume:
            self._become_worker()
        if any(kind.__name__ in FORGETFUL for kind in type(broker).__mro__):
            logger.warning(
                "taskiq's %s counts a job as done as soon as a worker has got it, so jobs are "
                "lost with their worker; RedisStreamBroker and AioPikaBroker keep them",
                type(broker).__name__,
            )

    def register(self, *tasks: Task[..., Any]) -> None:
        """Make declared tasks known to the broker, so that ``taskiq worker`` runs them.

        Args:
            *tasks: The tasks; all declared ones, also those declared later, if none is given.

        Raises:
            EngineError: The broker has a task of its own by that name.
        """
        if not tasks and not self._registers_all:
            self._registers_all = True
            on_declared(self._register)
        for task in tasks:
            self._register(task)

    def check(self, task: Task[..., Any]) -> None:
        # Queues and result backends may be given to a broker at any time.
        self.supports = self._features()
        super().check(task)
        reason = self._line.objection(task.options) or self._objection(task.options)
        if reason is not None:
            raise EngineError(f"task {task.name} {reason}")

    def native(self, func: object) -> Native | None:
        kicker = _kicker_of(func)
        if kicker is None:
            return None
        name = kicker.task_name
        if kicker.broker is not self._broker:
            raise EngineError(
                f"the taskiq task {name} belongs to another broker than the engine's; "
                "use its kicker().with_broker(...)"
            )
        if kicker.custom_task_id is not None or kicker.custom_schedule_id is not None:
            raise EngineError(
                f"the taskiq task {name} is to have an id of its own, but the job's id will be "
                "its id; leave with_task_id() and with_schedule_id() out"
            )
        return Native(name, {"labels": _written(kicker.labels)})

    def encode_native(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        try:
            message = TaskiqMessage(
                task_id="",
                task_name=name,
                labels={},
                args=[_prepared(value) for value in args],
                kwargs={key: _prepared(value) for key, value in kwargs.items()},
            )
            # As taskiq's formatter does it; the worker reads it by the function's annotations.
            plain = message.model_dump(mode="json", include={"args", "kwargs"})
        except Exception as exc:
            raise NotSerializable(
                f"the arguments of taskiq's own task {name} cannot be sent as JSON: {exc}"
            ) from exc
        return super().encode_native(name, tuple(plain["args"]), plain["kwargs"])

    async def open(self) -> None:
        self.supports = self._features()
        if self.consume:
            self._become_worker()
        # The broker of another worker than this one is started and ended by that.
        if self.consume or not self._broker.is_worker_process:
            await self._session.start()

    async def close(self) -> None:
        # While the queue is worked, connections are not to be taken away from jobs that run.
        # Those of RabbitMQ mend themselves; those of Redis are mended where they are used.
        if not self._is_working:
            await self._session.stop()

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        if not messages:
            return []
        await self.open()
        ready: list[TaskiqMessage] = []
        kicked: list[BrokerMessage] = []
        before = self._overriding("pre_send")
        for position, message in enumerate(messages):
            if position % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            made = self._made(message)
            for middleware in before:
                made = await maybe_awaitable(middleware.pre_send(made))
            ready.append(made)
            kicked.append(self._broker.formatter.dumps(made))
        answers = await self._line.kick(kicked)
        after = self._overriding("post_send")[::-1]
        for made, reason in zip(ready, answers, strict=True) if after else ():
            if reason is None:
                await _tell_sent(after, made)
        return answers

    async def fetch(self, id: str) -> Report | None:
        backend = self._broker.result_backend
        if not await backend.is_result_ready(id):
            return None
        result = await backend.get_result(id)
        attempt = int(result.labels.get(RETRIES, 0)) + 1
        if not result.is_err:
            value = to_jsonable_python(
                result.return_value, bytes_mode="base64", serialize_unknown=True
            )
            return Report(status=JobStatus.succeeded, attempt=attempt, result=value)
        error = result.error
        text = "it failed" if error is None else f"{type(error).__name__}: {error}"
        return Report(status=JobStatus.failed, attempt=attempt, error=text)

    async def work(
        self, performer: Performer, max_jobs: int, stopping: asyncio.Event, grace: float
    ) -> None:
        await self.open()
        self._worker.performer = performer
        self._functions.stopping = stopping
        pool = ThreadPoolExecutor(thread_name_prefix="asgi_bg-taskiq")
        receiver = AppReceiver(
            self._broker,
            pool,
            max_jobs=max_jobs,
            stopping=stopping,
            grace=grace,
            begun=self._begun,
        )
        self._is_working = True
        try:
            await receiver.listen(stopping)
        except Exception:
            self._is_working = False
            await self.close()
            raise
        finally:
            self._is_working = False
            if stopping.is_set():
                await abandon(self._begun)
            pool.shutdown(wait=False, cancel_futures=True)

    def _become_worker(self) -> None:
        self._broker.is_worker_process = True
        # taskiq drops what it does not know.
        self.register()

    def _features(self) -> frozenset[Feature]:
        found: set[Feature] = {"retries", "timeout", *self._line.supports}
        if not isinstance(self._broker.result_backend, DummyResultBackend):
            found.add("results")
        return frozenset(found)

    def _objection(self, options: Options) -> str | None:
        """Say why a job may be held by a worker for longer than the broker allows, if so."""
        limit = self._line.hold_limit
        if limit is None:
            return None
        longest = options.timeout or 0.0
        if options.retries and not self._functions.has_retries_elsewhere:
            doublings = min(options.retries - 1, 60)
            longest += min(options.retry_max_delay, options.retry_delay * 2.0**doublings)
        if longest < limit:
            return None
        return (
            f"may take {longest:g} seconds for one attempt and the wait before the next one, and "
            f"the broker gives jobs to another worker after {limit:g} seconds; raise its "
            "idle_timeout, or lower timeout= or retry_max_delay="
        )

    def _register(self, task: Task[..., Any]) -> None:
        name = task.name
        if name in self._registered:
            return
        if self._broker.find_task(name) is not None:
            raise EngineError(
                f"the broker has a taskiq task called {name!r} already; "
                "give the declared one another name"
            )
        self._registered.add(name)
        self._broker.register_task(
            self._functions.of(name), task_name=name, types_of_exceptions=(Exception,)
        )

    def _made(self, message: Message) -> TaskiqMessage:
        """Return a job as taskiq's own message."""
        if message.native is not None:
            labels = message.native["labels"]
            args, kwargs = message.arguments
        else:
            labels = _written(self._line.labels(message))
            args, kwargs = [message.envelope], {}
        return TaskiqMessage(
            task_id=message.id,
            task_name=message.task,
            labels={label: text for label, (text, _) in labels.items()},
            labels_types={label: kind for label, (_, kind) in labels.items()},
            args=args,
            kwargs=kwargs,
        )

    def _overriding(self, hook: str) -> list[TaskiqMiddleware]:
        """Return the middlewares that have something to do at a hook."""
        return [
            middleware
            for middleware in self._broker.middlewares
            if getattr(type(middleware), hook) is not getattr(TaskiqMiddleware, hook)
        ]

    async def _begin_worker(self, _state: object) -> None:
        await self._look_away()
        self._looking = asyncio.create_task(self._line.look_after())

    async def _end_worker(self, _state: object) -> None:
        await self._look_away()
        await self._worker.aclose()

    async def _look_away(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None and looking.get_loop() is asyncio.get_running_loop():
            looking.cancel()
            await asyncio.wait((looking,))


async def _tell_sent(middlewares: list[TaskiqMiddleware], message: TaskiqMessage) -> None:
    """Tell middlewares of a message that was acknowledged."""
    for middleware in middlewares:
        try:
            await maybe_awaitable(middleware.post_send(message))
        except Exception:
            # The broker has it, so it must not be sent again for this.
            logger.exception("post_send of %s failed", type(middleware).__name__)


def _line_to(broker: AsyncBroker, timeout: float) -> Line:
    """Return the best way there is to a broker.

    Args:
        broker: The broker.
        timeout: How long it may take to connect, in seconds.
    """
    ways = (line_to(broker, timeout) for line_to in _lines)
    return next((way for way in ways if way is not None), None) or Line(broker)


def _kicker_of(func: Any) -> Any:
    """Return the `AsyncKicker` that sends a task of taskiq's own; None if it is none."""
    # Unlike `isinstance`, this does not make a generic type of it, with parameters unknown.
    if issubclass(type(func), AsyncTaskiqDecoratedTask):
        return func.kicker()
    return func if issubclass(type(func), AsyncKicker) else None


def _written(labels: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Return labels as they travel: as text, and of which type they were."""
    # Classes of exceptions are read off the task itself, and do not travel.
    return {
        label: prepare_label(value)
        for label, value in labels.items()
        if label != "types_of_exceptions"
    }


def _prepared(value: Any) -> Any:
    """Return an argument as `AsyncKicker.kiq` prepares it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
