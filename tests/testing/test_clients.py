"""With the test clients of frameworks, sync and async, with and without a lifespan."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, add_task, task
from asgi_bg.testing import TaskRecorder
from tests.helpers import need

loops: list[Any] = []


@pytest.fixture(autouse=True)
def _no_loops() -> None:
    loops.clear()


@task(name="clients:mail")
async def mail(to: str) -> None:
    loops.append(asyncio.get_running_loop())


@task(name="clients:mail_in_thread")
def mail_in_thread(to: str) -> None:
    loops.append(None)


def starlette_app() -> Any:
    applications = need("starlette.applications")
    responses = need("starlette.responses")
    routing = need("starlette.routing")
    started: list[Any] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        started.append(asyncio.get_running_loop())
        yield

    async def order(request: Any) -> Any:
        add_task(mail, "ada")
        add_task(mail_in_thread, "bob")
        return responses.PlainTextResponse("ok")

    app = applications.Starlette(
        routes=[routing.Route("/orders", order, methods=["POST"])], lifespan=lifespan
    )
    app.add_middleware(BackgroundTaskMiddleware)
    app.state.started = started
    return app


def client_of(app: Any) -> Any:
    return need("starlette.testclient").TestClient(app)


def test_starlettes_client(background_tasks: TaskRecorder) -> None:
    client = client_of(starlette_app())
    assert client.post("/orders").text == "ok"
    background_tasks.assert_added(mail, "ada")
    background_tasks.assert_added(mail_in_thread, "bob")
    assert loops == []
    background_tasks.drain()
    assert len(loops) == 2


def test_starlettes_client_with_lifespan(background_tasks: TaskRecorder) -> None:
    """Jobs then run in the loop of the app, where what it has opened is at home."""
    app = starlette_app()
    with client_of(app) as client:
        for _ in range(20):
            client.post("/orders")
            assert len(background_tasks.drain()) == 2, "the client has returned, so they are there"
        assert {loop for loop in loops if loop is not None} == set(app.state.started)
        client.post("/orders")
    assert len(background_tasks.drain()) == 2, "with the app gone, in a loop of their own"


@pytest.mark.parametrize("with_lifespan", [True, False])
def test_starlettes_client_at_once(background_tasks: TaskRecorder, with_lifespan: bool) -> None:
    """Jobs have ended when the client returns."""
    background_tasks.run_at_once()
    client = client_of(starlette_app())
    with client if with_lifespan else contextlib.nullcontext():
        for count in range(1, 20):
            client.post("/orders")
            assert len(loops) == 2 * count


@pytest.mark.anyio
async def test_httpx(background_tasks: TaskRecorder) -> None:
    httpx = need("httpx")
    transport = httpx.ASGITransport(starlette_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.post("/orders")
        background_tasks.assert_added(mail, "ada")
        assert loops == []
        await background_tasks.drain()
        assert loops == [asyncio.get_running_loop(), None]
        background_tasks.run_at_once()
        await client.post("/orders")
        assert len(loops) == 4


@pytest.mark.anyio
async def test_an_async_test_of_a_sync_client(background_tasks: TaskRecorder) -> None:
    """Whose app runs in another thread: the drain goes there."""
    app = starlette_app()
    with client_of(app) as client:
        client.post("/orders")
        await background_tasks.drain()
    assert loops[0] is app.state.started[0]


def test_fastapis_parameter(background_tasks: TaskRecorder) -> None:
    fastapi = need("fastapi")
    integration = need("asgi_bg.fastapi")
    app = fastapi.FastAPI()
    integration.init_app(app)

    def order(tasks: Any) -> dict[str, str]:
        return {"job": tasks.add_task(mail, to="ada").id}

    order.__annotations__["tasks"] = integration.BackgroundTasks
    app.post("/orders")(order)
    response = client_of(app).post("/orders")
    assert background_tasks.assert_added(mail, to="ada").id == response.json()["job"]


def test_litestars_client(background_tasks: TaskRecorder) -> None:
    litestar = need("litestar")
    testing = need("litestar.testing")

    def order() -> str:
        add_task(mail, "ada")
        return "ok"

    app = litestar.Litestar([litestar.post("/orders", sync_to_thread=False)(order)])
    with testing.TestClient(BackgroundTaskMiddleware(app)) as client:
        assert client.post("/orders").text == "ok"
        background_tasks.assert_added(mail, "ada")
        background_tasks.drain()
    assert len(loops) == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_litestars_plugin(background_tasks: TaskRecorder, at_once: bool) -> None:
    litestar = need("litestar")
    testing = need("litestar.testing")
    plugin = need("asgi_bg.litestar").BackgroundTasksPlugin()

    def order() -> str:
        add_task(mail, "ada")
        return "ok"

    app = litestar.Litestar(
        [litestar.post("/orders", sync_to_thread=False)(order)], plugins=[plugin]
    )
    if at_once:
        background_tasks.run_at_once()
    with testing.TestClient(app) as client:
        assert client.post("/orders").text == "ok"
        background_tasks.assert_added(mail, "ada")
        assert len(loops) == (1 if at_once else 0)
        background_tasks.drain()
    assert len(loops) == 1


@pytest.mark.anyio
async def test_quarts_client(background_tasks: TaskRecorder) -> None:
    quart = need("quart")
    app = quart.Quart("tests")

    async def order() -> str:
        add_task(mail, "ada")
        return "ok"

    app.post("/orders")(order)
    app.asgi_app = BackgroundTaskMiddleware(app.asgi_app)
    response = await app.test_client().post("/orders")
    assert response.status_code == 200
    background_tasks.assert_added(mail, "ada")
    await background_tasks.drain()
    assert len(loops) == 1


@pytest.fixture
def django() -> Any:
    """Django with one view, which is not to be configured twice in a process."""
    conf = need("django.conf")
    http = need("django.http")
    urls = need("django.urls")
    views = type("urls", (), {})()

    def order(request: Any) -> Any:
        add_task(mail, "ada")
        return http.HttpResponse("ok")

    async def order_async(request: Any) -> Any:
        add_task(mail, "ada")
        return http.HttpResponse("ok")

    views.urlpatterns = [urls.path("orders", order), urls.path("async", order_async)]
    if not conf.settings.configured:
        conf.settings.configure(ALLOWED_HOSTS=["*"], DEBUG=True)
        need("django").setup()
    override = need("django.test").override_settings
    with override(ROOT_URLCONF=views, MIDDLEWARE=[], ALLOWED_HOSTS=["*"]):
        yield need("django.test")


@pytest.mark.parametrize("path", ["/orders", "/async"])
def test_djangos_client(background_tasks: TaskRecorder, django: Any, path: str) -> None:
    """It does not go by ASGI, so the request is imagined."""
    with background_tasks.request():
        assert django.Client().post(path).content == b"ok"
    background_tasks.assert_added(mail, "ada")
    background_tasks.drain()
    assert len(loops) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/orders", "/async"])
async def test_djangos_async_client(background_tasks: TaskRecorder, django: Any, path: str) -> None:
    with background_tasks.request():
        response = await django.AsyncClient().post(path)
    assert response.content == b"ok"
    background_tasks.assert_added(mail, "ada")
    await background_tasks.drain()
    assert len(loops) == 1
