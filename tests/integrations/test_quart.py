"""`asgi_bg.quart`, on a real Quart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobStatus, Runner, add_task, task
from asgi_bg import BackgroundTasks as Collector
from asgi_bg.exceptions import JobFailed, JournalError, MiddlewareNotInstalled
from tests.helpers import need, until
from tests.integrations.serving import servers_of
from tests.servers.harness import DEADLINE, HYPERCORN, UVICORN, Server

need("quart")

from quart import Blueprint, Quart, abort, current_app, request, stream_with_context, websocket  # noqa: E402
from quart.testing.app import LifespanError  # noqa: E402
from quart.testing.connections import WebsocketDisconnectError  # noqa: E402
from quart.utils import run_sync  # noqa: E402

from asgi_bg.quart import BackgroundTasks, get_runner, init_app, tasks_from  # noqa: E402

pytestmark = pytest.mark.anyio

tasks = BackgroundTasks()
"""One for all requests, as Quart's ``request`` is."""


def _fail() -> None:
    raise ValueError("task")


def _app(log: list[Any]) -> Quart:
    app = Quart("shop")
    blueprint = Blueprint("inner", __name__, url_prefix="/inner")

    @app.get("/handle")
    async def handle() -> str:
        assert tasks
        assert len(tasks) == 0
        job = tasks.add_task(log.append, "handle")
        assert list(tasks) == [job]
        return job.id

    @app.get("/in-handler")
    async def in_handler() -> str:
        BackgroundTasks().add_task(log.append, "in the handler")
        return "ok"

    @app.get("/request")
    async def from_request() -> str:
        collector = tasks_from(request)
        assert type(collector) is Collector
        assert BackgroundTasks.from_scope(request.scope) is collector
        collector.add_task(log.append, "request")
        return "ok"

    @app.get("/thread")
    def in_thread() -> str:
        assert threading.current_thread() is not threading.main_thread()
        tasks.add_task(log.append, "thread")
        tasks_from(request).add_task(log.append, "request in a thread")
        return "ok"

    @app.get("/run-sync")
    async def in_run_sync() -> str:
        await run_sync(add_task)(log.append, "run_sync")
        return "ok"

    @app.get("/gather")
    async def in_subtasks() -> str:
        async def one(word: str) -> None:
            add_task(log.append, word)

        await asyncio.gather(one("first"), one("second"))
        return "ok"

    @app.get("/http-error")
    async def http_error() -> str:
        tasks.add_task(log.append, "before an HTTP error")
        abort(418)

    @app.get("/crash")
    async def crash() -> str:
        tasks.add_task(log.append, "before a crash")
        raise RuntimeError("handler")

    @app.get("/failing-task")
    async def failing_task() -> str:
        tasks.add_task(_fail)
        tasks.add_task(log.append, "behind a failing one")
        return "ok"

    @app.get("/stream")
    async def stream() -> Any:
        @stream_with_context
        async def parts() -> AsyncGenerator[bytes, None]:
            yield b"one"
            tasks.add_task(log.append, f"while streaming {request.path}")
            yield b"two"

        return parts(), 200

    @app.get("/sync-stream")
    def sync_stream() -> Any:
        def parts() -> Iterator[bytes]:
            yield b"one"
            add_task(log.append, "while streaming in a thread")
            yield b"two"

        return parts(), 200

    @app.get("/context")
    async def context() -> str:
        async def of_the_job() -> None:
            log.append(f"{current_app.name} {request.path}")

        tasks.add_task(of_the_job)
        tasks.add_task(lambda: log.append(f"{current_app.name} in a thread"))
        return "ok"

    @blueprint.get("/")
    async def inner() -> str:
        tasks.add_task(log.append, "blueprint")
        return "ok"

    app.register_blueprint(blueprint)
    return app


CASES: dict[str, tuple[int, list[str]]] = {
    "/handle": (200, ["handle"]),
    "/in-handler": (200, ["in the handler"]),
    "/request": (200, ["request"]),
    "/thread": (200, ["thread", "request in a thread"]),
    "/run-sync": (200, ["run_sync"]),
    "/gather": (200, ["first", "second"]),
    "/http-error": (418, ["before an HTTP error"]),
    "/crash": (500, ["before a crash"]),
    "/failing-task": (200, ["behind a failing one"]),
    "/stream": (200, ["while streaming /stream"]),
    "/sync-stream": (200, ["while streaming in a thread"]),
    "/context": (200, ["shop /context", "shop in a thread"]),
    "/inner/": (200, ["blueprint"]),
}


class _Unopened:
    """An application whose lifespan is never started (R7)."""

    def __init__(self, app: Quart) -> None:
        self._app = app

    async def __aenter__(self) -> Any:
        return self._app

    async def __aexit__(self, *exc_info: object) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["supervised", "request-bound"])
def serving(request: pytest.FixtureRequest) -> Callable[[Quart], Any]:
    """Open an application with its lifespan (R6), as ``test_app()`` does, or without (R7)."""
    return Quart.test_app if request.param else _Unopened


@pytest.mark.parametrize("path", CASES)
async def test_tasks_run_from_every_kind_of_handler(
    path: str, serving: Any, log: list[Any]
) -> None:
    """M4, M7, M8, R3, R4: with lifespan and without; an error response has ended too."""
    app = _app(log)
    init_app(app)
    status, expected = CASES[path]
    async with serving(app) as served:
        response = await served.test_client().get(path)
        assert response.status_code == status
    assert log == expected


@pytest.mark.parametrize(
    ("run_on", "expected"),
    [("response", ["before an HTTP error", "before a crash"]), ("success", [])],
)
async def test_run_on_sees_the_status_that_quart_makes_of_an_error(
    run_on: Any, expected: list[str], serving: Any, log: list[Any]
) -> None:
    """M5."""
    app = _app(log)
    init_app(app, run_on=run_on)
    async with serving(app) as served:
        client = served.test_client()
        assert (await client.get("/http-error")).status_code == 418
        assert (await client.get("/crash")).status_code == 500
        assert (await client.get("/handle")).status_code == 200
    assert sorted(log) == sorted([*expected, "handle"])  # requests do not wait for each other


@pytest.mark.parametrize("run_on", ["response", "always"])
async def test_run_on_where_errors_propagate(run_on: Any, serving: Any, log: list[Any]) -> None:
    """M5: with ``PROPAGATE_EXCEPTIONS`` a handler that fails leaves no response."""
    app = _app(log)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    init_app(app, run_on=run_on)
    async with serving(app) as served:
        try:
            await served.test_client().get("/crash")
        except RuntimeError:
            is_answered = False
        else:
            is_answered = True  # Quart 0.19 answers with the traceback
    assert log == (["before a crash"] if is_answered or run_on == "always" else [])


async def test_hooks_of_the_application_can_add_tasks(serving: Any, log: list[Any]) -> None:
    """M8: before, after and at the teardown of the request."""
    app = _app(log)
    init_app(app)

    @app.before_request
    async def before() -> None:
        tasks.add_task(log.append, "before")

    @app.after_request
    async def after(response: Any) -> Any:
        tasks.add_task(log.append, "after")
        return response

    @app.teardown_request
    async def teardown(exc: Any) -> None:
        tasks.add_task(log.append, "teardown")

    @app.errorhandler(404)
    async def not_found(exc: Any) -> Any:
        tasks.add_task(log.append, "not found")
        return "nothing here", 404

    async with serving(app) as served:
        await served.test_client().get("/in-handler")
        await until(lambda: len(log) == 4, 40)
        assert (await served.test_client().get("/nowhere")).status_code == 404
    expected = ["before", "in the handler", "after", "teardown"]
    assert log == [*expected, "before", "not found", "after", "teardown"]


