"""Odd moments and hostile tasks: nothing is counted twice, nothing hangs, nothing is lost."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import gc
import random
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

import asgi_bg._scheduling.scheduler
from asgi_bg import BackgroundTaskMiddleware, JobEvent, Runner, add_task, current_job, task
from asgi_bg._execution import threads
from asgi_bg.exceptions import JobFailed, QueueFull
from tests.helpers import BODY, START, Connection, responding, until

pytestmark = pytest.mark.anyio


def assert_at_rest(runner: Runner) -> None:
    """Every account of a drained runner is level."""
    scheduler = runner.scheduler()
    assert not scheduler.is_busy
    assert scheduler.running == 0
    assert runner.stats()["queued"] == runner.stats()["running"] == 0
    assert runner._parts.threads._abandoned == 0
    assert scheduler._attempts.slots._tasks == {}


async def test_cancelled_job_tried_again_while_its_thread_goes_on(make_runner: Any) -> None:
    """R5: what the old call brings late belongs to nobody, and it knows that it was given up."""
    runner = await make_runner()
    gates = [threading.Event(), threading.Event()]
    seen: list[tuple[int, bool]] = []
    calls = iter(range(2))

    def work() -> str:
        number = next(calls)
        gates[number].wait(10)
        seen.append((number, current_job().cancelled))
        return f"call {number}"

    job = await runner.add_task(work)
    await until(lambda: runner._parts.registry.get(job.id).is_in_thread)
    await runner.cancel(job.id)
    await runner.retry(job.id)
    gates[0].set()
    await until(lambda: seen)
    gates[1].set()
    assert await job.result(5) == "call 1"
    assert await runner.drain(5)
    assert seen == [(0, True), (1, False)]
    await until(lambda: runner._parts.threads._abandoned == 0)
    assert runner.stats()["succeeded"] == 1
    assert_at_rest(runner)


async def test_job_cancelled_in_its_lane_and_tried_again_runs_once(make_runner: Any) -> None:
    """R2: its place in the lane is no longer its own."""
    runner = await make_runner()
    ran: list[str] = []
    jobs: list[Any] = []
    go = asyncio.Event()

    def queue() -> None:
        jobs.append(add_task(go.wait))
        jobs.append(add_task(ran.append, "job"))

    app = BackgroundTaskMiddleware(responding(START, BODY, before=queue), runner=runner)
    await Connection().call(app)
    await until(lambda: runner.stats()["running"] == 1)
    await runner.cancel(jobs[1].id)
    await runner.retry(jobs[1].id)
    await jobs[1].result(5)
    go.set()
    assert await runner.drain(5)
    assert ran == ["job"]
    assert_at_rest(runner)


async def test_job_cancelled_before_its_put_off_first_step_never_runs(make_runner: Any) -> None:
    """R1: within the first step of another, jobs begin at the loop's next turn."""
    runner = await make_runner()
    ran: list[str] = []
    jobs: list[Any] = []

    async def victim() -> None:
        ran.append("victim")

    async def first() -> None:
        jobs.append(await runner.add_task(victim))
        await runner.cancel(jobs[0].id)

    await runner.add_task(first)
    assert await runner.drain(5)
    assert ran == []
    assert (await jobs[0].info()).status == "cancelled"
    assert_at_rest(runner)


async def test_cancelled_waiter_passes_its_turn_on(make_runner: Any) -> None:
    """R2: of a task with `concurrency`, the next one starts in its stead."""
    runner = await make_runner(max_jobs=2)
    gates = {name: asyncio.Event() for name in "AXBCD"}
    started: list[str] = []

    async def work(name: str) -> None:
        started.append(name)
        await gates[name].wait()

    bounded = task(name="bounded", concurrency=1)(work)
    await runner.add_task(bounded, "A")
    await runner.add_task(work, "X")
    await runner.add_task(task(work).using(priority=1), "D")
    waiter = await runner.add_task(bounded, "B")
    last = await runner.add_task(bounded, "C")
    gates["A"].set()
    await until(lambda: "D" in started)
    await runner.cancel(waiter.id)
    for gate in gates.values():
        gate.set()
    await last.result(5)
    assert await runner.drain(5)
    assert started == ["A", "X", "D", "C"]
    assert_at_rest(runner)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@dataclass(frozen=True)
class Frozen(Exception):
    code: int = 5


