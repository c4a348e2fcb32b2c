"""The runner: R1 to R5, R8, and its methods."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio.from_thread
import pytest

from asgi_bg import JobStatus, Runner, add_task, current_job, task
from asgi_bg._ids import new_id
from asgi_bg.exceptions import JobFailed, JobNotFound, QueueFull
from tests.helpers import until

pytestmark = pytest.mark.anyio

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# R1: callables of every kind, and where they run.


class Service:
    """Callables in every form that a class can have."""

    def method(self, x: int) -> Any:
        return x, threading.current_thread().name

    async def amethod(self, x: int) -> Any:
        return x, threading.current_thread().name

    @classmethod
    def of_class(cls, x: int) -> Any:
        return x, threading.current_thread().name

    @staticmethod
    async def static(x: int) -> Any:
        return x, threading.current_thread().name

    @task
    def declared(self, x: int) -> Any:
        return x + self.number, threading.current_thread().name

    number = 0


class PlainCallable:
    def __call__(self, x: int) -> Any:
        return x, threading.current_thread().name


class AsyncCallable:
    async def __call__(self, x: int) -> Any:
        return x, threading.current_thread().name


def function(x: int) -> Any:
    return x, threading.current_thread().name


async def afunction(x: int) -> Any:
    return x, threading.current_thread().name


KINDS: dict[str, tuple[Any, str]] = {
    "function": (function, "thread"),
    "async function": (afunction, "loop"),
    "method": (Service().method, "thread"),
    "async method": (Service().amethod, "loop"),
    "class method": (Service.of_class, "thread"),
    "async static method": (Service.static, "loop"),
    "declared method": (Service().declared, "thread"),
    "partial": (functools.partial(function), "thread"),
    "async partial": (functools.partial(functools.partial(afunction)), "loop"),
    "object": (PlainCallable(), "thread"),
    "async object": (AsyncCallable(), "loop"),
    "partial of async object": (functools.partial(AsyncCallable()), "loop"),
    "task": (task(function), "thread"),
    "async task": (task(name="mine")(afunction), "loop"),
    "lambda": (lambda x: function(x), "thread"),
    "lambda that returns a coroutine": (lambda x: afunction(x), "loop"),
}


@pytest.mark.parametrize(("kind", "where"), KINDS.values(), ids=KINDS)
async def test_callable_of_every_kind_runs_where_it_belongs(
    kind: Any, where: str, make_runner: Any
) -> None:
    """R1: async ones on the loop, plain ones in a thread of the runner's own."""
    runner = await make_runner()
    job = await runner.add_task(kind, 7)
    value, thread = await job.result(5)
    assert value == 7
    assert (thread == "asgi_bg worker") == (where == "thread")


async def test_anyio_from_thread_works_in_a_plain_task(make_runner: Any) -> None:
    """R1: as in FastAPI, a plain function can call back into the event loop."""
    loop_thread = threading.get_ident()

    async def on_loop(x: int) -> tuple[int, int, str]:
        return x, threading.get_ident(), variable.get()

    def plain() -> Any:
        variable.set("of the job")
        sync = anyio.from_thread.run_sync(threading.get_ident)
        return anyio.from_thread.run(on_loop, 5), sync

    runner = await make_runner()
    job = await runner.add_task(plain)
    assert await job.result(5) == ((5, loop_thread, "of the job"), loop_thread)


async def test_async_job_has_a_current_task_like_any(make_runner: Any) -> None:
    """R1: `current_task`, timeouts, cancel scopes and child tasks work from the first step on."""
    outer = asyncio.current_task()
    seen: list[Any] = []

    async def job(pause: bool) -> str:
        own = asyncio.current_task()
        assert own is not None
        assert own is not outer
        if pause:
            await asyncio.sleep(0)
        assert asyncio.current_task() is own
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(asyncio.sleep, 0)
        seen.append(own)
        return "fine"

    runner = await make_runner()
    for pause in (True, False):
        added = await runner.add_task(job, pause)
        assert await added.result(5) == "fine"
    assert asyncio.current_task() is outer
    assert seen[0] is not seen[1]


