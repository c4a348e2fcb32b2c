"""A task that blocks the event loop is warned about."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from asgi_bg._execution import _watchdog
from tests.helpers import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watchdog, "BLOCKED_AFTER", 0.1)
    monkeypatch.setattr(_watchdog, "INTERVAL", 0.01)
    monkeypatch.setattr(_watchdog, "IDLE_LOOKS", 3)


@pytest.mark.parametrize("later", [True, False])
async def test_task_that_blocks_the_loop_is_named_with_its_line(
    later: bool, make_runner: Any, warnings_logged: Any
) -> None:
    """In its first step, and after it has waited."""

    async def blocking() -> None:
        if later:
            await asyncio.sleep(0.05)
        while not warnings_logged():
            time.sleep(0.001)

    runner = await make_runner()
    await runner.add_task(blocking)
    await runner.drain(20)
    assert len(warnings_logged()) == 1
    line = warnings_logged()[0]
    assert "blocking has been blocking the event loop for over 0.1 seconds" in line
    assert "test_watchdog.py" in line
    assert "make it a plain def" in line


async def test_blocking_that_is_no_jobs_fault_is_not_blamed_on_one(
    make_runner: Any, warnings_logged: Any
) -> None:
    """The app blocks the loop while a job waits."""
    runner = await make_runner()
    await runner.add_task(asyncio.sleep, 0.3)
    await asyncio.sleep(0.05)  # so that the job waits
    time.sleep(0.2)  # longer than anybody may block the loop
    await runner.drain(5)
    assert warnings_logged() == []


async def test_watchdog_sleeps_when_there_is_nothing_to_watch(make_runner: Any) -> None:
    """Its thread ends after some idle looks, and comes back with the next job."""

    def watching() -> bool:
        return any(thread.name == "asgi_bg watchdog" for thread in threading.enumerate())

    runner = await make_runner()
    for _ in range(2):
        await runner.add_task(asyncio.sleep, 0.02)
        assert watching()
        await until(lambda: not watching())
