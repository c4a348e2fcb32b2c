"""`asgi_bg.falcon`, on a real Falcon: by its test client, and by real servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import Runner
from asgi_bg.exceptions import MiddlewareNotInstalled
from tests.helpers import need, until, wait_until
from tests.integrations.notes import LOG
from tests.integrations.serving import get_json, servers_of

need("falcon")

import falcon  # noqa: E402
import falcon.asgi  # noqa: E402
import falcon.testing  # noqa: E402

from asgi_bg.falcon import get_runner, init_app, tasks_from  # noqa: E402
from tests.integrations import falcon_site as site  # noqa: E402


@pytest.fixture(autouse=True)
def _clear() -> None:
    LOG.clear()


def client(**options: Any) -> Any:
    return falcon.testing.TestClient(init_app(site.make_app(), **options))


def wait_for(*words: str) -> None:
    """Wait until the log has these words, in any order, and no others."""

    def are_there() -> bool:
        noted = [word for word in LOG if word not in ("startup", "shutdown")]
        return sorted(noted) == sorted(words)

    wait_until(are_there, f"{words}")


def test_tasks_of_a_request(errors: Callable[[], list[str]]) -> None:
    """M8, R3, R4: by way of the request and from any depth; one that fails stops nothing."""
    result = client().simulate_post("/items")
    assert len(result.json["job"]) == 32
    wait_for("item", "visitor ada")
    assert len(errors()) == 1


def test_http_error_and_crash() -> None:
    """M5: an HTTP error is a response, and so is the 500 of Falcon's error handler."""
    assert client().simulate_get("/items").status_code == 404
    assert client(run_on="success").simulate_get("/items").status_code == 404
    assert client().simulate_delete("/items").status_code == 500
    wait_for("before an error", "before a crash")


def test_falcons_own_callbacks_run_beside() -> None:
    """`resp.schedule` and `resp.schedule_sync` are as they were."""
    assert client().simulate_get("/both").text == "ok"
    wait_for("falcon async", "falcon sync", "asgi_bg")


def test_stream_and_events() -> None:
    """M3: the end of either is that of the response."""
    assert client().simulate_get("/stream").content == b"onetwo"
    wait_for("while streaming")
    LOG.clear()
    assert client().simulate_put("/stream").text.count("data:") == 2
    wait_for("between events")


@pytest.mark.anyio
async def test_websocket_and_lifespan(anyio_backend: Any) -> None:
    """M3, R6: Falcon's conductor starts the application, and ends it after the jobs."""
    async with falcon.testing.ASGIConductor(init_app(site.make_app())) as conductor:
        async with conductor.simulate_ws("/stream") as socket:
            await socket.send_text("hello")
        await until(lambda: "hello" in LOG, 40)
        await conductor.simulate_post("/items")
    assert LOG == ["startup", "hello", "item", "visitor ada", "shutdown"]


def test_get_runner_and_misuse() -> None:
    """M8: what is missing is named."""
    runner = Runner()
    bare = site.make_app()
    app = init_app(bare, runner=runner)
    assert get_runner(app) is runner
    with pytest.raises(MiddlewareNotInstalled, match="init_app"):
        get_runner(bare)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"falcon\.asgi\.App"):
        init_app(falcon.App())
    with pytest.raises(TypeError, match="either runner= or its options"):
        init_app(bare, runner=runner, history=5)
    request = falcon.testing.create_asgi_req()
    with pytest.raises(MiddlewareNotInstalled):
        tasks_from(request)


def test_server_runs_jobs_of_every_kind(tmp_path: Path) -> None:
    """M4 behind a real server."""
    with servers_of("tests.integrations.sites.falcon:served", tmp_path) as start:
        server = start()
        for path in ("/both", "/stream", "/items"):
            server.get(path)
        expected = sorted(
            [
                "startup",
                *["asgi_bg", "falcon async", "falcon sync", "while streaming", "before an error"],
            ]
        )
        server.until(lambda: sorted(get_json(server, "/words")) == expected, "all words")