async def test_async_job_that_cancels_its_own_task_harms_no_other(make_runner: Any) -> None:
    """R1, R3: neither where it waits after it, nor where it returns without waiting."""

    async def cancel_and_wait() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(0)

    async def cancel_and_return() -> str:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        return "returned"

    async def innocent(pause: float | None) -> str:
        if pause is not None:
            await asyncio.sleep(pause)
        return "innocent"

    runner = await make_runner()
    for _ in range(2):
        jobs = [
            await runner.add_task(cancel_and_wait),
            await runner.add_task(cancel_and_return),
            await runner.add_task(innocent, None),
            await runner.add_task(innocent, 0),
            await runner.add_task(innocent, 0.01),
        ]
        await runner.drain(5)
        # Python 3.10 does not tell who has raised the error.
        told = "cancelled" if sys.version_info >= (3, 11) else "failed"
        assert (await jobs[0].info()).status == told
        assert [await job.result(5) for job in jobs[1:]] == ["returned", *["innocent"] * 3]


async def test_job_that_starts_an_async_job_does_not_nest(make_runner: Any) -> None:
    """R1: a chain of jobs, each adding the next, is as long as it likes."""
    runner = await make_runner(ordered=False)
    count = 0

    async def chain() -> None:
        nonlocal count
        count += 1
        if count < 3000:
            add_task(chain)

    await runner.add_task(chain)
    await runner.drain(20)
    assert count == 3000


# R2: order and bounds.


@pytest.mark.parametrize("ordered", [True, False])
async def test_ordered_decides_whether_jobs_of_a_request_wait_for_each_other(
    ordered: bool, make_runner: Any
) -> None:
    """R2: one after another as FastAPI's do, or at once."""
    runner = await make_runner(ordered=ordered)
    log: list[str] = []

    async def slow(name: str, seconds: float) -> None:
        log.append(f"{name} starts")
        await asyncio.sleep(seconds)
        log.append(f"{name} ends")

    def queue() -> None:
        add_task(slow, "a", 0.05)
        add_task(slow, "b", 0.01)
        add_task(log.append, "c")

    await runner.add_task(queue)
    await runner.drain(5)
    if ordered:
        assert log == ["a starts", "a ends", "b starts", "b ends", "c"]
    else:
        assert log.index("b ends") < log.index("a ends")
        assert log.index("c") < log.index("a ends")


async def test_max_jobs_and_concurrency_bound_what_runs_at_once(make_runner: Any) -> None:
    """R2: never more than `max_jobs` in all, nor than `concurrency` of one task."""
    runner = await make_runner(max_jobs=5)
    now: dict[str, int] = {"a": 0, "b": 0}
    peak = {"a": 0, "b": 0, "all": 0}

    async def work(name: str) -> None:
        now[name] += 1
        peak[name] = max(peak[name], now[name])
        peak["all"] = max(peak["all"], sum(now.values()))
        await asyncio.sleep(0.005)
        now[name] -= 1

    bounded = task(name="a", concurrency=2)(work)
    for _ in range(12):
        await runner.add_task(bounded, "a")
        await runner.add_task(work, "b")
    await runner.drain(10)
    assert peak["a"] == 2
    assert peak["all"] == 5
    assert runner.stats()["succeeded"] == 24
    assert runner.stats()["running"] == 0


async def test_thread_concurrency_bounds_threads_too(make_runner: Any) -> None:
    """R2: `concurrency=1` makes jobs of a task exclude each other, in threads as well."""
    runner = await make_runner()
    inside = threading.Lock()

    @task(concurrency=1)
    def exclusive() -> None:
        assert inside.acquire(blocking=False)
        time.sleep(0.002)
        inside.release()

    jobs = [await runner.add_task(exclusive) for _ in range(10)]
    for job in jobs:
        await job.result(5)


