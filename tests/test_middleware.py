"""The middleware in its stack: M1, M4, M7, M8, and bad arguments."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import anyio.to_thread
import pytest

import asgi_bg._scheduling.scheduler
from asgi_bg import BackgroundTaskMiddleware, BackgroundTasks, Runner, add_task
from asgi_bg.exceptions import MiddlewareNotInstalled, ResponseEnded
from tests.helpers import BODY, START, Connection, responding, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_collector_is_set_in_place_on_the_scope_passed_in(kind: str) -> None:
    """M1: on that very dictionary, as outer middleware reads what inner code writes there."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, scope["asgi_bg"]))
        scope["route"] = "/x"

    connection = Connection(kind=kind)
    await connection.call(BackgroundTaskMiddleware(app))

    scope, tasks = seen[0]
    assert scope is connection.scope
    assert connection.scope["route"] == "/x"
    assert isinstance(tasks, BackgroundTasks)
    assert BackgroundTasks.from_scope(scope) is tasks


async def test_other_scopes_pass_untouched() -> None:
    """A scope type that is not ours gets no collector."""
    connection = Connection(kind="something.new")
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((dict(scope), receive, send))

    await connection.call(BackgroundTaskMiddleware(app))
    assert "asgi_bg" not in seen[0][0]
    assert seen[0][1:] == (connection.receive, connection.send)


async def test_jobs_start_after_response_and_return_and_cleanup(make_runner: Any) -> None:
    """M4: first the response, then the app's own cleanup, then the jobs, the cleanup's last."""
    log: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(log.append, "job 1")
        await send(START)
        add_task(log.append, "job 2")
        await send(BODY)
        await asyncio.sleep(0.01)
        add_task(log.append, "job of the cleanup")
        log.append("app returned")

    runner = await make_runner()
    await Connection(log=log).call(BackgroundTaskMiddleware(app, runner=runner))
    await runner.drain()

    assert log == [
        "http.response.start",
        "http.response.body",
        "app returned",
        "job 1",
        "job 2",
        "job of the cleanup",
    ]


async def test_interleaved_requests_keep_their_jobs_apart(make_runner: Any) -> None:
    """M4, R2: two requests at once; each one's jobs follow its own response, in its order."""
    log: list[Any] = []
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        name = scope["name"]
        add_task(log.append, f"{name} 1")
        await send(START)
        await gates[name].wait()
        await send(BODY)
        add_task(log.append, f"{name} 2")

    runner = await make_runner()
    middleware = BackgroundTaskMiddleware(app, runner=runner)
    calls = {}
    for name in "ab":
        connection = Connection(log=[])
        connection.scope["name"] = name
        calls[name] = asyncio.ensure_future(connection.call(middleware))
    await asyncio.sleep(0)
    gates["b"].set()
    await until(lambda: len(log) == 2)
    assert log == ["b 1", "b 2"]
    gates["a"].set()
    await asyncio.gather(*calls.values())
    await runner.drain()
    assert log == ["b 1", "b 2", "a 1", "a 2"]