async def test_websockets(serving: Any, log: list[Any]) -> None:
    """M3: the jobs of a session run when it is closed, by either side."""
    app = _app(log)
    init_app(app)

    @app.websocket("/once")
    async def once() -> None:
        tasks.add_task(log.append, await websocket.receive())
        assert tasks_from(websocket) is BackgroundTasks.from_scope(websocket.scope)
        log.append("closing")

    @app.websocket("/echo")
    async def echo() -> None:
        while True:
            word = await websocket.receive()
            tasks.add_task(log.append, word)
            await websocket.send(word)

    async with serving(app) as served:
        async with served.test_client().websocket("/once") as client:
            await client.send("hello")
            with pytest.raises(WebsocketDisconnectError):
                await client.receive()
        async with served.test_client().websocket("/echo") as client:
            for word in ("one", "two"):
                await client.send(word)
                assert await client.receive() == word
            assert "one" not in log
    assert log[0] == "closing"
    assert log.index("one") < log.index("two")
    assert sorted(log[1:]) == ["hello", "one", "two"]


async def test_both_kinds_of_background_tasks(serving: Any, log: list[Any]) -> None:
    """Quart's start at once and are its own; a failure of the one leaves the other alone."""
    app = Quart("shop")
    init_app(app)

    @app.get("/")
    async def handler() -> str:
        tasks.add_task(log.append, "ours")
        app.add_background_task(_fail)
        app.add_background_task(log.append, "Quart's")
        app.add_background_task(add_task, log.append, "ours by Quart's")
        tasks.add_task(_fail)
        await until(lambda: len(tasks) == 3 and log, 40)
        return "ok"

    async with app.test_app() if serving is Quart.test_app else serving(app) as served:
        assert (await served.test_client().get("/")).status_code == 200
        await until(lambda: len(log) == 3, 40)
    assert log == ["Quart's", "ours", "ours by Quart's"]


async def test_around_the_whole_application_as_well(log: list[Any]) -> None:
    """M7: two that share a runner act as one."""
    app = _app(log)
    runner = init_app(app)
    whole: Any = app
    whole.asgi_app = BackgroundTaskMiddleware(app.asgi_app, runner=runner)
    async with app.test_app() as served:
        await served.test_client().get("/handle")
    assert log == ["handle"]


async def test_runner_is_given_made_and_found(log: list[Any]) -> None:
    """And the collector and the runner say how to install them where there are none (M8)."""
    app = _app(log)
    with pytest.raises(MiddlewareNotInstalled, match="init_app"):
        get_runner(app)
    runner = init_app(app, history=5)
    assert get_runner(app) is runner
    with pytest.raises(TypeError, match="either runner= or its options"):
        init_app(app, runner=runner, history=5)
    own = Runner()
    assert init_app(_app(log), runner=own) is own
    async with app.app_context():
        assert get_runner(current_app) is runner
    for use in (len, list, lambda tasks: tasks.add_task(print)):
        with pytest.raises(MiddlewareNotInstalled, match="no request is being served"):
            use(tasks)
    async with _app(log).test_request_context("/"):
        with pytest.raises(MiddlewareNotInstalled, match="BackgroundTaskMiddleware"):
            tasks_from(request)


async def test_jobs_can_be_followed(log: list[Any]) -> None:
    """Whatever they come to."""
    app = Quart("shop")
    init_app(app)
    jobs: list[Any] = []

    @app.get("/")
    async def handler() -> str:
        jobs.append(tasks.add_task(str, 5))
        jobs.append(tasks.add_task(_fail))
        return "ok"

    async with app.test_app() as served:
        await served.test_client().get("/")
        assert await jobs[0].result(40) == "5"
        with pytest.raises(JobFailed):
            await jobs[1].result(40)


# Lifespan.