async def test_waiting_jobs_start_by_priority_then_age(make_runner: Any) -> None:
    """J10, in memory: among waiting jobs the higher priority goes first, then the older."""
    runner = await make_runner(max_jobs=1)
    go = asyncio.Event()
    log: list[str] = []
    await runner.add_task(go.wait)
    note = task(log.append)
    for name, priority in [("a", 0), ("b", 5), ("c", 5), ("d", -1)]:
        await runner.add_task(note.using(priority=priority), name)
    go.set()
    await runner.drain(5)
    assert log == ["b", "c", "a", "d"]


async def test_many_waiting_jobs_are_resumed_without_recursion(make_runner: Any) -> None:
    """R2: thousands that end at once when their turn comes."""
    runner = await make_runner(max_jobs=1)
    go = asyncio.Event()

    async def quick() -> None: ...

    await runner.add_task(go.wait)
    for _ in range(5000):
        await runner.add_task(quick)
    go.set()
    await runner.drain(20)
    assert runner.stats()["succeeded"] == 5001


async def test_threads_are_used_side_by_side_up_to_their_limit(make_runner: Any) -> None:
    """R1: jobs that block find other threads, but never more than `max_threads`."""
    runner = await make_runner(max_threads=4)
    barrier = threading.Barrier(4)
    jobs = [await runner.add_task(barrier.wait, 5) for _ in range(8)]
    for job in jobs:
        await job.result(10)
    assert runner.stats()["threads"] == 4


# R3: failures.