@pytest.mark.parametrize("when", ["before the end", "after the end"])
async def test_app_that_never_returns_has_its_jobs_started(
    when: str, make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M4: on one server the last `send` never returns; 5 s later (here less) the jobs start."""
    monkeypatch.setattr(asgi_bg._scheduling.scheduler, "RETURN_TIMEOUT", 0.05)
    log: list[Any] = []
    hang = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if when == "before the end":
            add_task(log.append, "job")
        await send(START)
        await send(BODY)
        if when == "after the end":
            add_task(log.append, "job")
        await hang.wait()
        add_task(log.append, "late job")

    runner = await make_runner()
    middleware = BackgroundTaskMiddleware(app, runner=runner)
    call = asyncio.ensure_future(Connection(log=log).call(middleware))
    await until(lambda: "job" in log)
    assert not call.done()
    assert middleware.serving.count == 0
    hang.set()
    await call
    await runner.drain()
    assert log == ["http.response.start", "http.response.body", "job", "late job"]


@pytest.mark.parametrize("error", [ValueError("late"), asyncio.CancelledError(), SystemExit(3)])
async def test_app_that_fails_after_the_end_has_its_jobs_run(error: BaseException) -> None:
    """M4: they start all the same, and what it raised goes on as before."""
    connection = Connection()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(connection.log.append, "job")
        await send(START)
        await send(BODY)
        raise error

    with pytest.raises(type(error)) as caught:
        await connection.call(BackgroundTaskMiddleware(app))
    assert caught.value is error
    assert connection.log[-1] == "job"


async def test_nested_middlewares_with_one_runner_act_as_one() -> None:
    """M7: one collector, one run."""
    runner = Runner()
    connection = Connection()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["asgi_bg"])
        add_task(connection.log.append, "job")
        await send(START)
        await send(BODY)

    inner = BackgroundTaskMiddleware(app, runner=runner)

    async def between(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["asgi_bg"])
        await inner(scope, receive, send)

    await connection.call(BackgroundTaskMiddleware(between, runner=runner))
    assert seen[0] is seen[1]
    assert connection.log[2:] == ["job"]


async def test_nested_middlewares_with_own_runners_serve_their_parts() -> None:
    """M7: the inner one serves what is inside of it, and gives the outer collector back."""
    connection = Connection()
    ran: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(ran.append, "inner")
        await send(START)
        await send(BODY)

    inner = BackgroundTaskMiddleware(app)

    async def between(scope: Any, receive: Any, send: Any) -> None:
        outer_tasks = scope["asgi_bg"]
        add_task(ran.append, "outer before")
        await inner(scope, receive, send)
        assert scope["asgi_bg"] is outer_tasks
        add_task(ran.append, "outer after")

    outer = BackgroundTaskMiddleware(between)
    await connection.call(outer)
    assert ran == ["inner", "outer before", "outer after"]
    assert inner.runner.stats()["succeeded"] == 1
    assert outer.runner.stats()["succeeded"] == 2


async def test_add_task_from_worker_threads_and_depths_reaches_the_request() -> None:
    """M8: from the loop, from a thread as sync endpoints have, from code without the request."""
    connection = Connection()

    def deep() -> None:
        add_task(connection.log.append, threading.current_thread() is threading.main_thread())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        deep()
        await anyio.to_thread.run_sync(deep)
        scope["asgi_bg"].add_task(connection.log.append, len(scope["asgi_bg"]))
        await send(START)
        await send(BODY)

    await connection.call(BackgroundTaskMiddleware(app))
    assert connection.log[2:] == [True, False, 2]


async def test_add_task_without_middleware_says_how_to_install_it() -> None:
    """M8: the message is the manual."""
    with pytest.raises(MiddlewareNotInstalled, match=r"BackgroundTaskMiddleware\(app\)"):
        add_task(print)
    with pytest.raises(MiddlewareNotInstalled, match="app.add_middleware"):
        BackgroundTasks.from_scope({"type": "http"})


async def test_running_task_adds_more_and_the_sealed_collector_refuses(make_runner: Any) -> None:
    """M8: while a job of the request runs there may be more; after the last there may not."""
    log: list[Any] = []
    kept: list[BackgroundTasks] = []

    def first() -> None:
        log.append("first")
        add_task(second)

    async def second() -> None:
        log.append("second")
        add_task(log.append, "third")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(scope["asgi_bg"])
        add_task(first)
        await send(START)
        await send(BODY)

    runner = await make_runner()
    await Connection().call(BackgroundTaskMiddleware(app, runner=runner))
    await runner.drain()
    assert log == ["first", "second", "third"]
    with pytest.raises(ResponseEnded, match="runner.add_task"):
        kept[0].add_task(log.append, "too late")
    assert runner.stats()["queued"] == 0


async def test_request_without_tasks_seals_its_collector(make_runner: Any) -> None:
    """M8: also where nothing was ever added."""
    runner = await make_runner()
    connection = Connection()
    await connection.call(BackgroundTaskMiddleware(responding(START, BODY), runner=runner))
    with pytest.raises(ResponseEnded):
        connection.scope["asgi_bg"].add_task(print)


async def test_collector_variable_is_reset_after_the_call() -> None:
    """M7: code outside of the middleware is outside again."""
    await Connection().call(BackgroundTaskMiddleware(responding(START, BODY)))
    with pytest.raises(MiddlewareNotInstalled):
        add_task(print)


async def test_finished_request_leaves_no_reference_cycle(make_runner: Any) -> None:
    """A cycle in each request would have the garbage collector make the slowest ones slow."""
    runner = await make_runner(history=1)

    class Server:
        """Holds the scope, and is held by `send`, as the call object of a server does."""

        def __init__(self, app: Any) -> None:
            self.scope = {"type": "http"}
            self.app = app

        async def send(self, message: Any) -> None: ...

        async def receive(self) -> Any: ...

        async def run(self) -> None:
            await self.app(self.scope, self.receive, self.send)

    async def pause() -> None:
        await asyncio.sleep(0)

    def fail() -> None:
        raise ValueError

    tasks = [(), (pause,), (print,), (pause, print, pause), (fail,)]
    gc.collect()
    gc.disable()
    try:
        for functions in tasks:

            def queue(functions: Any = functions) -> None:
                for function in functions:
                    add_task(function)

            app = BackgroundTaskMiddleware(responding(START, BODY, before=queue), runner=runner)
            server = Server(app)
            gone = weakref.ref(server)
            await server.run()
            await runner.drain()
            del server
            assert gone() is None, functions
    finally:
        gc.enable()


def test_bad_arguments_are_refused_with_reasons() -> None:
    """Errors tell what was expected, what came, and what to do."""
    app = responding(START, BODY)
    with pytest.raises(TypeError, match="must be an ASGI application, got None"):
        BackgroundTaskMiddleware(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="either runner= or its options"):
        BackgroundTaskMiddleware(app, runner=Runner(), max_jobs=3)
    with pytest.raises(TypeError, match="asgi_bg.Runner"):
        BackgroundTaskMiddleware(app, runner="mine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'response', 'success' or 'always'"):
        BackgroundTaskMiddleware(app, run_on="ok")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_job"):
        BackgroundTaskMiddleware(app, max_job=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="max_jobs must be 1 or more, got 0"):
        BackgroundTaskMiddleware(app, max_jobs=0)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_send_that_hangs_as_the_client_left(make_runner: Any, gone: bool) -> None:
    """M6: cancelled within it, the server tells why; else the app was cancelled (M5)."""
    runner = await make_runner()
    ran: list[str] = []
    sending = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(ran.append, "ran")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a part", "more_body": True})

    async def receive() -> Any:
        if not gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.Event().wait()

    wrapped = BackgroundTaskMiddleware(app, runner=runner)
    call = asyncio.ensure_future(wrapped({"type": "http"}, receive, send))
    await sending.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await runner.drain(5)
    assert ran == (["ran"] if gone else [])
