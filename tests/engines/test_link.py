"""The way to an engine: nothing on it takes for ever, and no reason is longer than one can read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from asgi_bg.engines import Engine, Feature, Message, _link
from asgi_bg.engines._link import REASON_LIMIT, Link
from asgi_bg.exceptions import EngineError
from tests.engines.memory import MemoryEngine

pytestmark = pytest.mark.anyio

LONG = "secret " * 1000


class Clinging(MemoryEngine):
    """Does not come to the end of its close, nor of a send before that."""

    async def close(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def clinging() -> MemoryEngine:
    engine = Clinging(timeout=30.0)
    engine.is_frozen = True
    return engine


async def test_close_that_hangs_holds_up_nobody(
    clinging: MemoryEngine, monkeypatch: pytest.MonkeyPatch, anyio_backend: Any
) -> None:
    """However long the engine may take to acknowledge."""
    monkeypatch.setattr(_link, "CLOSE_TIMEOUT", 0.05)
    link = Link(clinging)
    began = time.monotonic()
    with pytest.raises(EngineError, match="did not acknowledge 0 job"):
        await link.send([], 0.05)
    await link.close()
    assert time.monotonic() - began < 5
    clinging.is_frozen = False
    assert await link.send([]) == []
    assert clinging.opened == 2


async def test_thread_that_waits_for_it_is_not_held_up_either(
    clinging: MemoryEngine, monkeypatch: pytest.MonkeyPatch, anyio_backend: Any
) -> None:
    """The journal's thread, where there is no journal on disk."""
    monkeypatch.setattr(_link, "CLOSE_TIMEOUT", 0.05)
    link = Link(clinging)
    link.attach(asyncio.get_running_loop())
    with pytest.raises(EngineError, match="did not acknowledge"):
        await asyncio.wait_for(asyncio.to_thread(link.send_now, [], 0.05), 5)


def _raise(error: Exception) -> Callable[..., Any]:
    async def send(messages: Sequence[Message]) -> Any:
        raise error

    return send


@pytest.mark.parametrize("error", [ValueError(LONG), EngineError(LONG)])
async def test_reason_of_a_failure_is_bounded(error: Exception, anyio_backend: Any) -> None:
    """A client may quote what it has sent."""
    engine: Any = MemoryEngine()
    engine.send = _raise(error)
    with pytest.raises(EngineError, match="secret") as raised:
        await Link(engine).send([])
    assert len(str(raised.value)) < REASON_LIMIT + 100


async def test_reason_of_a_refusal_is_bounded(anyio_backend: Any) -> None:
    """It becomes the job's error."""

    class Refusing(MemoryEngine):
        async def send(self, messages: Sequence[Message]) -> list[str | None]:
            return [None, "too large", LONG]

    taken, short, long = await Link(Refusing()).send([])
    assert (taken, short) == (None, "too large")
    assert long is not None
    assert long.startswith("secret")
    assert len(long) < REASON_LIMIT + 10


async def test_reason_of_a_failed_close_is_bounded(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged for those who debug."""

    class Failing(MemoryEngine):
        async def close(self) -> None:
            raise ValueError(LONG)

    with caplog.at_level(logging.DEBUG, "asgi_bg"):
        await Link(Failing()).close()
    (text,) = [line for line in caplog.messages if "closing" in line]
    assert len(text) < REASON_LIMIT + 100


async def test_engine_is_asked_at_the_start_what_it_supports(anyio_backend: Any) -> None:
    """One that loads its client for that does so before the first request."""
    asked: list[bool] = []

    class Lazy(Engine):
        name = "lazy"

        @property
        def supports(self) -> frozenset[Feature]:  # type: ignore[override]
            asked.append(True)
            return frozenset()

        async def open(self) -> None: ...

        async def close(self) -> None: ...

        async def send(self, messages: Sequence[Message]) -> list[str | None]:
            return []

    Link(Lazy()).attach(asyncio.get_running_loop())
    assert asked == [True]