class Odd(BaseException):
    """Not even an `Exception`."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom"),
        SystemExit(3),
        asyncio.CancelledError("raised"),
        GeneratorExit("odd"),
        Odd("odder"),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["async", "async later", "sync"])
async def test_failing_job_is_logged_once_and_stops_nothing(
    error: BaseException, kind: str, make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """R3: whatever it raises, `SystemExit` and `CancelledError` too; the next job runs."""
    runner = await make_runner()
    log: list[Any] = []

    async def fail_async() -> None:
        if kind == "async later":
            await asyncio.sleep(0)
        raise error

    def fail_sync() -> None:
        raise error

    def queue() -> Any:
        jobs.append(add_task(fail_sync if kind == "sync" else fail_async))
        jobs.append(add_task(log.append, "next"))

    jobs: list[Any] = []
    await runner.add_task(queue)
    await runner.drain(5)

    assert log == ["next"]
    info = await jobs[0].info()
    assert info.status == "failed"
    assert info.error.startswith(type(error).__name__)
    assert "fail_" in info.traceback
    assert "asgi_bg" not in info.traceback.replace(__file__, "")
    with pytest.raises(JobFailed) as failed:
        await jobs[0].result(5)
    assert failed.value.__cause__ is error
    assert failed.value.job_id == jobs[0].id
    logged = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [r.name for r in logged] == ["asgi_bg"]
    assert logged[0].exc_info is not None
    assert logged[0].__dict__["asgi_bg_job_id"] == jobs[0].id


@pytest.mark.parametrize("is_sync", [True, False])
def test_keyboard_interrupt_passes(is_sync: bool) -> None:
    """R3: only this one leaves the runner, by way of the event loop."""

    async def interrupt_async() -> None:
        raise KeyboardInterrupt

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        runner = Runner()
        await runner.add_task(interrupt if is_sync else interrupt_async)
        await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


async def test_retries_follow_until_success_or_the_last_attempt(
    make_runner: Any, warnings_logged: Any, errors: Any
) -> None:
    """J6, in memory: the same id, a warning for each, an error only for the last."""
    runner = await make_runner()
    seen: list[tuple[str, int]] = []

    @task(retries=3, retry_delay=0.001)
    def flaky(fail: int) -> str:
        job = current_job()
        seen.append((job.id, job.attempt))
        if job.attempt <= fail:
            raise ValueError(f"no. {job.attempt}")
        return "done"

    good = await runner.add_task(flaky, 2)
    assert await good.result(5) == "done"
    assert seen == [(good.id, 1), (good.id, 2), (good.id, 3)]
    assert len(warnings_logged()) == 2
    assert errors() == []
    assert ((await good.info()).error, (await good.info()).traceback) == (None, None)

    bad = await runner.add_task(flaky, 9)
    with pytest.raises(JobFailed, match="no. 4"):
        await bad.result(5)
    info = await bad.info()
    assert (info.attempt, info.max_attempts) == (4, 4)
    assert len(errors()) == 1


async def test_retry_on_names_the_errors_that_are_tried_again(make_runner: Any) -> None:
    """J6, in memory."""
    runner = await make_runner()

    @task(retries=5, retry_delay=0, retry_on=(ConnectionError,))
    async def call(error: Exception) -> None:
        if current_job().attempt < 3:
            raise error

    job = await runner.add_task(call, ConnectionResetError())
    await job.result(5)
    job = await runner.add_task(call, ValueError("final"))
    with pytest.raises(JobFailed, match="final"):
        await job.result(5)
    assert (await job.info()).attempt == 1


# R4: contexts.


async def test_job_runs_in_the_context_of_its_add_task(make_runner: Any) -> None:
    """R4: each as it was then, whatever others, or an attempt before, have changed in theirs."""
    runner = await make_runner()
    seen: list[tuple[str, str]] = []

    async def job(name: str) -> None:
        seen.append((name, variable.get()))
        variable.set(f"changed by {name}")
        await asyncio.sleep(0)
        seen.append((name, variable.get()))

    @task(retries=1, retry_delay=0)
    def flaky() -> None:
        seen.append((f"attempt {current_job().attempt}", variable.get()))
        variable.set("changed by an attempt")
        if current_job().attempt == 1:
            raise ValueError

    def queue() -> None:
        for name in "ab":
            variable.set(f"set for {name}")
            add_task(job, name)
        add_task(flaky)
        variable.set("later")

    await runner.add_task(queue)
    await runner.drain(5)
    assert seen == [
        ("a", "set for a"),
        ("a", "changed by a"),
        ("b", "set for b"),
        ("b", "changed by b"),
        ("attempt 1", "set for b"),
        ("attempt 2", "set for b"),
    ]
    assert variable.get() == "unset"


# R5: timeouts.


async def test_timeout_cancels_an_async_attempt(make_runner: Any) -> None:
    """R5: it may clean up; what it then raises does not matter, what it returns does."""
    runner = await make_runner(timeout=0.02)
    log: list[str] = []

    async def clean() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            log.append(f"cleaned, {current_job().cancelled}")

    async def angry() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise ValueError("in cleanup") from None

    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "rescued"
        return "never"

    for function in (clean, angry):
        job = await runner.add_task(function)
        with pytest.raises(JobFailed, match=r"took longer than 0\.02 seconds") as failed:
            await job.result(5)
        assert isinstance(failed.value.__cause__, TimeoutError)
        assert function.__name__ in (await job.info()).traceback
    job = await runner.add_task(stubborn)
    assert await job.result(5) == "rescued"
    assert log == ["cleaned, True"]
    longer = task(stubborn).using(timeout=20)
    waiting = await runner.add_task(longer)
    await asyncio.sleep(0.05)
    assert (await waiting.info()).status == "running"
    await runner.cancel(waiting.id)


async def test_timeout_gives_a_thread_up_and_says_that_it_may_go_on(
    make_runner: Any, warnings_logged: Any
) -> None:
    """R5: the attempt fails, `cancelled` is set, another thread takes its place."""
    runner = await make_runner(max_threads=1)
    stop = threading.Event()
    seen: list[bool] = []

    @task(timeout=0.02)
    def stuck() -> str:
        job = current_job()
        stop.wait(20)
        seen.append(job.cancelled)
        job.progress(0.9, "too late")
        return "too late"

    job = await runner.add_task(stuck)
    with pytest.raises(JobFailed, match="took longer"):
        await job.result(5)
    assert "may go on" in warnings_logged()[0]
    # The only thread is stuck: the next job gets another one.
    follower = await runner.add_task(threading.get_ident)
    await follower.result(5)
    stop.set()
    await until(lambda: seen)
    assert seen == [True]
    await until(lambda: runner._parts.threads._abandoned == 0)
    info = await job.info()
    assert (info.status, info.result, info.progress) == ("failed", None, None)


async def test_timeout_counts_from_the_start_in_the_thread(make_runner: Any) -> None:
    """R5: waiting for a thread is not the attempt's time."""
    runner = await make_runner(max_threads=1, timeout=0.3)
    jobs = [await runner.add_task(time.sleep, 0.1) for _ in range(5)]
    for job in jobs:
        await job.result(5)


