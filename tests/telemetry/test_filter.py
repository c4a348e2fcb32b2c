"""Which job a log record was written in: W4."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.handlers
import queue
from collections.abc import Iterator
from typing import Any

import pytest

from asgi_bg import task
from asgi_bg.logs import JobFilter

pytestmark = pytest.mark.anyio

log = logging.getLogger("shop")


@pytest.fixture
def lines() -> Iterator[Any]:
    """Log to memory through the filter, and return the lines so far."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(JobFilter())
    handler.setFormatter(logging.Formatter("%(job_id)s %(task)s %(attempt)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    yield lambda: stream.getvalue().splitlines()
    root.removeHandler(handler)
    handler.close()


@task(name="logs.polite")
async def polite() -> None:
    await asyncio.sleep(0)
    log.warning("hello")


@task(name="logs.blunt", retries=1, retry_delay=0)
def blunt() -> None:
    log.warning("hello")
    raise ValueError("no")


async def test_records_carry_the_job_they_were_written_in(make_runner: Any, lines: Any) -> None:
    """W4: on the loop and in threads, each attempt, and many jobs at once."""
    runner = await make_runner(ordered=False)
    log.warning("before")
    first = await runner.add_task(polite)
    second = await runner.add_task(blunt)
    assert await runner.drain(30)
    log.warning("after")
    told = [line for line in lines() if line.endswith(("hello", "before", "after"))]
    assert told[0] == "- - - before"
    assert sorted(told[1:-1]) == sorted(
        [
            f"{first.id} logs.polite 1 hello",
            f"{second.id} logs.blunt 1 hello",
            f"{second.id} logs.blunt 2 hello",
        ]
    )
    assert told[-1] == "- - - after"


async def test_what_is_said_of_a_job_carries_it_too(make_runner: Any, lines: Any) -> None:
    """W4: a failure is logged after the attempt, and not in it."""
    runner = await make_runner()
    job = await runner.add_task(blunt)
    assert await runner.drain(30)
    said = [line for line in lines() if "failed" in line]
    assert [line.split(" ", 3)[:3] for line in said] == [
        [job.id, "logs.blunt", "1"],
        [job.id, "logs.blunt", "2"],
    ]


async def test_attributes_that_are_there_stay(make_runner: Any, lines: Any) -> None:
    """W4: what the application calls a task is not overwritten."""

    async def speak() -> None:
        log.warning("mine", extra={"task": "laundry"})

    runner = await make_runner()
    job = await runner.add_task(speak)
    assert await runner.drain(30)
    assert lines()[-1] == f"{job.id} laundry 1 mine"


async def test_a_queue_carries_them_to_another_thread(make_runner: Any, lines: Any) -> None:
    """W4: a filter before the queue has set them, and one behind it leaves them."""
    waiting: queue.Queue[Any] = queue.Queue()
    handler = logging.handlers.QueueHandler(waiting)
    handler.addFilter(JobFilter())
    apart = logging.getLogger("shop.apart")
    apart.propagate = False
    apart.addHandler(handler)

    async def speak() -> None:
        apart.warning("from afar")

    runner = await make_runner()
    job = await runner.add_task(speak)
    assert await runner.drain(30)
    log.handle(waiting.get(timeout=30))
    assert lines()[-1].startswith(f"{job.id} ")
    apart.removeHandler(handler)
    handler.close()
