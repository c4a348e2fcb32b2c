"""The collector by itself, and against threads that add until the last moment: M8."""

from __future__ import annotations

import threading
from typing import Any

import anyio.to_thread
import pytest

from asgi_bg import BackgroundTaskMiddleware, BackgroundTasks, task
from asgi_bg._task import as_task
from asgi_bg.exceptions import ResponseEnded
from tests.helpers import BODY, START, Connection

pytestmark = pytest.mark.anyio


async def test_length_and_iteration_are_those_of_the_waiting_jobs(make_runner: Any) -> None:
    """Contract 2: `len()` and iteration; an empty collector is a collector all the same."""
    runner = await make_runner()
    tasks = BackgroundTasks(runner.scheduler())
    assert len(tasks) == 0
    assert bool(tasks)
    jobs = [tasks.add_task(print, n) for n in range(3)]
    assert list(tasks) == jobs
    assert len(tasks) == 3
    assert repr(tasks) == "<BackgroundTasks, 3 waiting>"
    for record in tasks.take() or ():
        runner.scheduler().withdraw(record, "test")
    assert tasks.take() is None
    assert tasks.seal()
    assert repr(tasks) == "<BackgroundTasks, sealed>"


async def test_keyed_job_is_gathered_once(make_runner: Any) -> None:
    """J6, in memory: a second one with its key adds nothing to the request."""
    runner = await make_runner()
    tasks = BackgroundTasks(runner.scheduler())
    once = task(print).using(key="k")
    assert tasks.add_task(once) is tasks.add_task(once)
    assert len(tasks) == 1
    for record in tasks.take() or ():
        runner.scheduler().withdraw(record, "test")


async def test_seal_fails_while_a_job_waits(make_runner: Any) -> None:
    """And leaves the collector open."""
    runner = await make_runner()
    tasks = BackgroundTasks(runner.scheduler())
    tasks.add_task(print)
    assert not tasks.seal()
    tasks.add_task(print)
    for record in tasks.take() or ():
        runner.scheduler().withdraw(record, "test")


async def test_job_added_as_the_collector_is_sealed_is_refused(make_runner: Any) -> None:
    """M8: between the look and the entry somebody seals; the job is taken back, and said so."""
    runner = await make_runner()
    tasks = BackgroundTasks(runner.scheduler())
    admit = tasks._queue.admit

    class SealingQueue:
        task_of = staticmethod(as_task)

        def admit(self, *call: Any) -> Any:
            assert tasks.seal()
            return admit(*call)

        withdraw = staticmethod(runner.scheduler().withdraw)

    tasks._queue = SealingQueue()
    with pytest.raises(ResponseEnded):
        tasks.add_task(print)
    assert len(tasks) == 0
    assert runner.stats()["queued"] == 0
    assert runner.stats()["cancelled"] == 1


async def test_threads_that_add_to_the_last_lose_nothing(make_runner: Any) -> None:
    """M8: every job of a racing thread either runs, or its `add_task` has raised."""
    runner = await make_runner()
    ran: list[tuple[int, int]] = []
    accepted: list[tuple[int, int]] = []
    threads: list[threading.Thread] = []

    def race(number: int, tasks: BackgroundTasks, begin: threading.Event) -> None:
        begin.wait(10)
        for step in range(10_000):
            try:
                tasks.add_task(ran.append, (number, step))
            except ResponseEnded:
                return
            accepted.append((number, step))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begin = threading.Event()
        for _ in range(2):
            arguments = (len(threads), scope["asgi_bg"], begin)
            threads.append(threading.Thread(target=race, args=arguments))
            threads[-1].start()
        await send(START)
        await send(BODY)
        begin.set()

    middleware = BackgroundTaskMiddleware(app, runner=runner)
    for _ in range(50):
        await Connection().call(middleware)
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    await runner.drain(30)
    assert sorted(ran) == sorted(accepted)
    assert runner.stats()["queued"] == 0