# R8 and what waits.


async def test_full_queue_refuses_in_the_endpoint(make_runner: Any) -> None:
    """R8: one more than `max_queued` raises `QueueFull`, and none of the others is lost."""
    runner = await make_runner(max_queued=3, max_jobs=1)
    go = asyncio.Event()
    ran: list[int] = []
    await runner.add_task(go.wait)
    for number in range(3):
        await runner.add_task(ran.append, number)
    with pytest.raises(QueueFull, match=r"max_queued=3.*503"):
        await runner.add_task(ran.append, 3)
    go.set()
    await runner.drain(5)
    assert ran == [0, 1, 2]
    await runner.add_task(ran.append, 4)
    await runner.drain(5)
    assert ran[-1] == 4


async def test_delay_and_run_at_put_a_job_off(make_runner: Any) -> None:
    """J6, in memory; `drain` does not wait for jobs that are put off."""
    runner = await make_runner()
    ran: list[tuple[str, float]] = []
    began = time.time()
    note = task(lambda name: ran.append((name, time.time() - began)))
    instant = datetime.now(timezone(timedelta(hours=5))) + timedelta(seconds=1.0)
    late = await runner.add_task(note.using(delay=0.5), "delay")
    await runner.add_task(note.using(run_at=instant), "run_at")
    past = datetime.now(timezone.utc) - timedelta(hours=1)
    await runner.add_task(note.using(run_at=past), "past")
    assert await runner.drain(5)
    assert [name for name, _ in ran] == ["past"]
    assert (await late.info()).run_after is not None
    await until(lambda: len(ran) == 3)
    assert [name for name, _ in ran] == ["past", "delay", "run_at"]
    assert ran[1][1] >= 0.5
    assert ran[2][1] >= 1.0


async def test_key_returns_the_job_that_has_it(make_runner: Any) -> None:
    """J6, in memory: while it is unfinished or remembered; a forgotten one frees its key."""
    runner = await make_runner()
    ran: list[int] = []
    once = task(ran.append).using(key="order-7")
    first = await runner.add_task(once, 1)
    second = await runner.add_task(once, 2)
    assert second is first
    await runner.drain(5)
    assert (await runner.add_task(once, 3)).id == first.id
    assert ran == [1]
    assert await runner.purge() == 1
    third = await runner.add_task(once, 4)
    assert third is not first
    await runner.drain(5)
    assert ran == [1, 4]


# Looking after jobs.


async def test_cancel_stops_a_job_in_every_state(make_runner: Any) -> None:
    """A waiting one does not start, a running one is stopped, a finished one stays."""
    runner = await make_runner(max_jobs=2)
    log: list[Any] = []
    stop = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append(("cleanup", current_job().cancelled))

    running = await runner.add_task(hang)
    thread = await runner.add_task(stop.wait, 20)
    queued = await runner.add_task(log.append, "never")
    put_off = await runner.add_task(task(log.append).using(delay=30), "never")
    await until(lambda: runner._parts.registry.get(thread.id).is_in_thread)
    for job in (queued, put_off, thread, running):
        info = await runner.cancel(job.id)
        if job is not running:
            assert info.status == JobStatus.cancelled
    await runner.drain(5)
    stop.set()
    for job in (queued, put_off, thread, running):
        with pytest.raises(JobFailed, match="cancelled by request"):
            await job.result(5)
    assert log == [("cleanup", True)]
    done = await runner.add_task(log.append, "done")
    await done.result(5)
    assert (await runner.cancel(done.id)).status == "succeeded"
    assert runner.stats()["queued"] == runner.stats()["running"] == 0


