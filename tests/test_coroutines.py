"""The first step of async jobs, and the tasks that carry them on: R1, R5."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import time
import weakref
from collections.abc import Generator
from typing import Any

import pytest

from asgi_bg import Runner, current_job, task
from asgi_bg.exceptions import JobFailed
from tests.helpers import until

pytestmark = pytest.mark.anyio


async def test_job_added_by_a_job_does_not_run_within_its_step(make_runner: Any) -> None:
    """R1: the step of the first ends before the second begins."""
    runner = await make_runner()
    log: list[Any] = []

    async def second() -> None:
        log.append(("second", asyncio.current_task()))

    async def first() -> None:
        await runner.add_task(second)
        log.append(("first", asyncio.current_task()))

    await runner.add_task(first)
    await runner.drain(5)
    assert [name for name, _ in log] == ["first", "second"]
    assert all(isinstance(carrier, asyncio.Task) for _, carrier in log)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_cancel_reaches_what_the_job_awaits(warm: bool, turns: int, make_runner: Any) -> None:
    """R5: at once after its first step, before its task has had a turn, and later."""
    runner = await make_runner()
    log: list[str] = []
    child_gone: list[bool] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log.append("child")

    async def parent() -> None:
        inner = asyncio.ensure_future(child())
        await asyncio.sleep(0)
        try:
            await inner
        finally:
            child_gone.append(inner.cancelled())
            log.append("parent")

    async def waits_at_once() -> None:
        future = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            log.append(f"future cancelled: {future.cancelled()}")

    if warm:
        await (await runner.add_task(asyncio.sleep, 0)).result(5)
        await runner.add_task(lambda: None)
        await runner.drain(5)
    job = await runner.add_task(waits_at_once)
    other = await runner.add_task(parent)
    for _ in range(turns):
        await asyncio.sleep(0)
    await runner.cancel(job.id)
    await until(lambda: log)
    await runner.cancel(other.id)
    await runner.drain(5)
    assert log == ["future cancelled: True", "child", "parent"]
    assert child_gone == [True]
    assert (await job.info()).status == (await other.info()).status == "cancelled"


async def test_cancel_between_two_yields_is_not_lost(make_runner: Any) -> None:
    """R5: a job that has yielded without a future, as `sleep(0)` does, gets it thrown in."""
    runner = await make_runner()

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    for turns in range(3):
        job = await runner.add_task(spin)
        for _ in range(turns):
            await asyncio.sleep(0)
        await runner.cancel(job.id)
        with pytest.raises(JobFailed, match="cancelled by request"):
            await job.result(5)


async def test_awaitable_that_is_no_coroutine_is_awaited(make_runner: Any) -> None:
    """R1: what an ``async def __call__`` could return in other implementations of it."""
    runner = await make_runner()

    class Awaitable:
        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return f"attempt {current_job().attempt}"

    class Caller:
        async def __call__(self) -> str: ...

    # As marked by `inspect.markcoroutinefunction`, which Python 3.12 has.
    declared = task(Caller())
    declared.func = Awaitable
    job = await runner.add_task(declared)
    assert await job.result(5) == "attempt 1"


async def test_error_in_the_first_step_and_later_look_alike(make_runner: Any) -> None:
    """R3: tracebacks begin with the task's own frame."""
    runner = await make_runner()

    async def fail(later: bool) -> None:
        if later:
            await asyncio.sleep(0)
        raise ValueError("here")

    texts = []
    for later in (False, True):
        job = await runner.add_task(fail, later)
        with pytest.raises(JobFailed):
            await job.result(5)
        texts.append((await job.info()).traceback)
    assert texts[0] == texts[1]
    assert texts[0].count("File") == 1


async def test_names_and_contexts_of_carriers(make_runner: Any) -> None:
    """R1, R4: child tasks inherit the job's context; the task has a telling name."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("v", default="unset")
    runner = await make_runner()
    seen: list[Any] = []

    async def child() -> None:
        seen.append(variable.get())

    async def job() -> None:
        variable.set("of the job")
        await asyncio.sleep(0)
        await asyncio.create_task(child())
        asyncio.get_running_loop().call_soon(lambda: seen.append(variable.get()))
        await asyncio.sleep(0.01)  # in which the loop makes the call
        seen.append(asyncio.current_task().get_name())  # type: ignore[union-attr]

    await runner.add_task(job)
    await runner.drain(5)
    assert seen == ["of the job", "of the job", "asgi_bg job"]
    assert variable.get() == "unset"


def test_loop_that_ends_under_running_jobs_leaves_no_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A script that forgets to close: asyncio cancels everything, and all of it ends."""
    begun: list[str] = []
    cleaned: list[str] = []

    async def hang(name: str) -> None:
        begun.append(name)
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(name)

    async def main() -> Any:
        runner = Runner()
        await runner.add_task(hang, "waiting")
        await until(lambda: begun)
        await runner.add_task(hang, "just begun")
        return weakref.ref(runner.scheduler())

    gone = asyncio.run(main())
    assert sorted(cleaned) == ["just begun", "waiting"]
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []
    if sys.version_info < (3, 11):
        return  # such jobs count as failed there, and what they failed with holds their frames
    deadline = time.monotonic() + 10
    while gone() is not None:  # the watchdog lets go when it next looks
        gc.collect()
        assert time.monotonic() < deadline
        time.sleep(0.01)