async def test_shutdown_drains_before_anything_is_closed(log: list[Any]) -> None:
    """R6: started before and drained before all that the application opens."""
    app = Quart("shop")
    runner = init_app(app)
    gate = threading.Event()

    async def wait() -> None:
        log.append("job started")
        while not gate.is_set():
            await asyncio.sleep(0.002)
        log.append("job ended")

    @app.get("/")
    async def handler() -> str:
        tasks.add_task(wait)
        return "ok"

    @app.before_serving
    async def opening() -> None:
        log.append("opened")
        await runner.add_task(log.append, "job of startup")

    @app.after_serving
    async def closing() -> None:
        log.append("closed")

    async with app.test_app() as served:
        await served.test_client().get("/")
        await until(lambda: "job started" in log and "job of startup" in log, 40)
        log.clear()
        threading.Timer(0.1, gate.set).start()
    assert log == ["job ended", "closed"]


@pytest.mark.parametrize("hook", ["before_serving", "after_serving"])
async def test_failures_of_the_lifespan_pass_through(hook: str, log: list[Any]) -> None:
    """R6."""
    app = Quart("shop")
    init_app(app)

    async def failing() -> None:
        raise LookupError("hook")

    getattr(app, hook)(failing)

    served = app.test_app()
    with pytest.raises(LifespanError, match="hook"):
        await served.startup()
        await served.shutdown()


async def test_journal_that_cannot_be_opened_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """J9: at startup, and no request is promised anything (J2)."""
    journal = tmp_path / "no database"
    journal.write_text("this is something else, and it is long enough to be looked at" * 10)
    app = Quart("shop")
    init_app(app, journal=journal)

    @app.get("/")
    async def handler() -> str:
        return tasks.add_task(_double, 1).id

    try:
        async with app.test_app() as served:
            with pytest.raises(JournalError, match="no SQLite file"):
                await served.test_client().get("/")
    except (JournalError, LifespanError) as exc:
        report = str(exc)
    else:
        report = caplog.text
    assert "no SQLite file" in report


# Durable jobs, and real servers.


@task
async def _double(number: int) -> int:
    return 2 * number


async def test_durable_job_is_followed(tmp_path: Path) -> None:
    """J1: in the journal before the response is out; the runner knows it afterwards."""
    app = Quart("shop")
    runner = init_app(app, journal=tmp_path / "jobs.db")

    @app.get("/<int:number>")
    async def handler(number: int) -> str:
        return tasks.add_task(_double, number).id

    async with app.test_app() as served:
        response = await served.test_client().get("/21")
        job = await response.get_data(as_text=True)
        assert (await runner.info(job)).durable
        assert await runner.result(job, timeout=40) == 42
        assert (await runner.info(job)).status is JobStatus.succeeded


@pytest.fixture(params=[UVICORN, HYPERCORN], ids=str)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with servers_of("tests.integrations.sites.quart:served", tmp_path) as start:
        yield start(request.param)


def test_task_of_quart_runs_beside_ours(server: Server) -> None:
    """Quart starts its own at once, whatever becomes of the response."""
    assert server.get("/own", id="own").status == 200
    server.at("own-task", id="own")
    server.at("task-started", id="own")
    server.open("own.task")
    server.until_ended("own", 1)


def test_client_that_leaves_before_the_response_takes_no_job_along(server: Server) -> None:
    """M6: Quart cancels the handler of a client that has left, in the middle of anything."""
    with server.connect() as client:
        client.send("/slow", id="left")
        server.at("waiting", id="left")
    server.open("left.task")
    server.until_ended("left", 1)


def test_websocket_on_a_real_server(server: Server) -> None:
    """M3, M6: the client closes, Quart cancels the handler, the jobs run."""
    connect = need("websockets.sync.client").connect
    with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None, open_timeout=DEADLINE) as client:
        client.send("word")
        assert client.recv(DEADLINE) == "word"
        assert not server.has("task-started", id="word")
    server.open("word.task")
    server.until_ended("word", 1)