async def test_cancel_while_waiting_for_a_retry_ends_the_drain(make_runner: Any) -> None:
    """A job that waits for its retry holds the drain; cancelled, it no longer does."""
    runner = await make_runner()

    @task(retries=1, retry_delay=1000)
    def fail() -> None:
        raise ValueError

    job = await runner.add_task(fail)
    await until(lambda: runner._parts.registry.get(job.id).timer is not None)
    assert not await runner.drain(0.01)
    await runner.cancel(job.id)
    assert await runner.drain(5)


async def test_cancel_inside_an_ordered_lane_lets_the_next_run(make_runner: Any) -> None:
    """R3: the jobs behind a cancelled one go on."""
    runner = await make_runner(max_jobs=1)
    go = asyncio.Event()
    log: list[str] = []
    jobs: list[Any] = []

    def queue() -> None:
        jobs.extend(add_task(log.append, name) for name in "abc")

    blocker = await runner.add_task(go.wait)
    await runner.add_task(queue)
    go.set()
    await blocker.result(5)
    await until(lambda: len(jobs) == 3)
    await runner.cancel(jobs[1].id)
    await runner.drain(5)
    assert "c" in log
    assert (await jobs[2].info()).status == "succeeded"


async def test_retry_runs_a_failed_job_again_with_its_arguments(make_runner: Any) -> None:
    """By hand: the same id, all its attempts before it again, in its own context."""
    runner = await make_runner()
    broken = [True]
    seen: list[str] = []

    def work(x: int, *, y: int) -> int:
        seen.append(variable.get())
        variable.set("spoilt")
        if broken:
            raise ValueError("still broken")
        return x + y

    token = variable.set("as it was")
    job = await runner.add_task(work, 1, y=2)
    variable.reset(token)
    with pytest.raises(JobFailed):
        await job.result(5)
    with pytest.raises(JobFailed):
        await runner.result((await runner.retry(job.id)).id, 5)
    broken.clear()
    await runner.retry(job.id)
    assert await job.result(5) == 3
    assert seen == ["as it was"] * 3
    with pytest.raises(ValueError, match="is succeeded"):
        await runner.retry(job.id)
    assert runner.stats()["failed"] == 0


async def test_jobs_lists_the_newest_first_and_in_pages(make_runner: Any) -> None:
    """By status and task, and on from the last one of a page."""
    runner = await make_runner()

    def good() -> None: ...

    @task(name="bad")
    def bad() -> None:
        raise ValueError

    added = [await runner.add_task(good if n % 3 else bad) for n in range(9)]
    await runner.drain(5)
    ids = [job.id for job in reversed(added)]
    assert ids == sorted(ids, reverse=True)
    page = await runner.jobs(limit=4)
    assert [info.id for info in page] == ids[:4]
    rest = await runner.jobs(after=page[-1].id)
    assert [info.id for info in rest] == ids[4:]
    assert {info.task for info in await runner.jobs(status="failed")} == {"bad"}
    assert len(await runner.jobs(task="bad", status=JobStatus.failed)) == 3
    assert await runner.jobs(task="bad", status="succeeded") == []
    with pytest.raises(ValueError, match="broken"):
        await runner.jobs(status="broken")
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        await runner.jobs(limit=0)


async def test_history_keeps_the_last_finished_jobs_only(make_runner: Any) -> None:
    """Those beyond it are forgotten, unless somebody keeps the job itself."""
    runner = await make_runner(history=3)
    ids = []
    kept = await runner.add_task(str, "kept")
    await kept.result(5)
    for number in range(5):
        job = await runner.add_task(str, number)
        await job.result(5)
        ids.append(job.id)
    del job
    assert [info.result for info in await runner.jobs()] == ["4", "3", "2"]
    with pytest.raises(JobNotFound, match="history"):
        await runner.info(ids[0])
    assert await runner.result(ids[-1]) == "4"
    assert await runner.result(kept.id) == "kept"
    assert await runner.purge(older_than=60) == 0
    assert await runner.purge(status="failed") == 0
    assert await runner.purge() == 3
    assert await runner.jobs() == []


