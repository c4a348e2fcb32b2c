"""The way to a taskiq broker: what it can do with jobs, and how many get there at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from taskiq import AsyncBroker, BrokerMessage

from asgi_bg._options import Options
from asgi_bg.engines.base import Feature, Message

T = TypeVar("T")

KICKS = 32
"""How many messages are on their way at once to a broker of which nothing is known."""


class Line:
    """The way to a broker of which nothing is known but `AsyncBroker.kick`.

    Args:
        broker: The broker.

    Attributes:
        hold_limit: After how many seconds the broker gives what a worker has begun, and not
            acknowledged, to another one; None where that depends on its connection alone.
    """

    hold_limit: float | None = None

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker: Any = broker

    @property
    def supports(self) -> frozenset[Feature]:
        """What this broker can do for a job of ours."""
        return frozenset()

    def objection(self, options: Options) -> str | None:
        """Return what is wrong with options of features that are supported, if anything."""
        return None

    def labels(self, message: Message) -> dict[str, Any]:
        """Return the labels that tell the broker of a job's options."""
        return {}

    async def kick(self, messages: Sequence[BrokerMessage]) -> list[str | None]:
        """Send messages; see `asgi_bg.engines.Engine.send`."""
        slots = asyncio.Semaphore(KICKS)

        async def kick(message: BrokerMessage) -> None:
            async with slots:
                await self._broker.kick(message)

        await together(kick(message) for message in messages)
        return [None] * len(messages)

    async def look_after(self) -> None:
        """Do for the queue what else is to be done, as long as a worker works it here."""

    async def disconnect(self) -> None:
        """End connections that `AsyncBroker.shutdown` would hang at, or leave behind."""


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what all calls return; raise what the first has raised once all have ended."""
    answers: list[T] = []
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers
