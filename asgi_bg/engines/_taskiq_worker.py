"""Declared tasks in a taskiq worker: the functions that it calls, and how they are tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

from taskiq import AsyncBroker, Context, TaskiqDepends, TaskiqMessage, TaskiqResult
from taskiq.exceptions import NoResultError
from taskiq.kicker import AsyncKicker
from taskiq.receiver import Receiver

from asgi_bg._job import job_extras
from asgi_bg.engines.base import Again, Performer
from asgi_bg.exceptions import JobFailed

try:
    from taskiq import SmartRetryMiddleware
except ImportError:  # pragma: no cover - before taskiq 0.11.17
    _smart: tuple[type, ...] = ()
else:
    _smart = (SmartRetryMiddleware,)

logger = logging.getLogger("asgi_bg")

RETRIES = "_retries"
"""The label by which taskiq's own retry middlewares count, too."""


class Functions:
    """Makes what taskiq calls for declared tasks.

    Args:
        broker: The broker of the jobs.
        performer: Who runs one attempt.
        can_delay: Tells whether the broker heeds the label ``delay``.
        timeout: How long it may take to send a message, in seconds.

    Attributes:
        stopping: Set when what was begun here may not go on for long; where this process has
            more to do than to work the queue.
    """

    def __init__(
        self,
        broker: AsyncBroker,
        performer: Performer,
        can_delay: Callable[[], bool],
        timeout: float,
    ) -> None:
        self._broker = broker
        self._performer = performer
        self._can_delay = can_delay
        self._timeout = timeout
        self.stopping: asyncio.Event | None = None

    def of(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return a new function to register with taskiq under the name of a task."""

        async def run(envelope: dict[str, Any], context: Context = TaskiqDepends()) -> Any:
            return await self._run(name, envelope, context.message)

        return run

    @property
    def has_retries_elsewhere(self) -> bool:
        """Whether a middleware can try jobs again after a delay, with no worker waiting."""
        return any(
            isinstance(middleware, _smart)
            and (getattr(middleware, "schedule_source", None) is not None or self._can_delay())
            for middleware in self._broker.middlewares
        )

    async def _run(self, name: str, envelope: dict[str, Any], message: TaskiqMessage) -> Any:
        # What is to be tried again is decided by the task's options, and by no default of a
        # middleware.
        message.labels["retry_on_error"] = False
        attempt = int(message.labels.get(RETRIES, 0)) + 1
        while True:
            try:
                return await self._performer.perform(name, envelope, attempt)
            except JobFailed as exc:
                if self.stopping is not None and self.stopping.is_set():
                    # It was not the job that failed: it comes back to another worker.
                    raise asyncio.CancelledError from exc
                raise
            except Again as again:
                if self.has_retries_elsewhere:
                    message.labels.update(
                        retry_on_error=True, max_retries=attempt + 1, delay=again.delay
                    )
                    raise again.error from None
                await asyncio.sleep(again.delay)
            if await self._send_again(message, attempt):
                raise NoResultError
            attempt += 1

    async def _send_again(self, message: TaskiqMessage, retries: int) -> bool:
        """Send a job for its next attempt, so that this message is held no longer.

        Returns:
            Whether the broker has taken it; if not, the next attempt has to be made here.
        """
        labels = {label: value for label, value in message.labels.items() if label != "delay"}
        labels[RETRIES] = retries
        kicker: AsyncKicker[..., Any] = AsyncKicker(message.task_name, self._broker, labels)
        kicker.with_task_id(message.task_id)
        try:
            await asyncio.wait_for(kicker.kiq(*message.args, **message.kwargs), self._timeout)
        except Exception as exc:
            logger.warning(
                "job %s cannot be sent again: %r",
                message.task_id,
                exc.__cause__ or exc,
                extra=job_extras(message.task_id, message.task_name),
            )
            return False
        return True


class AppReceiver(Receiver):
    """A taskiq worker within the process of an app.

    Args:
        broker: The broker whose queue is worked.
        executor: Where plain functions run.
        max_jobs: How many messages may be worked on at once.
        stopping: Set when no more are to be taken.
        grace: For how many seconds after that those that were begun may go on.
        begun: The tasks of those that were begun are kept here.
    """

    def __init__(
        self,
        broker: AsyncBroker,
        executor: Executor,
        *,
        max_jobs: int,
        stopping: asyncio.Event,
        grace: float,
        begun: set[asyncio.Task[Any]],
    ) -> None:
        super().__init__(
            broker,
            executor,
            max_async_tasks=max_jobs,
            run_startup=False,
            wait_tasks_timeout=grace,
        )
        self._stopping = stopping
        self._begun = begun

    async def callback(self, *args: Any, **kwargs: Any) -> None:
        """Work on a message."""
        task = asyncio.current_task()
        if task is not None:
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)
        try:
            await super().callback(*args, **kwargs)
        except Exception as exc:
            # Nobody waits for this, and what is not acknowledged comes again.
            logger.warning("a taskiq message was not acknowledged, and will come again: %r", exc)

    async def run_task(self, *args: Any, **kwargs: Any) -> TaskiqResult[Any]:
        """Call the function of a message."""
        result = await super().run_task(*args, **kwargs)
        if isinstance(result.error, asyncio.CancelledError) and self._stopping.is_set():
            # It has no result, and is not acknowledged: another worker is to run it.
            raise result.error
        return result


async def abandon(begun: set[asyncio.Task[Any]]) -> None:
    """Cancel what was begun, so that the broker gives it to other workers."""
    tasks = tuple(begun)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