async def test_info_and_result_follow_a_job(make_runner: Any) -> None:
    """From queued to succeeded; instants are UTC and in order."""
    runner = await make_runner()
    go = asyncio.Event()

    async def work() -> str:
        current_job().progress(0.25, "a quarter")
        await go.wait()
        current_job().progress(7)
        return "value"

    job = await runner.add_task(work)
    info = await job.info()
    assert (info.status, info.attempt, info.progress) == ("running", 1, 0.25)
    assert info.message == "a quarter"
    assert info.owner == f"pid:{os.getpid()}"
    assert info.task == job.task_name
    with pytest.raises(TimeoutError, match="still running"):
        await job.result(0.01)
    go.set()
    assert await runner.result(job.id, 5) == "value"
    info = await runner.info(job.id)
    assert (info.status, info.result, info.progress, info.error) == (
        "succeeded",
        "value",
        1.0,
        None,
    )
    assert info.queued_at.tzinfo is timezone.utc
    assert info.started_at is not None
    assert info.finished_at is not None
    assert info.queued_at <= info.started_at <= info.finished_at
    assert len(job.id) == 32
    assert job.id in repr(job)


async def test_result_can_be_awaited_by_many_and_from_another_loop(make_runner: Any) -> None:
    """Waiters of one job, on this loop and on one in another thread."""
    runner = await make_runner()
    go = asyncio.Event()

    async def work() -> int:
        await go.wait()
        return 5

    job = await runner.add_task(work)
    here = [asyncio.ensure_future(job.result(5)) for _ in range(3)]
    there = asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(job.result(5))))
    await until(lambda: len(runner._parts.registry.get(job.id).waiters or ()) == 4)
    here[0].cancel()
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*here[1:], there) == [5, 5, 5]


async def test_progress_refuses_what_is_no_number(make_runner: Any) -> None:
    """The mistake is the task's, and says so."""
    runner = await make_runner()
    job = await runner.add_task(lambda: current_job().progress("half"))  # type: ignore[arg-type]
    with pytest.raises(JobFailed, match="fraction must be a number from 0 to 1, got 'half'"):
        await job.result(5)
    job = await runner.add_task(lambda: current_job().progress(1, 5))  # type: ignore[arg-type]
    with pytest.raises(JobFailed, match="message must be a string"):
        await job.result(5)
    job = await runner.add_task(lambda: current_job().progress(float("nan")))
    await job.result(5)
    assert (await job.info()).progress == 0.0


async def test_current_job_outside_of_a_job_says_so() -> None:
    """Also for a task that is called directly, as the function it is."""
    with pytest.raises(JobNotFound, match="called directly"):
        current_job()


# Its lifetime.


async def test_drain_waits_for_everything_but_what_is_put_off(make_runner: Any) -> None:
    """Ready, running, waiting for a retry; in threads too."""
    runner = await make_runner()
    log: list[str] = []

    @task(retries=1, retry_delay=0.02)
    def flaky() -> None:
        if current_job().attempt == 1:
            raise ValueError
        log.append("retried")

    await runner.add_task(flaky)
    await runner.add_task(time.sleep, 0.02)
    await runner.add_task(asyncio.sleep, 0.02)
    assert not await runner.drain(0)
    assert await runner.drain(5)
    assert log == ["retried"]
    assert await runner.drain(0)


async def test_aclose_cancels_what_is_not_done_and_names_it(
    anyio_backend: Any, errors: Any
) -> None:
    """R6: within the time given, whatever its jobs do."""
    log: list[str] = []
    stop = threading.Event()

    async def polite() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            log.append("cleaned up")

    runner = Runner(drain_timeout=0.05)
    began = time.monotonic()
    async with runner:
        await runner.add_task(task(name="polite")(polite))
        await runner.add_task(task(name="thread")(stop.wait), 60)
        await runner.add_task(task(name="later")(print).using(delay=60))
    assert time.monotonic() - began < 5
    stop.set()
    assert log == ["cleaned up"]
    assert len(errors()) == 1
    assert errors()[0].startswith("3 job(s) were not done")
    for name in ("polite", "thread", "later"):
        assert f"{name} (" in errors()[0]
    assert runner.stats()["cancelled"] == 3


