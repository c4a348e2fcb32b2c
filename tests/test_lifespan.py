"""Lifespan, spoken with the app and for it: R6."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, task
from tests.helpers import BODY, START, Connection, until

pytestmark = pytest.mark.anyio

STARTUP = {"type": "lifespan.startup"}
SHUTDOWN = {"type": "lifespan.shutdown"}
STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


class Server:
    """The server's side of one lifespan."""

    def __init__(self, app: Any) -> None:
        self._app = ApplicationCommunicator(app, {"type": "lifespan", "state": {}})

    async def startup(self) -> Any:
        await self._app.send_input(STARTUP)
        return await self._app.receive_output(5)

    async def ask_to_shut_down(self) -> None:
        await self._app.send_input(SHUTDOWN)

    async def shutdown(self) -> Any:
        await self.ask_to_shut_down()
        answer = await self._app.receive_output(10)
        await self._app.wait(5)
        return answer

    async def end(self) -> None:
        await self._app.wait(5)

    def cancel(self) -> None:
        assert self._app.future is not None
        self._app.future.cancel()

    @property
    def call(self) -> Any:
        return self._app.future


async def serve_request(scope: Any, receive: Any, send: Any) -> None:
    for function in scope["functions"]:
        add_task(function)
    await send(START)
    await send(BODY)


