"""`asgi_bg.falcon`, on a real Falcon: by its test client, and by real servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import Runner
from asgi_bg.exceptions import MiddlewareNotInstalled
from tests.helpers import need, until
from tests.integrations import serving

need("falcon")

import falcon  # noqa: E402
import falcon.asgi  # noqa: E402
import falcon.testing  # noqa: E402

from asgi_bg.falcon import get_runner, init_app, tasks_from  # noqa: E402
from tests.integrations import falcon_site as site  # noqa: E402

TARGET = "tests.integrations.falcon_site:app"


@pytest.fixture(autouse=True)
def _clear() -> None:
    site.LOG.clear()


def client(**options: Any) -> Any:
    return falcon.testing.TestClient(init_app(site.make_app(), **options))


def wait_for(*words: str) -> None:
    """Wait until the log has these words, in any order, and no others."""
    deadline = time.monotonic() + 40
    while sorted(word for word in site.LOG if word not in ("startup", "shutdown")) != sorted(words):
        assert time.monotonic() < deadline, site.LOG
        time.sleep(0.005)


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
    site.LOG.clear()
    assert client().simulate_put("/stream").text.count("data:") == 2
    wait_for("between events")


@pytest.mark.anyio
async def test_websocket_and_lifespan(anyio_backend: Any) -> None:
    """M3, R6: Falcon's conductor starts the application, and ends it after the jobs."""
    async with falcon.testing.ASGIConductor(init_app(site.make_app())) as conductor:
        async with conductor.simulate_ws("/stream") as socket:
            await socket.send_text("hello")
        await until(lambda: "hello" in site.LOG, 40)
        await conductor.simulate_post("/items")
    assert site.LOG == ["startup", "hello", "item", "visitor ada", "shutdown"]


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


def test_server_drains_and_journal_restarts(tmp_path: Path) -> None:
    """R6, J1, J3: a polite end waits for the job; after a crash the next process runs it."""
    words = tmp_path / "words"
    with serving.running(serving.uvicorn(TARGET), tmp_path) as server:
        serving.get_json(server, "/durable/polite")
        server.until(lambda: words.exists() and "polite begun" in words.read_text(), "its begin")
        server.terminate()
        server.until_logged("Waiting for application shutdown")
        server.open("polite.gate")
        server.exit_code()
        assert words.read_text() == "polite begun\npolite\n"
    with serving.running(serving.uvicorn(TARGET), tmp_path) as server:
        job = serving.get_json(server, "/durable/crash")["job"]
        server.until(lambda: "crash begun" in words.read_text(), "its begin")
        server.kill()
    with serving.running(serving.uvicorn(TARGET), tmp_path) as server:
        server.open("crash.gate")
        server.until(
            lambda: serving.get_json(server, f"/jobs/{job}")["status"] == "succeeded", "its end"
        )
        assert words.read_text().splitlines()[-1] == "crash"


def test_server_runs_jobs_of_every_kind(tmp_path: Path) -> None:
    """M4 behind a real server."""
    with serving.running(serving.uvicorn(TARGET), tmp_path) as server:
        for path in ("/both", "/stream", "/items"):
            server.get(path)
        expected = {"asgi_bg", "falcon async", "falcon sync", "while streaming", "before an error"}
        server.until(lambda: expected <= set(serving.get_json(server, "/log")), "all words")
