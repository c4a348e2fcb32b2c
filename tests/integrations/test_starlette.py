"""`asgi_bg.starlette`, on a real Starlette."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask as StarlettesOwn
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task
from asgi_bg.exceptions import JobFailed, MiddlewareNotInstalled
from asgi_bg.starlette import BackgroundTask, BackgroundTasks, get_runner, init_app, tasks_from


def _fail() -> None:
    raise ValueError("task")


def _app(log: list[Any]) -> Starlette:
    async def from_request(request: Request) -> PlainTextResponse:
        tasks_from(request).add_task(log.append, "request")
        return PlainTextResponse("ok")

    def sync_endpoint(request: Request) -> PlainTextResponse:
        add_task(log.append, "sync endpoint")
        return PlainTextResponse("ok")

    def as_before(request: Request) -> PlainTextResponse:
        tasks = BackgroundTasks()
        tasks.add_task(_fail)
        tasks.add_task(log.append, "behind a failing one")
        return PlainTextResponse("ok", background=tasks)

    def single(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(log.append, "single"))

    def http_error(request: Request) -> None:
        add_task(log.append, "before an HTTP error")
        raise HTTPException(418)

    def crash(request: Request) -> None:
        add_task(log.append, "before a crash")
        raise RuntimeError("endpoint")

    async def stream(request: Request) -> StreamingResponse:
        async def parts() -> Any:
            yield b"one"
            add_task(log.append, "while streaming")
            yield b"two"

        return StreamingResponse(parts())

    async def websocket(socket: WebSocket) -> None:
        await socket.accept()
        add_task(log.append, await socket.receive_text())
        await socket.close()

    return Starlette(
        routes=[
            Route("/request", from_request),
            Route("/sync", sync_endpoint),
            Route("/as-before", as_before),
            Route("/single", single),
            Route("/http-error", http_error),
            Route("/crash", crash),
            Route("/stream", stream),
            WebSocketRoute("/ws", websocket),
            Mount("/sub", routes=[Route("/request", from_request)]),
        ]
    )


PATHS = [
    ("/request", 200, ["request"]),
    ("/sub/request", 200, ["request"]),
    ("/sync", 200, ["sync endpoint"]),
    ("/as-before", 200, ["behind a failing one"]),
    ("/single", 200, ["single"]),
    ("/http-error", 418, ["before an HTTP error"]),
    ("/stream", 200, ["while streaming"]),
    ("/crash", 500, []),
]


@pytest.mark.parametrize(("path", "status", "expected"), PATHS)
@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_tasks_run_from_every_kind_of_endpoint(
    path: str, status: int, expected: list[str], supervised: bool, inside: bool, log: list[Any]
) -> None:
    """M7: inside the application's own stack and around it, with lifespan and without.

    M5: only from the outside there is an ended response to see where an endpoint crashes,
    the 500 that Starlette sends outside of its own middleware.
    """
    if path == "/crash" and not inside:
        expected = ["before a crash"]
    app: Any = _app(log)
    if inside:
        init_app(app)
    else:
        app = BackgroundTaskMiddleware(app)
    client = TestClient(app, raise_server_exceptions=False)
    if supervised:
        with client:
            assert client.get(path).status_code == status
    else:
        assert client.get(path).status_code == status
    assert log == expected


def test_websocket_tasks_run_when_it_is_closed(log: list[Any]) -> None:
    """M3 through Starlette."""
    app = _app(log)
    init_app(app)
    with TestClient(app).websocket_connect("/ws") as socket:
        socket.send_text("hello")
    assert log == ["hello"]


def test_base_http_middleware_around_and_inside_changes_nothing(log: list[Any]) -> None:
    """It runs the inner app in another task: the collector must be found there."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            log.append("dispatched")
            return response

    app = _app(log)
    app.add_middleware(Passing)
    app.add_middleware(BackgroundTaskMiddleware)
    app.add_middleware(Passing)
    with TestClient(app) as client:
        assert client.get("/request").text == "ok"
    assert sorted(log) == ["dispatched", "dispatched", "request"]


def test_middleware_class_in_the_constructor(log: list[Any]) -> None:
    """As `Middleware(...)`, with options."""
    app = Starlette(
        routes=_app(log).routes,
        middleware=[Middleware(BackgroundTaskMiddleware, run_on="success", max_jobs=5)],
    )
    with TestClient(app) as client:
        client.get("/http-error")
        client.get("/request")
    assert log == ["request"]


def test_get_runner_finds_what_init_app_made(log: list[Any]) -> None:
    """And says what to do where there is none."""
    app = _app(log)
    with pytest.raises(MiddlewareNotInstalled, match="init_app"):
        get_runner(app)
    runner = init_app(app, history=5)
    assert get_runner(app) is runner
    with pytest.raises(TypeError, match="either runner= or its options"):
        init_app(_app(log), runner=runner, history=5)
    own = Runner()
    other = _app(log)
    assert init_app(other, runner=own) is own


def test_job_of_a_background_task_can_be_followed(log: list[Any]) -> None:
    """The compatible classes give the job as well."""
    jobs: list[Any] = []

    def endpoint(request: Request) -> PlainTextResponse:
        tasks = BackgroundTasks()
        jobs.append(tasks.add_task(str, 5))
        jobs.append(BackgroundTask(_fail).job)
        return PlainTextResponse("ok", background=tasks)

    async def results(request: Request) -> PlainTextResponse:
        with pytest.raises(JobFailed):
            await jobs[1].result(5)
        return PlainTextResponse(await jobs[0].result(5))

    app = Starlette(routes=[Route("/", endpoint), Route("/results", results)])
    init_app(app)
    with TestClient(app) as client:
        client.get("/")
        assert client.get("/results").text == "5"


def test_background_task_is_what_starlettes_is(log: list[Any]) -> None:
    """For code that looks at what it holds."""

    def endpoint(request: Request) -> PlainTextResponse:
        made = BackgroundTask(log.append, "done")
        assert isinstance(made, StarlettesOwn)
        assert (made.func, made.args, made.kwargs) == (log.append, ("done",), {})
        return PlainTextResponse("ok", background=made)

    app = Starlette(routes=[Route("/", endpoint)])
    init_app(app)
    with TestClient(app) as client:
        assert client.get("/").text == "ok"
    assert log == ["done"]


def test_without_middleware_the_endpoint_says_so() -> None:
    """M8."""

    def endpoint(request: Request) -> PlainTextResponse:
        BackgroundTasks().add_task(print)
        return PlainTextResponse("never")

    with pytest.raises(MiddlewareNotInstalled, match="add_middleware"):
        TestClient(Starlette(routes=[Route("/", endpoint)])).get("/")
