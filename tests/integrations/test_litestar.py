"""`asgi_bg.litestar`, on a real Litestar."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobStatus, Runner, add_task, current_job, task
from asgi_bg import BackgroundTasks as Collector
from asgi_bg.exceptions import MiddlewareNotInstalled
from tests.helpers import Connection, need, until
from tests.integrations.serving import servers_of
from tests.servers.harness import HYPERCORN, UVICORN, Kind

need("litestar")

from litestar import Controller, Litestar, Request, WebSocket, get, post, websocket  # noqa: E402
from litestar.background_tasks import BackgroundTask  # noqa: E402
from litestar.background_tasks import BackgroundTasks as OwnTasks  # noqa: E402
from litestar.config.app import AppConfig  # noqa: E402
from litestar.di import Provide  # noqa: E402
from litestar.exceptions import HTTPException, ImproperlyConfiguredException, NotFoundException  # noqa: E402
from litestar.handlers import asgi, websocket_listener  # noqa: E402
from litestar.middleware import DefineMiddleware  # noqa: E402
from litestar.plugins import InitPlugin  # noqa: E402
from litestar.response import Response, Stream  # noqa: E402
from litestar.testing import AsyncTestClient, TestClient  # noqa: E402

from asgi_bg.litestar import (  # noqa: E402
    BackgroundTasks,
    BackgroundTasksPlugin,
    get_runner,
    init_app,
    tasks_from,
)

# Litestar 2.23 has new words for the parameters of the tests' own handlers.
pytestmark = pytest.mark.filterwarnings("ignore:.*inferred (dependency|style):DeprecationWarning")


def _fail() -> None:
    raise ValueError("task")


def _made(*args: Any, **options: Any) -> Litestar:
    """Make an application that leaves logging as it is: its own would take pytest's away."""
    return Litestar(*args, logging_config=None, **options)


def _handlers(log: list[Any]) -> list[Any]:
    def note(word: str) -> None:
        log.append(word)
        threads.append(threading.current_thread().name)

    threads: list[str] = []

    async def audited(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "audit")
        return "audited"

    async def session(background_tasks: BackgroundTasks) -> AsyncGenerator[str, None]:
        yield "session"
        background_tasks.add_task(note, "session closed")

    @get("/parameter")
    async def parameter(background_tasks: BackgroundTasks) -> str:
        assert type(background_tasks) is Collector
        return background_tasks.add_task(note, "parameter").id

    @get("/request", sync_to_thread=False)
    def on_loop(request: Request[Any, Any, Any]) -> str:
        tasks_from(request).add_task(note, "request")
        return "ok"

    @get("/thread", sync_to_thread=True)
    def in_thread(background_tasks: BackgroundTasks) -> str:
        assert threading.current_thread() is not threading.main_thread()
        background_tasks.add_task(note, "parameter in a thread")
        add_task(note, "thread")
        return "ok"

    @get("/dependency", dependencies={"audit": Provide(audited), "opened": Provide(session)})
    async def dependency(audit: str, opened: str) -> str:
        add_task(note, opened)
        return audit

    class Items(Controller):
        path = "/items"

        @post("/{number:int}")
        async def create(self, number: int, background_tasks: BackgroundTasks) -> str:
            background_tasks.add_task(note, f"item {number}")
            return "ok"

    @get("/http-error")
    async def http_error() -> None:
        add_task(note, "before an HTTP error")
        raise HTTPException(status_code=418)

    @get("/crash")
    async def crash() -> None:
        add_task(note, "before a crash")
        raise RuntimeError("handler")

    @get("/failing-task")
    async def failing_task() -> str:
        add_task(_fail)
        add_task(note, "behind a failing one")
        return "ok"

    @get("/stream")
    async def stream() -> Stream:
        async def parts() -> AsyncGenerator[bytes, None]:
            yield b"one"
            add_task(note, "while streaming")
            yield b"two"

        return Stream(parts())

    @get("/own")
    async def own() -> Response[str]:
        add_task(note, "ours")
        return Response("ok", background=BackgroundTask(note, "Litestar's"))

    @get("/own-many")
    async def own_many() -> Response[str]:
        add_task(note, "ours")
        first, second = BackgroundTask(note, "first"), BackgroundTask(add_task, note, "second")
        return Response("ok", background=OwnTasks([first, second]))

    @get("/own-fails")
    async def own_fails() -> Response[str]:
        add_task(note, "ours")
        return Response("ok", background=BackgroundTask(_fail))

    @asgi("/asgi", copy_scope=True)
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        Collector.from_scope(scope).add_task(note, "mounted ASGI app")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return [
        *(parameter, on_loop, in_thread, dependency, Items, http_error, crash, failing_task),
        *(stream, own, own_many, own_fails, plain),
    ]


