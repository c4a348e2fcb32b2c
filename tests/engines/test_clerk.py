"""The thread that makes blocking calls, and can be left to itself."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from asgi_bg.engines._clerk import Clerk
from tests.helpers import until

pytestmark = pytest.mark.anyio


async def test_calls_are_made_one_after_another(anyio_backend: Any) -> None:
    """In its own thread; what they return and raise comes back."""
    clerk = Clerk("a clerk")
    seen: list[Any] = []

    def call(number: int) -> int:
        seen.append((number, threading.current_thread().name))
        if number == 1:
            raise ValueError("one")
        return 2 * number

    found = await asyncio.gather(*(clerk.call(call, n) for n in range(3)), return_exceptions=True)
    assert found[::2] == [0, 4]
    assert isinstance(found[1], ValueError)
    assert seen == [(n, "a clerk") for n in range(3)]
    await until(lambda: not clerk.is_busy)
    clerk.dismiss(lambda: seen.append("last"))
    await until(lambda: not clerk.is_alive)
    assert seen[-1] == "last"
    with pytest.raises(ConnectionError, match="closed meanwhile"):
        await clerk.call(call, 5)


async def test_stuck_call_holds_up_nobody(anyio_backend: Any) -> None:
    """It is left to itself; those behind it fail, and were not made."""
    clerk = Clerk("a clerk")
    gate = threading.Event()
    made: list[int] = []
    stuck = asyncio.ensure_future(clerk.call(gate.wait))
    behind = asyncio.ensure_future(clerk.call(made.append, 1))
    given_up = asyncio.ensure_future(clerk.call(made.append, 2))
    await asyncio.sleep(0)
    stuck.cancel()
    given_up.cancel()
    assert clerk.is_busy
    clerk.dismiss(lambda: 1 / 0)
    assert clerk.is_alive
    gate.set()
    with pytest.raises(ConnectionError, match="closed meanwhile"):
        await behind
    await until(lambda: not clerk.is_alive)
    assert made == []


async def test_cancelled_call_is_not_made(anyio_backend: Any) -> None:
    """If its turn comes only afterwards."""
    clerk = Clerk("a clerk")
    gate = threading.Event()
    made: list[int] = []
    first = asyncio.ensure_future(clerk.call(gate.wait))
    second = asyncio.ensure_future(clerk.call(made.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    gate.set()
    await first
    assert await clerk.call(made.append, 2) is None
    assert made == [2]
    clerk.dismiss(lambda: None)
    await until(lambda: not clerk.is_alive)


def test_loop_may_be_gone() -> None:
    """Nobody waits then, and the thread goes on."""
    clerk = Clerk("a clerk")
    gate = threading.Event()

    async def leave() -> None:
        waiting = asyncio.ensure_future(clerk.call(gate.wait))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    gate.set()

    async def come_back() -> int:
        return await clerk.call(int, "7")

    assert asyncio.run(come_back()) == 7
    clerk.dismiss(lambda: None)
