"""`asgi_bg.blacksheep`, on a real BlackSheep: by its test client, and by real servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_bg import Runner
from asgi_bg.exceptions import MiddlewareNotInstalled
from tests.helpers import Connection, need
from tests.integrations.notes import LOG
from tests.integrations.serving import get_json, servers_of

need("blacksheep")

from blacksheep import Application, Request, Router  # noqa: E402
from blacksheep.server.openapi.v3 import OpenAPIHandler  # noqa: E402
from blacksheep.testing import TestClient  # noqa: E402
from openapidocs.v3 import Info  # noqa: E402

from asgi_bg.blacksheep import get_runner, init_app, tasks_from  # noqa: E402
from tests.integrations import blacksheep_site as site  # noqa: E402

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _clear() -> None:
    LOG.clear()


def words() -> list[str]:
    return [word for word in LOG if word not in ("startup", "shutdown")]


async def request(app: Any, method: str, path: str) -> httpx.Response:
    """Make a request by way of ASGI, without lifespan, to a started application."""
    if not app.started:
        await app.start()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test"
    ) as client:
        return await client.request(method, path)


PATHS = [
    ("POST", "/items", 200, ["item", "visitor ada"]),
    ("GET", "/items", 404, ["before an error"]),
    ("GET", "/crash", 500, ["before a crash"]),
    ("GET", "/stream", 200, ["while streaming"]),
    ("GET", "/sub/inner", 200, ["mounted"]),
]


@pytest.mark.parametrize(("method", "path", "status", "expected"), PATHS)
async def test_tasks_of_every_kind_of_handler(
    method: str, path: str, status: int, expected: list[str], anyio_backend: Any
) -> None:
    """M3, M5, M7, M8: by parameter, by request and from any depth; mounted ones too."""
    response = await request(site.make_app(), method, path)
    assert response.status_code == status
    assert words() == expected


@pytest.mark.parametrize(("method", "path", "status", "expected"), PATHS[:3])
async def test_blacksheeps_test_client(
    method: str, path: str, status: int, expected: list[str], anyio_backend: Any
) -> None:
    """R7: it calls the application below ASGI, and returns when the jobs have ended."""
    app = site.make_app()
    await app.start()
    response = await getattr(TestClient(app), method.lower())(path)
    assert response.status == status
    assert words() == expected
    await app.stop()


async def test_run_on_success(anyio_backend: Any) -> None:
    """M5, either way in."""
    app = site.make_app(run_on="success")
    assert (await request(app, "GET", "/items")).status_code == 404
    await app.start()
    assert (await TestClient(app).get("/items")).status == 404
    assert words() == []


async def test_websocket(anyio_backend: Any) -> None:
    """M3."""
    app = site.make_app()
    await app.start()
    connection = Connection(
        [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}],
        kind="websocket",
    )
    connection.scope |= {"path": "/ws", "raw_path": b"/ws", "query_string": b"", "method": "GET"}
    await connection.call(app)
    assert words() == ["hello"]


async def test_failing_task_fails_alone(
    anyio_backend: Any, errors: Callable[[], list[str]]
) -> None:
    """R3."""
    await request(site.make_app(), "POST", "/items")
    assert len(errors()) == 1


async def test_get_runner_and_misuse(anyio_backend: Any) -> None:
    """M8: what is missing is named."""
    runner = Runner()
    app = Application(router=Router())
    assert init_app(app, runner=runner) is runner
    assert get_runner(app) is runner
    own = Application(router=Router())
    assert init_app(own, history=5) is get_runner(own)
    with pytest.raises(MiddlewareNotInstalled, match="init_app"):
        get_runner(Application(router=Router()))
    with pytest.raises(TypeError, match="either runner= or its options"):
        init_app(Application(router=Router()), runner=runner, history=5)
    with pytest.raises(MiddlewareNotInstalled):
        tasks_from(Request("GET", b"/", []))


async def test_parameter_stays_out_of_the_openapi_document(anyio_backend: Any) -> None:
    """No parameter, no body, nothing of ours."""
    app = site.make_app()
    docs = OpenAPIHandler(info=Info(title="test", version="1"))
    docs.bind_app(app)
    await app.start()
    document = (await request(app, "GET", "/openapi.json")).json()
    assert not document["paths"]["/items"]["post"].get("parameters")
    assert "requestBody" not in document["paths"]["/items"]["post"]
    assert "Background" not in str(document)


def test_server_runs_jobs_of_every_kind(tmp_path: Path) -> None:
    """M4, M7 behind a real server; a mounted application's too."""
    with servers_of("tests.integrations.sites.blacksheep:served", tmp_path) as start:
        server = start()
        for path in ("/items", "/stream", "/sub/inner", "/crash"):
            server.get(path)
        expected = sorted(
            ["startup", *["before an error", "while streaming", "mounted", "before a crash"]]
        )
        server.until(lambda: sorted(get_json(server, "/words")) == expected, "all words")
