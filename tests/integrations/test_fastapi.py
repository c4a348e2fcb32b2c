"""`asgi_bg.fastapi`, on a real FastAPI."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.testclient import TestClient

from asgi_bg.exceptions import MiddlewareNotInstalled
from asgi_bg.fastapi import BackgroundTasks, get_runner, init_app, tasks_from
from tests.helpers import wait_until

LOG: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def _clear() -> None:
    LOG.clear()


def note(word: str) -> None:
    LOG.append((word, threading.current_thread().name))


async def anote(word: str) -> None:
    LOG.append((word, "loop"))


def audit(tasks: BackgroundTasks) -> str:
    tasks.add_task(note, "audit")
    return "audited"


async def session(tasks: BackgroundTasks) -> Any:
    yield "session"
    tasks.add_task(anote, "session closed")


def make_app() -> FastAPI:
    app = FastAPI()
    init_app(app)
    router = APIRouter(prefix="/router")

    @app.post("/items/{number}")
    async def create(
        number: int, tasks: BackgroundTasks, audited: Annotated[str, Depends(audit)]
    ) -> dict[str, Any]:
        job = tasks.add_task(anote, f"item {number}")
        if number == 0:
            raise HTTPException(404)
        return {"job": job.id, "audited": audited}

    @app.get("/sync")
    def sync(tasks: BackgroundTasks, opened: Annotated[str, Depends(session)]) -> str:
        tasks.add_task(note, opened)
        return opened

    @router.get("/inner")
    def inner(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "inner")
        return "ok"

    @app.websocket("/ws")
    async def websocket(socket: WebSocket, tasks: BackgroundTasks) -> None:
        await socket.accept()
        tasks.add_task(note, await socket.receive_text())
        assert tasks_from(socket) is tasks
        await socket.close()

    app.include_router(router)
    return app


@pytest.fixture(params=[True, False], ids=["supervised", "request-bound"])
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    client = TestClient(make_app())
    if request.param:
        with client:
            yield client
    else:
        yield client


def words() -> list[str]:
    return [word for word, _ in LOG]


def test_one_changed_import_is_enough(client: TestClient) -> None:
    """In endpoints and dependencies; jobs have ids; an HTTP error runs them too."""
    answer = client.post("/items/7").json()
    assert len(answer["job"]) == 32
    assert client.post("/items/0").status_code == 404
    client.get("/router/inner")
    expected = ["audit", "item 7", "audit", "item 0", "inner"]
    wait_until(lambda: len(words()) >= len(expected), "the tasks")
    assert sorted(words()) == sorted(expected)
    assert ("audit", "asgi_bg worker") in LOG
    assert ("item 7", "loop") in LOG


def test_dependency_with_yield_is_closed_when_the_tasks_run(client: TestClient) -> None:
    """As documented: what a dependency opens is closed by then; its own tasks come last."""
    client.get("/sync")
    wait_until(lambda: len(words()) >= 2, "both tasks")
    assert words() == ["session", "session closed"]


def test_websocket_endpoint(client: TestClient) -> None:
    """The same annotation there."""
    with client.websocket_connect("/ws") as socket:
        socket.send_text("hello")
    wait_until(words, "the task")
    assert words() == ["hello"]


def test_it_stays_out_of_the_schema() -> None:
    """No parameter, no body, nothing of ours."""
    schema = make_app().openapi()
    create = schema["paths"]["/items/{number}"]["post"]
    assert [parameter["name"] for parameter in create["parameters"]] == ["number"]
    assert "requestBody" not in create
    assert "asgi_bg" not in str(schema)
    assert "Background" not in str(schema)


def test_missing_middleware_says_how_to_install_it() -> None:
    """M8."""
    app = FastAPI()

    @app.get("/")
    def endpoint(tasks: BackgroundTasks) -> None: ...

    with pytest.raises(MiddlewareNotInstalled, match="add_middleware"):
        TestClient(app).get("/")
    with pytest.raises(MiddlewareNotInstalled, match="init_app"):
        get_runner(app)