CASES: dict[str, tuple[int, list[str]]] = {
    "/parameter": (200, ["parameter"]),
    "/request": (200, ["request"]),
    "/thread": (200, ["parameter in a thread", "thread"]),
    "/dependency": (200, ["audit", "session", "session closed"]),
    "/http-error": (418, ["before an HTTP error"]),
    "/crash": (500, ["before a crash"]),
    "/failing-task": (200, ["behind a failing one"]),
    "/stream": (200, ["while streaming"]),
    "/own": (200, ["Litestar's", "ours"]),
    "/own-many": (200, ["first", "ours", "second"]),
    "/asgi": (200, ["mounted ASGI app"]),
}


@pytest.fixture(params=[True, False], ids=["supervised", "request-bound"])
def connect(request: pytest.FixtureRequest) -> Callable[[Litestar], Iterator[TestClient[Any]]]:
    """Open a client, with lifespan (R6) and without (R7)."""

    def open_one(app: Litestar) -> Any:
        client = TestClient(app, raise_server_exceptions=False)
        return client if request.param else _Unopened(client)

    return open_one


class _Unopened:
    """A client that never starts the application's lifespan."""

    def __init__(self, client: TestClient[Any]) -> None:
        self._client = client

    def __enter__(self) -> TestClient[Any]:
        return self._client

    def __exit__(self, *exc_info: object) -> None:
        pass


@pytest.mark.parametrize("path", CASES)
def test_tasks_run_from_every_kind_of_handler(path: str, connect: Any, log: list[Any]) -> None:
    """M4, M7, M8, R3: the same with lifespan and without; an error response has ended too."""
    status, expected = CASES[path]
    app = _made(_handlers(log), plugins=[BackgroundTasksPlugin()])
    with connect(app) as client:
        assert client.get(path).status_code == status
    assert log == expected


def test_a_controller_gets_the_collector_too(connect: Any, log: list[Any]) -> None:
    """And the job that is returned has an id."""
    app = _made(_handlers(log), plugins=[BackgroundTasksPlugin()])
    with connect(app) as client:
        assert client.post("/items/7").status_code == 201
        assert len(client.get("/parameter").text) == 32
    assert sorted(log) == ["item 7", "parameter"]


def test_a_failing_task_of_litestar_takes_nothing_along(connect: Any, log: list[Any]) -> None:
    """M4: it raises through the application after the response; our jobs run all the same."""
    app = _made(_handlers(log), plugins=[BackgroundTasksPlugin()])
    with connect(app) as client:
        client.get("/own-fails")
    assert log == ["ours"]


@pytest.mark.parametrize(
    ("run_on", "expected"),
    [("response", ["before an HTTP error", "before a crash"]), ("success", [])],
)
def test_run_on_sees_the_status_that_litestar_makes_of_an_error(
    run_on: Any, expected: list[str], connect: Any, log: list[Any]
) -> None:
    """M5."""
    app = _made(_handlers(log), plugins=[BackgroundTasksPlugin(run_on=run_on)])
    with connect(app) as client:
        assert client.get("/http-error").status_code == 418
        assert client.get("/crash").status_code == 500
        assert client.get("/parameter").status_code == 200
    assert sorted(log) == sorted([*expected, "parameter"])  # requests do not wait for each other


