"""Sends jobs as a taskiq broker would, by its middlewares and its formatter, but many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from taskiq import AsyncBroker, BrokerMessage, TaskiqMessage, TaskiqMiddleware
from taskiq.utils import maybe_awaitable

from asgi_bg.engines._taskiq_jobs import taskiq_message
from asgi_bg.engines._taskiq_line import Line
from asgi_bg.engines.base import Message

logger = logging.getLogger("asgi_bg")

BREATH = 50
"""After how many messages the event loop gets to do something else."""


class Sender:
    """Makes messages of jobs, and sends them.

    Args:
        broker: The broker, which has been started.
        line: The way to it.
    """

    def __init__(self, broker: AsyncBroker, line: Line) -> None:
        self._broker = broker
        self._line = line

    async def send(self, jobs: Sequence[Message]) -> list[str | None]:
        """Send jobs; see `asgi_bg.engines.Engine.send`."""
        ready: list[TaskiqMessage] = []
        kicked: list[BrokerMessage] = []
        before = self._overriding("pre_send")
        for position, job in enumerate(jobs):
            if position % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            made = taskiq_message(job, self._line.labels(job))
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

    def _overriding(self, hook: str) -> list[TaskiqMiddleware]:
        """Return the middlewares that have something to do at a hook."""
        return [
            middleware
            for middleware in self._broker.middlewares
            if getattr(type(middleware), hook) is not getattr(TaskiqMiddleware, hook)
        ]


async def _tell_sent(middlewares: list[TaskiqMiddleware], message: TaskiqMessage) -> None:
    """Tell middlewares of a message that was acknowledged."""
    for middleware in middlewares:
        try:
            await maybe_awaitable(middleware.post_send(message))
        except Exception:
            # The broker has it, so it must not be sent again for this.
            logger.exception("post_send of %s failed", type(middleware).__name__)