async def test_runner_can_be_started_again_after_it_was_closed(anyio_backend: Any) -> None:
    """A test client starts and stops an app several times."""
    runner = Runner()
    for _ in range(3):
        async with runner:
            job = await runner.add_task(str, 1)
            assert await job.result(5) == "1"
            job = await runner.add_task(asyncio.sleep, 0, "x")
            assert await job.result(5) == "x"
    await runner.aclose()


def test_started_runner_that_goes_away_with_work_warns() -> None:
    """Work that is lost is said, as by any resource that is not closed."""

    async def main() -> None:
        runner = Runner()
        await runner.start()
        await runner.add_task(asyncio.sleep, 30)

    with pytest.warns(ResourceWarning, match="runner.aclose"):
        asyncio.run(main())


def test_thread_that_never_returns_does_not_keep_the_process() -> None:
    """A worker thread stuck for ever: the runner closes in time, and the process ends."""
    import subprocess

    code = (
        "import asyncio, threading\n"
        "from asgi_bg import Runner\n"
        "async def main():\n"
        "    async with Runner(drain_timeout=0.1) as runner:\n"
        "        await runner.add_task(threading.Event().wait)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True)
    assert done.returncode == 0
    assert b"not done when the runner was closed" in done.stderr


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_jobs": 0}, ValueError, "max_jobs must be 1 or more, got 0"),
        ({"max_jobs": "5"}, TypeError, "max_jobs must be a whole number, got '5'"),
        ({"max_threads": 1.5}, TypeError, "max_threads must be a whole number"),
        ({"max_processes": -1}, ValueError, "max_processes must be 1 or more"),
        ({"max_queued": True}, TypeError, "max_queued must be a whole number, got True"),
        ({"timeout": 0}, ValueError, "timeout must be more than 0 seconds, got 0"),
        ({"timeout": float("inf")}, ValueError, "timeout must be more than 0 seconds"),
        ({"drain_timeout": -1}, ValueError, "drain_timeout must be 0 or more seconds"),
        ({"drain_timeout": "1m"}, TypeError, "drain_timeout must be a number of seconds"),
        ({"history": -1}, ValueError, "history must be 0 or more"),
        ({"on_event": 5}, TypeError, "not iterable"),
        ({"on_event": [5]}, TypeError, "plain functions of one event, got 5"),
    ],
)
def test_bad_options_are_refused(options: Any, error: Any, message: str) -> None:
    """What was expected, what came, and a runner half made does not complain when it goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=message):
            Runner(**options)


async def test_lane_of_quick_jobs_lets_others_have_the_loop(make_runner: Any) -> None:
    """R2: requests never wait for each other, not even for a thousand jobs that never wait."""
    runner = await make_runner()
    ran: list[int] = []
    seen: list[int] = []

    async def quick(number: int) -> None:
        ran.append(number)

    def queue() -> None:
        for number in range(1000):
            add_task(quick, number)
        loop.call_soon_threadsafe(seen.append, -1)

    def look() -> None:
        seen.append(len(ran))
        if len(ran) < 1000:
            loop.call_soon(look)

    loop = asyncio.get_running_loop()
    await runner.add_task(queue)
    look()
    await runner.drain(10)
    assert ran == list(range(1000))
    assert any(0 < count < 1000 for count in seen)


async def test_engines_are_told_where_a_task_failed(make_runner: Any) -> None:
    """E3: the error that a performed attempt raises has the task's own frames in its report."""

    @task(name="runner:fails-deep-down")
    def fails_deep_down() -> None:
        raise ValueError("in the depth")

    runner = await make_runner()
    envelope = {"id": new_id(1.0), "call": "[[]]", "options": None}
    with pytest.raises(ValueError, match="in the depth") as caught:
        await runner.perform("runner:fails-deep-down", envelope, 1)
    report = "".join(traceback.format_exception(caught.value))
    assert "in fails_deep_down" in report
