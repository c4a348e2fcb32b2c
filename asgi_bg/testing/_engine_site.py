"""What the tests of the contract of engines stand on: the hooks, and jobs to be sent."""

from __future__ import annotations

import asyncio
import tempfile
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from asgi_bg import Runner
from asgi_bg._ids import new_id
from asgi_bg._job import JobInfo
from asgi_bg._options import Options
from asgi_bg.engines import Engine, Feature, Message
from asgi_bg.testing.contract_tasks import Line, note

T = TypeVar("T")


class EngineSite:
    """The hooks of `EngineContract`, which says what they are, and what its tests share."""

    dedupes: bool = False
    keeps_values: bool = True
    deadline: float = 60.0
    lead: float = 3.0
    options: dict[Feature, dict[str, Any]] = {  # noqa: RUF012 - read only
        "delay": {"delay": 1.0},
        "retries": {"retries": 1},
        "timeout": {"timeout": 5.0},
        "priority": {"priority": 1},
        "queue": {"queue": "other"},
        "concurrency": {"concurrency": 1},
    }

    # The hooks.

    @abstractmethod
    def make_engine(self) -> Engine:
        """Return a new engine, for a queue that is reached and has no jobs."""

    @abstractmethod
    def make_unreachable(self) -> Engine:
        """Return the same kind of engine with a time limit of 1 s, where nobody answers."""

    @abstractmethod
    def run_worker(self) -> AbstractContextManager[Any]:
        """Run the engine's worker as long as the context lasts, with the contract's tasks."""

    # What the tests stand on.

    @pytest.fixture(autouse=True)
    def _file(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as directory:
            self.path = str(Path(directory, "lines"))
            Path(self.path).touch()
            yield

    def lines(self) -> list[Line]:
        """What the tasks have written so far."""
        parts = [line.split(" ", 2) for line in Path(self.path).read_text().splitlines()]
        return [Line(job, int(attempt), words) for job, attempt, words in parts]

    def message(self, word: str = "word", **changes: Any) -> Message:
        """Return a job of the task that writes down a word."""
        now = time.time()
        values: dict[str, Any] = {
            "id": new_id(now),
            "task": note.name,
            "call": msgspec.json.encode([[self.path, word]]).decode(),
            "changes": None,
            "native": None,
            "options": Options(),
            "queued_at": now,
            "run_after": None,
            "priority": 0,
        }
        return Message(**(values | changes))

    def with_engine(self, use: Callable[[Engine], Awaitable[T]]) -> T:
        """Open an engine, use it, and close it."""

        async def run() -> T:
            engine = self.make_engine()
            await engine.open()
            try:
                return await use(engine)
            finally:
                await engine.close()

        return asyncio.run(run())

    def with_runner(self, use: Callable[[Runner, Engine], Awaitable[T]]) -> T:
        """Use a runner that has the engine and no journal."""

        async def run() -> T:
            engine = self.make_engine()
            engine.consume = False
            async with Runner(engine=engine) as runner:
                return await use(runner, engine)

        return asyncio.run(run())

    async def until(self, is_so: Callable[[], Any], what: str) -> None:
        """Wait for something, and fail if it does not come to be."""
        end = time.monotonic() + self.deadline
        while not is_so():
            assert time.monotonic() < end, f"within {self.deadline} s: {what}; {self.lines()}"
            await asyncio.sleep(0.02)

    async def ended(self, runner: Runner, id: str) -> JobInfo:
        """Wait for the end of a job, as the engine tells it."""
        end = time.monotonic() + self.deadline
        while not (info := await runner.info(id)).status.is_final:
            assert time.monotonic() < end, f"within {self.deadline} s: the end of {info}"
            await asyncio.sleep(0.05)
        return info

    def needs(self, feature: Feature) -> None:
        """Skip a test of a feature that the engine does not have."""
        engine = self.make_engine()
        if feature not in engine.supports:
            pytest.skip(f"the engine {engine.name} does not support {feature!r}")
