"""An engine in memory: a queue that can be made to fail in all the ways that real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from asgi_bg._job import JobStatus
from asgi_bg.engines import Engine, Feature, Message, Native, Performer, Report


class MemoryEngine(Engine):
    """Keeps what it is sent.

    Attributes:
        sent: Every message, in the order acknowledged; one for each id, as it dedupes.
        arrivals: The ids of all that arrived, acknowledged or not.
        batches: How many messages each call of `send` had.
        is_away: Whether it cannot be reached.
        is_frozen: Whether it can, and never answers.
        refuses: Says why it will never take a message, or None.
        breaks: Whether a message breaks the connection.
        reports: What it knows of jobs.
    """

    def __init__(
        self,
        *,
        name: str = "memory",
        supports: Sequence[Feature] = (),
        timeout: float = 5.0,
        consume: bool = False,
    ) -> None:
        self.name = name
        self.supports = frozenset(supports)
        self.timeout = timeout
        self.consume = consume
        self.sent: dict[str, Message] = {}
        self.arrivals: list[str] = []
        self.batches: list[int] = []
        self.is_away = False
        self.is_frozen = False
        self.refuses: Callable[[Message], str | None] = lambda message: None
        self.breaks: Callable[[Message], bool] = lambda message: False
        self.reports: dict[str, Report] = {}
        self.cancelled: list[str] = []
        self.opened = 0
        self.is_open = False

    def native(self, func: object) -> Native | None:
        return Native(func, {"own": True}) if isinstance(func, str) else None

    async def open(self) -> None:
        if self.is_away:
            raise ConnectionError("connection refused")
        self.opened += 1
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def send(self, messages: Sequence[Message]) -> list[str | None]:
        assert self.is_open
        self.batches.append(len(messages))
        if self.is_frozen:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.is_away:
            raise ConnectionError("connection reset")
        answers: list[str | None] = []
        for message in messages:
            if self.breaks(message):
                raise ConnectionError("connection reset by a message")
            self.arrivals.append(message.id)
            answers.append(self.refuses(message))
            if answers[-1] is None:
                self.sent.setdefault(message.id, message)
        return answers

    async def fetch(self, id: str) -> Report | None:
        if self.is_away:
            raise ConnectionError("connection refused")
        return self.reports.get(id)

    async def cancel(self, id: str) -> bool:
        self.cancelled.append(id)
        return self.sent.pop(id, None) is not None

    async def work(
        self, performer: Performer, max_jobs: int, stopping: asyncio.Event, grace: float
    ) -> None:
        """Take one job after another, and try again what wants it."""
        attempts: dict[str, int] = {}
        done: set[str] = set()
        while not stopping.is_set():
            waiting = [message for message in self.sent.values() if message.id not in done]
            if not waiting:
                await asyncio.sleep(0.01)
                continue
            message = waiting[0]
            attempt = attempts[message.id] = attempts.get(message.id, 0) + 1
            try:
                result: Any = await performer.perform(message.task, message.envelope, attempt)
            except Exception as exc:
                if type(exc).__name__ == "Again":
                    continue
                report = Report(status=JobStatus.failed, attempt=attempt, error=repr(exc))
            else:
                report = Report(status=JobStatus.succeeded, attempt=attempt, result=result)
            self.reports[message.id] = report
            done.add(message.id)
