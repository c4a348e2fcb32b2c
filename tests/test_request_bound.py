"""Without lifespan the jobs run inside the request's own call: R7."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, add_task, task
from tests.helpers import BODY, START, Connection, responding, until

pytestmark = pytest.mark.anyio


async def test_call_returns_when_its_jobs_are_done() -> None:
    """R7: async and sync jobs alike; the response has long gone out."""
    log: list[Any] = []

    async def slow() -> None:
        await asyncio.sleep(0.02)
        log.append("slow")

    def queue() -> None:
        add_task(slow)
        add_task(log.append, "sync")

    await Connection(log=log).call(BackgroundTaskMiddleware(responding(START, BODY, before=queue)))
    assert log == ["http.response.start", "http.response.body", "slow", "sync"]


async def test_cancelled_call_waits_for_its_jobs_and_is_cancelled_then() -> None:
    """R7: shielded from the cancellation of the call, however often the server repeats it."""
    log: list[Any] = []
    go = asyncio.Event()

    async def job() -> None:
        log.append("started")
        await go.wait()
        log.append("done")

    app = BackgroundTaskMiddleware(responding(START, BODY, before=lambda: add_task(job)))
    call = asyncio.ensure_future(Connection().call(app))
    await until(lambda: log)
    for _ in range(3):
        call.cancel()
        await asyncio.sleep(0)
        assert not call.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert log == ["started", "done"]


async def test_delay_and_retry_outlast_the_call_on_the_same_loop() -> None:
    """R7: the call does not wait for them; they run as long as the loop lives."""
    log: list[Any] = []

    @task(retries=1, retry_delay=0.02, retry_max_delay=0.02)
    def flaky() -> None:
        log.append("attempt")
        if log.count("attempt") == 1:
            raise ValueError("once")

    delayed = task(log.append).using(delay=1.0)

    def queue() -> None:
        add_task(flaky)
        add_task(delayed, "delayed")
        add_task(log.append, "next")

    app = BackgroundTaskMiddleware(responding(START, BODY, before=queue))
    await Connection().call(app)
    assert "next" in log
    assert "delayed" not in log
    await until(lambda: len(log) == 4)
    assert sorted(log) == ["attempt", "attempt", "delayed", "next"]


def test_every_request_may_have_a_loop_of_its_own() -> None:
    """R7: test clients run each request on a fresh loop; nothing of the last one is in the way."""
    ran: list[int] = []

    async def job(number: int) -> None:
        await asyncio.sleep(0)
        ran.append(number)

    numbers = iter(range(20))

    def queue() -> None:
        number = next(numbers)
        add_task(job, number)
        add_task(ran.append, number)

    app = BackgroundTaskMiddleware(responding(START, BODY, before=queue))
    for _ in range(20):
        asyncio.run(Connection().call(app))
    assert ran == [number for number in range(20) for _ in range(2)]
    assert app.runner.stats()["succeeded"] == 40
    assert len(app.runner._schedulers) == 1


async def test_call_thrown_away_by_the_server_drops_its_jobs(warnings_logged: Any) -> None:
    """A server that closes the coroutine without cancelling it gets no error for it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(print, "never")
        await send(START)
        await asyncio.Event().wait()

    call = BackgroundTaskMiddleware(app)({"type": "http"}, Connection().receive, Connection().send)
    with contextlib.suppress(StopIteration):
        call.send(None)
    call.close()
    assert ["1 job(s) dropped" in line for line in warnings_logged()] == [True]