@pytest.mark.parametrize("error", [Unspeakable(), Frozen()], ids=["unspeakable", "frozen"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_error_that_resists_being_reported_fails_its_job_only(
    error: Exception, is_async: bool, make_runner: Any
) -> None:
    """R3: neither the requests of its batch nor the server hear of it."""
    runner = await make_runner()
    log: list[str] = []

    async def afail() -> None:
        raise error

    def fail() -> None:
        raise error

    def queue() -> None:
        add_task(afail if is_async else fail)
        add_task(log.append, "next")

    app = BackgroundTaskMiddleware(responding(START, BODY, before=queue), runner=runner)
    for _ in range(20):
        await Connection().call(app)
    assert await runner.drain(5)
    assert log == ["next"] * 20
    assert runner.stats()["failed"] == 20
    assert_at_rest(runner)


async def test_failure_keeps_no_variables_alive(make_runner: Any) -> None:
    """R3: not those of the exceptions behind it either, however long history keeps the job."""

    class Big:
        pass

    gone: list[Any] = []
    runner = await make_runner()

    def deep() -> None:
        big = Big()
        gone.append(weakref.ref(big))
        raise ValueError("inner")

    def fail() -> None:
        try:
            deep()
        except ValueError as exc:
            raise RuntimeError("outer") from exc

    job = await runner.add_task(fail)
    assert await runner.drain(5)
    gc.collect()
    assert gone[0]() is None
    assert "inner" in str((await job.info()).traceback)


async def test_job_added_by_a_thread_as_the_app_returns_is_run_once(
    make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M4: the word of it arrives when the request has been handed over already."""
    monkeypatch.setattr(asgi_bg._scheduling.scheduler, "RETURN_TIMEOUT", 0.02)
    runner = await make_runner()
    ran: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        thread = threading.Thread(target=scope["asgi_bg"].add_task, args=(ran.append, 1))
        thread.start()
        thread.join()

    middleware = BackgroundTaskMiddleware(app, runner=runner)
    await Connection().call(middleware)
    await asyncio.sleep(0.1)
    assert await runner.drain(5)
    assert ran == [1]
    assert middleware.serving.count == 0
    assert_at_rest(runner)


async def test_app_that_never_returns_does_not_hold_up_the_drain(
    make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M4, R6: once its jobs are done there is nothing to wait for."""
    monkeypatch.setattr(asgi_bg._scheduling.scheduler, "RETURN_TIMEOUT", 0.01)
    runner = await make_runner()
    ran: list[int] = []
    hang = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(ran.append, 1)
        await send(START)
        await send(BODY)
        await hang.wait()

    call = asyncio.ensure_future(Connection().call(BackgroundTaskMiddleware(app, runner=runner)))
    await until(lambda: ran)
    assert await runner.drain(5)
    assert not call.done()
    hang.set()
    await call


async def test_waiter_on_a_closed_loop_does_not_disturb_the_end(make_runner: Any) -> None:
    """And waiters that give up are forgotten."""
    runner = await make_runner()
    go = asyncio.Event()
    job = await runner.add_task(go.wait)

    def wait_elsewhere() -> None:
        loop = asyncio.new_event_loop()
        waiter = loop.create_task(job.result())
        loop.run_until_complete(asyncio.sleep(0.01))
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(waiter)
        loop.close()

    await asyncio.to_thread(wait_elsewhere)
    assert not runner._parts.registry.get(job.id).waiters
    go.set()
    assert await job.result(5) is True
    assert_at_rest(runner)


def test_jobs_of_a_loop_that_was_closed_are_ended_and_named(errors: Any) -> None:
    """R7: nothing will run them any more, so they count no longer, and free their keys."""
    runner = Runner(max_queued=5)
    late = task(print).using(delay=60)
    app = BackgroundTaskMiddleware(
        responding(START, BODY, before=lambda: add_task(late)), runner=runner
    )
    for _ in range(8):
        asyncio.run(Connection().call(app))
    assert runner.stats()["queued"] == 1
    assert runner.stats()["cancelled"] == 7
    assert "their event loop was closed" in errors()[0]


def test_loop_closed_with_its_tasks_does_not_disturb_the_next() -> None:
    """R7: not every test runner cancels what is left."""
    runner = Runner()

    async def quick() -> None: ...

    app = BackgroundTaskMiddleware(
        responding(START, BODY, before=lambda: add_task(quick)), runner=runner
    )
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(Connection().call(app))
        for left in asyncio.all_tasks(loop):
            left._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
    assert runner.stats()["succeeded"] == 3


async def test_thread_that_cannot_be_started_fails_the_job_and_not_the_pool(
    make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1: the system may have no thread to give, for a while."""
    runner = await make_runner()

    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threads._Worker, "start", refuse)
        job = await runner.add_task(print)
        with pytest.raises(JobFailed, match="can't start new thread"):
            await job.result(5)
    job = await runner.add_task(str, 5)
    assert await job.result(5) == "5"
    assert_at_rest(runner)


async def test_call_closed_in_another_context_ends_quietly(make_runner: Any) -> None:
    """A server's garbage collector may do it."""
    runner = await make_runner()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(print, "never")
        await asyncio.Event().wait()

    middleware = BackgroundTaskMiddleware(app, runner=runner)
    call = middleware({"type": "http"}, Connection().receive, Connection().send)
    contextvars.copy_context().run(call.send, None)
    call.close()
    assert middleware.serving.count == 0
    assert runner.stats()["cancelled"] == 1
    assert_at_rest(runner)


async def test_dropped_job_frees_its_key() -> None:
    """J6, in memory: the request that is repeated queues it anew."""
    ran: list[int] = []
    once = task(ran.append).using(key="order-7")
    statuses = iter([500, 200])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(once, 7)
        await send({**START, "status": next(statuses)})
        await send(BODY)

    middleware = BackgroundTaskMiddleware(app, run_on="success")
    for _ in range(2):
        await Connection().call(middleware)
    assert ran == [7]


async def test_job_beyond_history_can_be_tried_again_by_who_keeps_it(make_runner: Any) -> None:
    """And one that was cancelled while it waited for a retry does not wait on."""
    runner = await make_runner(history=0)
    fail = [True]

    @task(retries=1, retry_delay=1000)
    def work() -> str:
        if fail:
            raise ValueError
        return "done"

    job = await runner.add_task(work)
    await until(lambda: runner._parts.registry.get(job.id).timer is not None)
    await runner.cancel(job.id)
    fail.clear()
    await runner.retry(job.id)
    assert await job.result(5) == "done"
    assert_at_rest(runner)


async def test_job_that_swallows_its_timeout_can_still_be_cancelled(make_runner: Any) -> None:
    """R5: each cancellation is tried."""
    runner = await make_runner()
    swallowed = asyncio.Event()

    @task(timeout=0.01)
    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        swallowed.set()
        await asyncio.sleep(60)

    job = await runner.add_task(stubborn)
    await swallowed.wait()
    await runner.cancel(job.id)
    with pytest.raises(JobFailed, match="cancelled by request"):
        await job.result(5)
    assert_at_rest(runner)


async def test_subscriber_that_exits_is_logged(make_runner: Any, errors: Any) -> None:
    """R9: `SystemExit` of a subscriber is its failure, and not the server's end."""

    def leave(event: JobEvent) -> None:
        raise SystemExit(1)

    runner = await make_runner(on_event=leave)
    job = await runner.add_task(str, 1)
    assert await job.result(5) == "1"
    assert len(errors()) == 3


@pytest.mark.parametrize("seed", range(6))
async def test_random_work_cancelled_and_tried_again_leaves_all_accounts_level(
    seed: int, make_runner: Any
) -> None:
    """R1 to R8 under stress: every job ends once each time it was queued, and nothing is left."""
    draw = random.Random(seed)
    ends: collections.Counter[str] = collections.Counter()
    queued: collections.Counter[str] = collections.Counter()

    def note(event: JobEvent) -> None:
        if event.name == "queued":
            queued[event.id] += 1
        elif event.job.status.is_final:
            ends[event.id] += 1

    runner = await make_runner(
        max_jobs=draw.choice([1, 2, 5, 50]),
        max_threads=draw.choice([2, 8]),
        ordered=draw.random() < 0.5,
        on_event=note,
    )

    @task(concurrency=2, timeout=0.05, retries=2, retry_delay=0.01)
    def in_thread(seconds: float) -> None:
        time.sleep(seconds)

    @task(concurrency=2, timeout=0.05, retries=1, retry_delay=0.01)
    async def on_loop(seconds: float) -> None:
        if seconds > 0.03:
            await asyncio.sleep(seconds)
        elif seconds > 0.02:
            raise ValueError

    def adds_more(seconds: float) -> None:
        add_task(in_thread.using(priority=draw.randrange(3)), seconds / 5)

    jobs: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(draw.randrange(5)):
            function: Any = draw.choice([in_thread, on_loop, adds_more])
            jobs.append(add_task(function, draw.random() * 0.08))
        await send({**START, "status": draw.choice([200, 500])})
        await send(BODY)

    async def client(middleware: Any) -> None:
        for _ in range(8):
            await Connection().call(middleware)
            for _ in range(draw.randrange(3)):
                job = draw.choice(jobs) if jobs else None
                if job is None:
                    continue
                if draw.random() < 0.5:
                    await runner.cancel(job.id)
                else:
                    with contextlib.suppress(ValueError, QueueFull):
                        await runner.retry(job.id)
                        queued[job.id] += 1
            await asyncio.sleep(draw.random() * 0.01)

    middleware = BackgroundTaskMiddleware(app, runner=runner, run_on="success")
    await asyncio.gather(*(client(middleware) for _ in range(6)))
    assert await runner.drain(60)
    await until(lambda: runner._parts.threads._abandoned == 0)
    assert ends == queued
    assert_at_rest(runner)