def test_websockets(connect: Any, log: list[Any]) -> None:
    """M3: the jobs of a session run when it is closed, by either side."""

    @websocket("/ws")
    async def by_hand(socket: WebSocket[Any, Any, Any], background_tasks: BackgroundTasks) -> None:
        await socket.accept()
        background_tasks.add_task(log.append, await socket.receive_text())
        assert tasks_from(socket) is background_tasks
        log.append("closing")
        await socket.close()

    @websocket_listener("/listener")
    async def listener(data: str, background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(log.append, data)
        return "heard"

    app = _made([by_hand, listener], plugins=[BackgroundTasksPlugin()])
    with connect(app) as client:
        with client.websocket_connect("/ws") as socket:
            socket.send_text("hello")
        with client.websocket_connect("/listener") as socket:
            socket.send_text("one")
            assert socket.receive_text() == "heard"
            socket.send_text("two")
            assert socket.receive_text() == "heard"
            assert "one" not in log
    assert log[0] == "closing"
    assert log.index("one") < log.index("two")
    assert sorted(log[1:]) == ["hello", "one", "two"]


def test_other_middleware_can_add_tasks_as_ours_is_the_outermost(
    connect: Any, log: list[Any]
) -> None:
    """M7: wherever a plugin of the same list puts its own."""

    class Noting:
        def __init__(self, app: Any, word: str) -> None:
            self._app, self._word = app, word

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            add_task(log.append, self._word)
            await self._app(scope, receive, send)

    app = _made(
        _handlers(log),
        middleware=[DefineMiddleware(Noting, word="middleware")],
        plugins=[BackgroundTasksPlugin()],
    )
    with connect(app) as client:
        client.get("/parameter")
    assert log == ["middleware", "parameter"]


def test_hooks_of_the_application_can_add_tasks(connect: Any, log: list[Any]) -> None:
    """M8: `before_request` and `after_response` have the collector too."""

    async def before(request: Request[Any, Any, Any]) -> None:
        add_task(log.append, "before request")

    async def after(request: Request[Any, Any, Any]) -> None:
        tasks_from(request).add_task(log.append, "after response")

    app = _made(
        _handlers(log),
        before_request=before,
        after_response=after,
        plugins=[BackgroundTasksPlugin()],
    )
    with connect(app) as client:
        client.get("/parameter")
    assert log == ["before request", "parameter", "after response"]


def test_init_app_wraps_an_application_that_is_made(connect: Any, log: list[Any]) -> None:
    """M7: then even the handler of a path that does not exist has a collector."""

    def not_found(request: Request[Any, Any, Any], exc: NotFoundException) -> Response[str]:
        tasks_from(request).add_task(log.append, "not found")
        return Response("nothing here", status_code=404)

    @get("/here")
    async def here() -> str:
        add_task(log.append, "here")
        return "ok"

    app = _made([here], exception_handlers={NotFoundException: not_found})
    runner = init_app(app)
    assert get_runner(app) is runner
    with connect(app) as client:
        assert client.get("/here").status_code == 200
        assert client.get("/nowhere").status_code == 404
    assert sorted(log) == ["here", "not found"]


def test_around_the_whole_application_as_well(connect: Any, log: list[Any]) -> None:
    """M7: two that share a runner act as one; the lifespan is supervised once."""
    plugin = BackgroundTasksPlugin()
    app: Any = BackgroundTaskMiddleware(
        _made(_handlers(log), plugins=[plugin]), runner=plugin.runner
    )
    with connect(app) as client:
        client.get("/parameter")
        client.get("/own")
    assert sorted(log) == ["Litestar's", "ours", "parameter"]


def test_the_parameter_can_have_another_name_or_none(log: list[Any]) -> None:
    """A name that is taken is refused; without the plugin the application does not start."""

    @get("/")
    async def handler(later: BackgroundTasks) -> str:
        later.add_task(log.append, "later")
        return "ok"

    with pytest.raises(ImproperlyConfiguredException, match="later"):
        TestClient(_made([handler], plugins=[BackgroundTasksPlugin()]))
    with pytest.raises(ImproperlyConfiguredException, match="later"):
        TestClient(_made([handler], plugins=[BackgroundTasksPlugin(dependency=None)]))
    with TestClient(_made([handler], plugins=[BackgroundTasksPlugin(dependency="later")])) as it:
        assert it.get("/").text == "ok"
    assert log == ["later"]
    own = {"background_tasks": Provide(lambda: 1, sync_to_thread=False)}
    with pytest.raises(ValueError, match="background_tasks"):
        _made([], dependencies=own, plugins=[BackgroundTasksPlugin()])


def test_it_stays_out_of_the_schema(log: list[Any]) -> None:
    """No parameter, no body, nothing of ours."""
    app = _made(_handlers(log), plugins=[BackgroundTasksPlugin()])
    schema = app.openapi_schema.to_schema()
    create = schema["paths"]["/items/{number}"]["post"]
    assert [parameter["name"] for parameter in create["parameters"]] == ["number"]
    assert "requestBody" not in create
    assert "background_tasks" not in json.dumps(schema)


def test_runner_is_given_made_and_found(log: list[Any]) -> None:
    """And what does not fit is refused at once."""
    own = Runner(history=5)
    plugin = BackgroundTasksPlugin(runner=own)
    app = _made([], plugins=[plugin])
    assert plugin.runner is own
    assert get_runner(app) is own
    assert app.plugins.get(BackgroundTasksPlugin) is plugin
    assert BackgroundTasksPlugin(max_jobs=3).runner is not own
    with pytest.raises(TypeError, match="either runner= or its options"):
        BackgroundTasksPlugin(runner=own, history=5)
    wrong: Any = "sometimes"
    with pytest.raises(ValueError, match="run_on"):
        BackgroundTasksPlugin(run_on=wrong)
    with pytest.raises(MiddlewareNotInstalled, match="BackgroundTasksPlugin"):
        get_runner(_made([]))


def test_without_plugin_the_handler_says_so() -> None:
    """M8."""

    @get("/", sync_to_thread=False)
    def handler(request: Request[Any, Any, Any]) -> None:
        tasks_from(request)

    answer = TestClient(_made([handler], debug=True), raise_server_exceptions=False).get("/")
    assert answer.status_code == 500
    assert "MiddlewareNotInstalled" in answer.text
    assert "BackgroundTaskMiddleware(app)" in answer.text


# Lifespan.


class _Late(InitPlugin):
    """A plugin that comes after ours and adds a lifespan manager."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.lifespan.append(_managing(self._log, "late plugin"))
        return app_config


def _managing(log: list[Any], name: str) -> Any:
    @asynccontextmanager
    async def manager(app: Litestar) -> AsyncGenerator[None, None]:
        log.append(f"{name} opened")
        yield
        log.append(f"{name} closed")

    return manager


class _Gate:
    """A task that waits until somebody lets it go on."""

    def __init__(self, log: list[Any]) -> None:
        self.event = threading.Event()
        self._log = log

    async def __call__(self) -> None:
        self._log.append("job started")
        while not self.event.is_set():
            await asyncio.sleep(0.002)
        self._log.append("job ended")


@pytest.mark.anyio
@pytest.mark.parametrize("by_plugin", [True, False])
async def test_shutdown_drains_before_anything_is_closed(by_plugin: bool, log: list[Any]) -> None:
    """R6: started before and drained before all, wherever the plugin stands; twice over."""
    gate = _Gate(log)

    @get("/")
    async def handler() -> str:
        add_task(gate)
        return "ok"

    async def starting(app: Litestar) -> None:
        await get_runner(app).add_task(log.append, "job of startup")

    plugins: list[Any] = [BackgroundTasksPlugin(), _Late(log)] if by_plugin else [_Late(log)]
    app = _made(
        [handler],
        lifespan=[_managing(log, "own")],
        on_startup=[starting],
        on_shutdown=[lambda: log.append("shut down")],
        plugins=plugins,
    )
    if not by_plugin:
        init_app(app)
    for _ in range(2):
        log.clear()
        gate.event.clear()
        async with AsyncTestClient(app) as client:
            await client.get("/")
            await until(lambda: "job started" in log and "job of startup" in log, 40)
            assert log[:2] == ["own opened", "late plugin opened"]
            log.clear()
            threading.Timer(0.1, gate.event.set).start()
        assert log == ["job ended", "late plugin closed", "own closed", "shut down"]


@pytest.mark.anyio
async def test_shutdown_cancels_what_takes_too_long(log: list[Any], caplog: Any) -> None:
    """R6: and names it."""
    gate = _Gate(log)

    @get("/")
    async def handler() -> str:
        add_task(gate)
        return "ok"

    app = _made(
        [handler],
        lifespan=[_managing(log, "own")],
        plugins=[BackgroundTasksPlugin(drain_timeout=0.1)],
    )
    async with AsyncTestClient(app) as client:
        await client.get("/")
        await until(lambda: "job started" in log, 40)
    assert log == ["own opened", "job started", "own closed"]
    assert "_Gate" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("drain_timeout", [40.0, 0.1])
async def test_shutdown_waits_for_requests_of_every_route(
    drain_timeout: float, log: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """R6: on a server that does not wait itself, until ``drain_timeout`` is over."""
    may_end = asyncio.Event()
    may_stop = asyncio.Event()
    answers: list[str] = []

    @get(["/one", "/two"])
    async def handler(request: Request[Any, Any, Any]) -> str:
        log.append("handler")
        await may_end.wait()
        add_task(log.append, request.url.path)
        return "ok"

    async def receive() -> Any:
        if answers:
            await may_stop.wait()
            return {"type": "lifespan.shutdown"}
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        answers.append(message["type"])

    app: Any = _made(
        [handler],
        lifespan=[_managing(log, "own")],
        plugins=[BackgroundTasksPlugin(drain_timeout=drain_timeout)],
    )
    lifespan = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    )
    await until(lambda: answers, 40)
    connections = [Connection() for _ in range(2)]
    for connection, path in zip(connections, ("/one", "/two"), strict=True):
        more = {"path": path, "raw_path": path.encode(), "method": "GET", "query_string": b""}
        connection.scope.update(more, http_version="1.1", scheme="http", root_path="")
    requests = [asyncio.ensure_future(connection.call(app)) for connection in connections]
    await until(lambda: log.count("handler") == 2, 40)
    may_stop.set()
    if drain_timeout > 1:
        await asyncio.sleep(0.05)  # it must not end; whether it would, a moment shows
        assert "own closed" not in log
    else:
        await until(lambda: "own closed" in log, 40)
        assert "2 request(s) still being served at shutdown" in caplog.text
    may_end.set()
    await asyncio.gather(*requests, lifespan)
    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    if drain_timeout > 1:
        assert sorted(log[3:5]) == ["/one", "/two"]
        assert log[5:] == ["own closed"]


@pytest.mark.anyio
async def test_hook_that_sees_a_message_last_still_holds_back_the_end(
    log: list[Any], tmp_path: Path
) -> None:
    """J1: ``before_send`` comes after our part, and the end of the response after the job."""

    async def before_send(message: Any, scope: Any) -> None:
        if message["type"] == "http.response.start":
            log.append(add_task(_double, 4).id)

    @get("/")
    async def handler() -> str:
        return "ok"

    plugin = BackgroundTasksPlugin(journal=tmp_path / "jobs.db")
    app = _made([handler], before_send=[before_send], plugins=[plugin])
    async with AsyncTestClient(app) as client:
        await client.get("/")
        assert (await plugin.runner.info(log[0])).durable
        assert await plugin.runner.result(log[0], timeout=40) == 8


async def _lifespan_of(app: Any) -> list[str]:
    """Start an application and stop it, and return the types of its answers."""
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    try:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    except Exception as exc:
        # Litestar runs its event emitter in a task group, which wraps what is raised.
        (inner,) = getattr(exc, "exceptions", [exc])
        sent.append(type(inner).__name__)
    return sent


@pytest.mark.anyio
async def test_failures_of_the_lifespan_pass_through(log: list[Any], tmp_path: Path) -> None:
    """R6: of the application's startup and shutdown, and of the runner's own start."""

    def failing() -> None:
        raise LookupError("hook")

    plugins = [BackgroundTasksPlugin()]
    assert await _lifespan_of(_made(plugins=plugins, on_startup=[failing])) == [
        "lifespan.startup.failed",
        "LookupError",
    ]
    assert await _lifespan_of(_made(plugins=plugins, on_shutdown=[failing])) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.failed",
        "LookupError",
    ]
    journal = tmp_path / "no database"
    journal.write_text("this is something else, and it is long enough to be looked at" * 10)
    app = _made(lifespan=[_managing(log, "own")], plugins=[BackgroundTasksPlugin(journal=journal)])
    assert await _lifespan_of(app) == ["lifespan.startup.failed", "JournalError"]
    assert log == []


# Durable jobs, and real servers.


@task
async def _double(number: int) -> int:
    current_job().progress(1.0)
    return 2 * number


@pytest.mark.anyio
async def test_durable_job_is_followed(tmp_path: Path) -> None:
    """J1: in the journal before the response is out; the runner knows it afterwards."""

    @get("/{number:int}")
    async def handler(number: int, background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(_double, number).id

    plugin = BackgroundTasksPlugin(journal=tmp_path / "jobs.db")
    async with AsyncTestClient(_made([handler], plugins=[plugin])) as client:
        job = (await client.get("/21")).text
        assert (await plugin.runner.info(job)).durable
        assert await plugin.runner.result(job, timeout=40) == 42
        assert (await plugin.runner.info(job)).status is JobStatus.succeeded


@pytest.mark.parametrize("kind", [UVICORN, HYPERCORN], ids=str)
def test_own_task_of_a_response_runs_beside_ours(kind: Kind, tmp_path: Path) -> None:
    """M4: Litestar awaits its own before the call ends, and ours starts after that."""
    with servers_of("tests.integrations.sites.litestar:served", tmp_path) as start:
        server = start(kind)
        assert server.get("/own", id="own").status == 200
        server.at("task-started", id="own")
        assert server.story("own") == ["own-task", "job", "task-started"]
        server.open("own.task")
        server.until_ended("own", 1)
