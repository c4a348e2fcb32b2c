"""Celery: jobs go to its workers through RabbitMQ, Redis, or another broker that it speaks to.

Needs the extra ``asgi_bg[celery]``, or a Celery that is there anyway.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from asgi_bg._task import Task
from asgi_bg.engines._celery_adds import Adds
from asgi_bg.engines._celery_api import Celery
from asgi_bg.engines._celery_native import encode_call, native_of
from asgi_bg.engines._celery_post import Post
from asgi_bg.engines._celery_publisher import Publisher, driver_of
from asgi_bg.engines._celery_results import Inquiry, keeps_results
from asgi_bg.engines._celery_tasks import OVERTIME, declare, ends_worker
from asgi_bg.engines._inline import Inline
from asgi_bg.engines._subscribers import Subscribers
from asgi_bg.engines.base import (
    Engine,
    Feature,
    Message,
    Native,
    Report,
    check_timeout,
    each_declared,
    seconds_put_off,
)
from asgi_bg.events import EventHandler
from asgi_bg.exceptions import EngineError

__all__ = ["CeleryEngine"]

MAX_PRIORITY = 255

VISIBILITY_TIMEOUT = 3600.0
"""After how many seconds kombu gives a message of Redis to another worker, if not told other."""


class CeleryEngine(Engine):
    """Hands jobs over to Celery.

    Args:
        app: The Celery app, with its broker and, if results are wanted, its result backend.
        timeout: How long the broker may take to acknowledge jobs, in seconds.
        consume: Not for Celery, whose workers are processes of their own.

    Raises:
        TypeError, ValueError: The app is none, or a value does not fit.
    """

    name = "celery"

    def __init__(self, app: Any, *, timeout: float = 5.0, consume: bool = False) -> None:
        if not isinstance(app, Celery):
            raise TypeError(f"app must be a celery.Celery, got {app!r}")
        if consume:
            raise TypeError(
                "consume= is not for Celery, whose workers are processes of their own; start "
                "them with: celery -A module worker"
            )
        self.app = app
        self.timeout = check_timeout(timeout)
        arrived: set[str] = set()
        self._sending = Post(
            "asgi_bg to celery", lambda: Publisher(app, self.timeout, arrived), self.timeout
        )
        self._asking = Post(
            "asgi_bg about celery", lambda: Inquiry(app, self.timeout), self.timeout
        )
        self._subscribers = Subscribers()
        adds = Adds(self, app, self._subscribers)
        self._inline = Inline(adds, OVERTIME, ends_worker, self._subscribers)

    # In workers.

    def register(
        self,
        *tasks: Task[..., Any],
        on_event: EventHandler | Iterable[EventHandler] = (),
    ) -> None:
        """Add tasks to the Celery app, by their names, for its workers to run.

        Call it where the workers import it: ``celery -A module worker`` imports the module.

        Args:
            *tasks: The tasks; if none are given all that are declared in this process, also
                those that will be.
            on_event: A function, or several, called in the workers with each `JobEvent` of the
                jobs of declared tasks (R9), in the thread of the attempt.

        Raises:
            TypeError: One of them is not declared with ``@task``, or cannot be called with
                events.
        """
        self._subscribers.add(on_event)
        each_declared(tasks, lambda task: declare(self.app, task, self._inline))

    # In the app.

    @cached_property
    def _driver(self) -> str:
        return driver_of(self.app)

    @cached_property
    def supports(self) -> frozenset[Feature]:  # type: ignore[override]
        features: set[Feature] = {"delay", "cancel", "retries", "timeout", "queue"}
        if self._driver == "amqp":
            features.add("priority")
        if keeps_results(self.app):
            features.add("results")
        return frozenset(features)

    def check(self, task: Task[..., Any]) -> None:
        """Refuse what Celery, or its broker, lacks."""
        super().check(task)
        options = task.options
        if not 0 <= options.priority <= MAX_PRIORITY:
            raise EngineError(
                f"task {task.name} asks for priority={options.priority}, and RabbitMQ knows "
                f"those from 0 to {MAX_PRIORITY}"
            )
        delay = seconds_put_off(options, time.time())
        if self._driver == "redis" and delay > self._visibility_timeout:
            raise EngineError(
                f"task {task.name} is to be put off for {delay:.0f} seconds, and over Redis "
                "Celery would run it several times: it gives what waits for longer than "
                f"visibility_timeout ({self._visibility_timeout:.0f} seconds) to other workers as "
                "well; raise that in broker_transport_options, for the workers, too"
            )

    @property
    def _visibility_timeout(self) -> float:
        options: dict[str, Any] = self.app.conf.broker_transport_options or {}
        return float(options.get("visibility_timeout", VISIBILITY_TIMEOUT))

    def native(self, func: object) -> Native | None:
        """Take a task of Celery's, or a signature of one (E4)."""
        return native_of(self.app, func)

    def encode_native(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Write arguments as Celery does, with what its JSON knows beyond JSON's own types."""
        return encode_call(name, args, kwargs)

    async def open(self) -> None:
        try:
            await self._sending.call(Publisher.ready)
        except BaseException:
            await self.close()
            raise

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        return await self._sending.call(Publisher.send, messages)

    async def fetch(self, id: str) -> Report | None:
        return await self._asking.call(Inquiry.fetch, id)

    async def cancel(self, id: str) -> bool:
        """Revoke a job.

        Returns:
            Whether it is known that it will not run: a worker has it, and can still drop it,
            or the result backend says that it is revoked. Otherwise workers are told all the
            same, and those that run now drop it should it come to them.
        """
        return await self._asking.call(Inquiry.revoke, id, "results" in self.supports)

    async def close(self) -> None:
        try:
            await self._sending.leave()
        finally:
            await self._asking.leave()