async def speaks(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        return await serve_request(scope, receive, send)
    assert await receive() == STARTUP
    await send(STARTED)
    assert await receive() == SHUTDOWN
    await send(STOPPED)


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        return await serve_request(scope, receive, send)
    raise ValueError("can only handle http, not lifespan")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await serve_request(scope, receive, send)


async def answers_anything(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        return await serve_request(scope, receive, send)
    await send(START)
    await send(BODY)


async def dies_at_startup(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        return await serve_request(scope, receive, send)
    await receive()
    raise RuntimeError("broken startup")


async def dies_later(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        return await serve_request(scope, receive, send)
    await receive()
    await send(STARTED)
    raise RuntimeError("died later")


async def leaves_later(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        return await serve_request(scope, receive, send)
    await receive()
    await send(STARTED)


async def forgets_the_end(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        return await serve_request(scope, receive, send)
    await receive()
    await send(STARTED)
    await receive()


APPS = [
    speaks,
    refuses,
    returns,
    answers_anything,
    dies_at_startup,
    dies_later,
    leaves_later,
    forgets_the_end,
]


@pytest.mark.parametrize("app", APPS)
async def test_every_app_is_supervised_and_drained(app: Any) -> None:
    """R6: whatever the app knows of lifespan, requests end before their jobs, shutdown after."""
    log: list[str] = []
    middleware = BackgroundTaskMiddleware(app)
    server = Server(middleware)
    assert await server.startup() == STARTED

    async def slow() -> None:
        await asyncio.sleep(0.05)
        log.append("job done")

    connection = Connection(log=log)
    connection.scope["functions"] = [slow]
    await connection.call(middleware)
    assert log == ["http.response.start", "http.response.body"]
    assert await server.shutdown() == STOPPED
    assert log[-1] == "job done"


async def test_app_shuts_down_only_after_the_jobs_are_done() -> None:
    """R6: while jobs run, what the app has opened is open."""
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await serve_request(scope, receive, send)
        await receive()
        log.append("opened")
        await send(STARTED)
        await receive()
        log.append("closed")
        await send(STOPPED)

    async def job() -> None:
        await asyncio.sleep(0.02)
        log.append("job done")

    middleware = BackgroundTaskMiddleware(app)
    server = Server(middleware)
    await server.startup()
    connection = Connection()
    connection.scope["functions"] = [job]
    await connection.call(middleware)
    await server.shutdown()
    assert log == ["opened", "job done", "closed"]


async def test_jobs_that_are_not_done_are_cancelled_before_the_app_closes() -> None:
    """R6: their cleanup still finds open what the app has opened; what waits never starts."""
    log: list[str] = []
    stop = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await serve_request(scope, receive, send)
        await receive()
        await send(STARTED)
        await receive()
        log.append("closed")
        await send(STOPPED)

    async def never_ends() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log.append("cleaned up")

    async def next_in_line() -> None:
        log.append("started after all")

    middleware = BackgroundTaskMiddleware(app, drain_timeout=0.05)
    server = Server(middleware)
    await server.startup()
    for functions in ([never_ends, next_in_line], [lambda: stop.wait(20), next_in_line]):
        connection = Connection()
        connection.scope["functions"] = functions
        await connection.call(middleware)
    await server.shutdown()
    stop.set()
    assert log == ["cleaned up", "closed"]


async def test_jobs_added_by_the_apps_shutdown_are_drained_too() -> None:
    """R6: the runner is open until the app has said that it is down."""
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()
        await middleware.runner.add_task(job)
        await send(STOPPED)

    async def job() -> None:
        await asyncio.sleep(0.02)
        log.append("job done")

    middleware = BackgroundTaskMiddleware(app)
    server = Server(middleware)
    await server.startup()
    await server.shutdown()
    assert log == ["job done"]


async def test_shutdown_waits_for_requests_being_served() -> None:
    """R6: first the requests, then their jobs."""
    log: list[str] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await speaks(scope, receive, send)
        add_task(log.append, "job")
        await go.wait()
        await send(START)
        await send(BODY)

    middleware = BackgroundTaskMiddleware(app)
    server = Server(middleware)
    await server.startup()
    request = asyncio.ensure_future(Connection(log=log).call(middleware))
    await until(lambda: middleware.serving.count == 1)
    down = asyncio.ensure_future(server.shutdown())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(down), 0.1)
    go.set()
    assert await down == STOPPED
    await request
    assert log == ["http.response.start", "http.response.body", "job"]


async def test_drain_timeout_bounds_requests_and_jobs_together(
    errors: Any, warnings_logged: Any
) -> None:
    """R6: what is not done by then is cancelled, and named in the log."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await speaks(scope, receive, send)
        add_task(task(name="never ends")(asyncio.sleep), 60)
        if scope["path"] == "/hang":
            await asyncio.sleep(60)
        await send(START)
        await send(BODY)

    middleware = BackgroundTaskMiddleware(app, drain_timeout=0.1)
    server = Server(middleware)
    await server.startup()
    await Connection().call(middleware)
    hanging = Connection()
    hanging.scope["path"] = "/hang"
    request = asyncio.ensure_future(hanging.call(middleware))
    await until(lambda: middleware.serving.count == 1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await server.shutdown() == STOPPED
    assert loop.time() - began < 5
    assert "1 request(s) still being served" in warnings_logged()[0]
    assert "2 job(s) were not done" in errors()[0]
    assert errors()[0].count("never ends") == 2
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


@pytest.mark.parametrize("raises", [True, False])
async def test_startup_failure_passes_through_unchanged(raises: bool) -> None:
    """R6: the app's own word, and what it raises after it, as Starlette does."""
    failed = {"type": "lifespan.startup.failed", "message": "no database"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(failed)
        if raises:
            raise RuntimeError("no database")

    middleware = BackgroundTaskMiddleware(app)
    server = Server(middleware)
    assert await server.startup() is failed
    if raises:
        with pytest.raises(RuntimeError, match="no database"):
            await server.end()
    else:
        await server.end()
    assert not middleware.runner.scheduler().is_supervised


@pytest.mark.parametrize("polite", [True, False])
async def test_shutdown_failure_passes_through_unchanged(polite: bool) -> None:
    """R6: as a message, or as an exception."""
    failed = {"type": "lifespan.shutdown.failed", "message": "stuck"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()
        if polite:
            await send(failed)
        else:
            raise RuntimeError("stuck")

    server = Server(BackgroundTaskMiddleware(app))
    await server.startup()
    if polite:
        assert await server.shutdown() is failed
    else:
        await server.ask_to_shut_down()
        with pytest.raises(RuntimeError, match="stuck"):
            await server.end()


async def test_death_of_the_lifespan_is_logged_with_its_traceback(errors: Any) -> None:
    """R6: the app is answered for, and its error is not hidden by that."""
    server = Server(BackgroundTaskMiddleware(dies_later))
    await server.startup()
    await server.shutdown()
    assert len(errors()) == 1
    assert "lifespan ended with an error" in errors()[0]


async def test_app_without_lifespan_is_no_error(errors: Any, warnings_logged: Any) -> None:
    """R6: Django refuses the scope in this way, and nothing is wrong."""
    server = Server(BackgroundTaskMiddleware(refuses))
    await server.startup()
    await server.shutdown()
    assert errors() == warnings_logged() == []


async def test_cancelled_lifespan_cancels_the_jobs(errors: Any) -> None:
    """A second Ctrl-C ends the lifespan without a shutdown: nothing is waited for."""
    log: list[str] = []

    async def job() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log.append("cancelled")

    middleware = BackgroundTaskMiddleware(speaks)
    server = Server(middleware)
    await server.startup()
    connection = Connection()
    connection.scope["functions"] = [job]
    await connection.call(middleware)
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.call
    assert log == ["cancelled"]
    assert "1 job(s) were not done" in errors()[0]


async def test_app_is_started_and_stopped_again() -> None:
    """Test clients do so with one app."""
    middleware = BackgroundTaskMiddleware(speaks)
    ran: list[str] = []
    for _ in range(3):
        server = Server(middleware)
        await server.startup()
        connection = Connection()
        connection.scope["functions"] = [lambda: ran.append("job")]
        await connection.call(middleware)
        await server.shutdown()
    assert ran == ["job"] * 3


async def test_two_middlewares_share_a_runner_through_one_lifespan() -> None:
    """M7, R6: one inside the other; the runner is started and closed once, in effect."""
    runner = Runner()
    inner = BackgroundTaskMiddleware(speaks, runner=runner)
    middleware = BackgroundTaskMiddleware(inner, runner=runner)
    server = Server(middleware)
    await server.startup()
    ran: list[str] = []
    connection = Connection()
    connection.scope["functions"] = [lambda: ran.append("job")]
    await connection.call(middleware)
    await server.shutdown()
    assert ran == ["job"]


async def test_task_group_of_the_app_that_dies_is_survived(caplog: Any) -> None:
    """R6: a failing task in a group of the lifespan cancels it from inside."""
    import anyio

    crash = asyncio.Event()

    async def crashing() -> None:
        await crash.wait()
        raise RuntimeError("in the group")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(crashing)
            await receive()
            await send(STARTED)
            await receive()
            await send(STOPPED)

    caplog.set_level(logging.ERROR, "asgi_bg")
    server = Server(BackgroundTaskMiddleware(app))
    assert await server.startup() == STARTED
    crash.set()
    await until(lambda: caplog.records)
    assert await server.shutdown() == STOPPED


@pytest.mark.parametrize("speaks", [True, False])
async def test_runner_that_cannot_start_stops_the_startup(speaks: bool, tmp_path: Path) -> None:
    """J9, R6: the server is told why, and nothing is raised; it does not serve then."""
    journal = tmp_path / "no database"
    journal.write_text("this is something else" * 100)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not speaks:
            raise NotImplementedError
        await receive()
        await send({"type": "lifespan.startup.complete"})

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    wrapped = BackgroundTaskMiddleware(app, journal=journal)
    await wrapped({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "no SQLite file" in sent[0]["message"]
