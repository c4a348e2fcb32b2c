"""For taskiq: hand jobs over to its workers, whichever its broker is.

Needs the extra ``asgi_bg[taskiq]``, or a taskiq that is there anyway, and the package of the
broker, such as ``taskiq-redis``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgi_bg._options import Options
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
from asgi_bg.exceptions import EngineError

try:
    from taskiq import AsyncBroker, TaskiqEvents
    from taskiq.result_backends.dummy import DummyResultBackend
except ImportError as exc:
    raise ImportError(
        "asgi_bg.engines.taskiq needs taskiq; install it with: pip install 'asgi_bg[taskiq]'"
    ) from exc

from asgi_bg.engines._taskiq_jobs import native_of, plain_call, report_of
from asgi_bg.engines._taskiq_lines import is_forgetful, line_to
from asgi_bg.engines._taskiq_sender import Sender
from asgi_bg.engines._taskiq_session import Session
from asgi_bg.engines._taskiq_worker import AppReceiver, Functions, abandon

__all__ = ["TaskiqEngine"]

logger = logging.getLogger("asgi_bg")


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
        self.timeout = check_timeout(timeout)
        self.consume = check_consume(consume)
        self._broker = broker
        self._line = line_to(broker, self.timeout)
        self._worker = Worker(self)
        self._functions = Functions(
            broker, self._worker, lambda: "delay" in self._line.supports, self.timeout
        )
        self._registered: set[str] = set()
        self._registers_all = False
        self._session = Session(broker, self._line)
        self._sender = Sender(broker, self._line)
        self._is_working = False
        self._begun: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None
        self.supports = self._features()
        broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, self._begin_worker)
        broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, self._end_worker)
        if consume:
            self._become_worker()
        if is_forgetful(broker):
            logger.warning(
                "taskiq's %s counts a job as done as soon as a worker has got it, so jobs are "
                "lost with their worker; RedisStreamBroker and AioPikaBroker keep them",
                type(broker).__name__,
            )

    def register(
        self,
        *tasks: Task[..., Any],
        on_event: EventHandler | Iterable[EventHandler] = (),
    ) -> None:
        """Make declared tasks known to the broker, so that ``taskiq worker`` runs them.

        Args:
            *tasks: The tasks; all declared ones, also those declared later, if none is given.
            on_event: A function, or several, called in the workers with each `JobEvent` of the
                jobs of declared tasks (R9); where ``consume=True`` works the queue, it is those
                of the runner.

        Raises:
            TypeError: One of them is not declared with ``@task``, or cannot be called with
                events.
            EngineError: The broker has a task of its own by that name.
        """
        self._worker.subscribe(on_event)
        if not tasks:
            if self._registers_all:
                return
            self._registers_all = True
        each_declared(tasks, self._register)

    def check(self, task: Task[..., Any]) -> None:
        # Queues and result backends may be given to a broker at any time.
        self.supports = self._features()
        super().check(task)
        reason = self._line.objection(task.options) or self._objection(task.options)
        if reason is not None:
            raise EngineError(f"task {task.name} {reason}")

    def native(self, func: object) -> Native | None:
        return native_of(self._broker, func)

    def encode_native(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return super().encode_native(name, *plain_call(name, args, kwargs))

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
        return await self._sender.send(messages)

    async def fetch(self, id: str) -> Report | None:
        backend = self._broker.result_backend
        if not await backend.is_result_ready(id):
            return None
        return report_of(await backend.get_result(id))

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
