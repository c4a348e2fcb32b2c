"""Durable jobs of each framework behind real servers; see `tests.integrations.sites`.

Those of Django are in `test_django`, as it has a project and a database of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import need
from tests.integrations.serving import Start, get_json, servers_of
from tests.servers.harness import HYPERCORN, UVICORN

SITES = [
    ("litestar", UVICORN),
    ("litestar", HYPERCORN),
    ("quart", UVICORN),
    ("quart", HYPERCORN),
    ("falcon", UVICORN),
    ("blacksheep", UVICORN),
]


@pytest.fixture(params=SITES, ids=lambda param: f"{param[0]}-{param[1]}")
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start the site, each time on the same journal and the same record."""
    framework, kind = request.param
    need(framework)
    with servers_of(f"tests.integrations.sites.{framework}:served", tmp_path) as start_one:
        yield lambda: start_one(kind)


def test_server_drains_at_sigterm(start: Start) -> None:
    """R6: the jobs end, then the application is closed, then the server."""
    server = start()
    for name in ("async", "sync"):
        job = get_json(server, f"/{name}", id=name)["job"]
        server.at("task-started", id=name)
        assert [event["job"] for event in server.events("job", id=name)] == [job]
    server.terminate()
    server.at("server-says", type="lifespan.shutdown")
    assert not server.has("task-ended")
    for name in ("async", "sync"):
        server.open(f"{name}.task")
    assert server.exit_code() == server.kind.exit_code
    end = [event["event"] for event in server.events()][-4:]
    assert end == ["task-ended", "task-ended", "closed", "server-told"]
    assert "Traceback" not in server.log()


def test_client_that_leaves_a_stream_takes_no_job_along(start: Start) -> None:
    """M6: whether the framework goes on with the stream, or cancels it."""
    server = start()
    with server.connect() as client:
        client.send("/parts", id="left")
        with client.head() as response:
            assert response.read(3) == b"one"
    server.open("left.app")
    server.open("left.task")
    server.until_ended("left", 1)


def test_killed_server_loses_no_job(start: Start) -> None:
    """J1, J3: whoever has the answer has the job, with the same id after the restart."""
    server = start()
    job = get_json(server, "/sync", id="killed")["job"]
    server.at("task-started", id="killed")
    server.kill()
    server = start()
    server.open("killed.task")
    server.until_ended("killed", 1)
    assert [event["job"] for event in server.events("job", id="killed")] == [job, job]
    assert server.story("killed") == ["job", "task-started", "job", "task-started", "task-ended"]


@pytest.mark.parametrize(
    "framework",
    ["starlette", "fastapi", "litestar", "quart", "django", "falcon", "blacksheep"],
)
def test_without_its_framework_the_import_names_the_extra(framework: str) -> None:
    """As for every optional partner."""
    code = f"import sys; sys.modules[{framework!r}] = None; import asgi_bg.{framework}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"pip install 'asgi_bg[{framework}]'" in done.stderr
