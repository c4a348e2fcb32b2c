"""Apps whose lifespan is lacking, and servers told to do without: R6, R7."""

from __future__ import annotations

import pytest

from tests.servers.conftest import StartServer
from tests.servers.harness import GRANIAN, HYPERCORN, UVICORN, Kind, Server, unique

WHOLE = [
    "lifespan.startup",
    "lifespan.startup.complete",
    "lifespan.shutdown",
    "lifespan.shutdown.complete",
]


def assert_supervised(server: Server) -> None:
    """R6: a task outlives its request, and a shutdown waits for its end."""
    call = unique()
    assert server.get("/plain", id=call, task="async", hold="task").status == 200
    server.at("task-started", id=call)
    server.settle()
    assert server.has("call-ended", id=call)
    server.terminate()
    server.at("server-says", type="lifespan.shutdown")
    assert server.is_alive()
    assert not server.has("task-ended", id=call)
    server.open(f"{call}.task")
    assert server.exit_code() == server.kind.exit_code
    assert server.has("task-ended", id=call)
    assert lifespan(server) == WHOLE


def lifespan(server: Server) -> list[str]:
    return [event["type"] for event in server.events() if event["event"].startswith("server-")]


@pytest.mark.parametrize(
    "app",
    [
        "wrapped_refusing",
        "wrapped_ignoring",
        "wrapped_unaware",
    ],
)
def test_app_without_lifespan_is_supervised(
    start: StartServer, supervising: Kind, app: str
) -> None:
    """R6: it raises on that scope, returns at once, or takes it for a request."""
    server = start(supervising, app)
    assert_supervised(server)
    assert "Traceback" not in server.log()


def test_app_whose_lifespan_dies_is_supervised(start: StartServer, supervising: Kind) -> None:
    """R6: though the server would never ask such an app to shut down."""
    server = start(supervising, "wrapped_dying")
    server.open("lifespan")
    server.until_logged("the lifespan fails on purpose")
    assert_supervised(server)


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(UVICORN, 3), (HYPERCORN, 0), (GRANIAN, 1)], ids=str
)
def test_app_that_cannot_start_is_not_served(
    start: StartServer, kind: Kind, exit_code: int
) -> None:
    """R6: ``lifespan.startup.failed`` passes through, and each server does what it does."""
    server = start(kind, "wrapped_unstartable", is_up=False)
    assert server.exit_code() == exit_code
    assert lifespan(server) == ["lifespan.startup", "lifespan.startup.failed"]
    assert "there is no database" in server.log()


def test_app_that_fails_to_stop_says_so(start: StartServer, supervising: Kind) -> None:
    """R6: ``lifespan.shutdown.failed`` passes through, after the tasks have been finished."""
    server = start(supervising, "wrapped_unstoppable")
    call = unique()
    server.get("/plain", id=call, task=["async", "sync"], hold="task")
    server.at("task-started", id=call)
    server.terminate()
    server.at("server-says", type="lifespan.shutdown")
    server.open(f"{call}.task")
    server.exit_code()
    assert len(server.events("task-ended", id=call)) == 2
    assert lifespan(server) == [*WHOLE[:3], "lifespan.shutdown.failed"]


@pytest.mark.parametrize("task", ["async", "sync"])
def test_server_without_lifespan_runs_tasks_within_the_call(share: StartServer, task: str) -> None:
    """R7: ``uvicorn --lifespan off``; the response is complete before that."""
    server = share(UVICORN, "app", "--lifespan", "off")
    call = unique()
    with server.connect() as connection:
        assert connection.get("/plain", id=call, task=task, hold="task").status == 200
        server.at("task-started", id=call)
        assert connection.get("/plain", id=unique()).status == 200
    server.settle()
    assert not server.has("call-ended", id=call)
    server.open(f"{call}.task")
    server.at("call-ended", id=call)
    assert server.story(call)[-2:] == ["task-ended", "call-ended"]
    assert lifespan(server) == []


def test_server_without_lifespan_waits_for_the_task_at_shutdown(start: StartServer) -> None:
    """R7: as it waits for any call, and ends when that has returned."""
    server = start(UVICORN, "app", "--lifespan", "off")
    call = unique()
    server.get("/plain", id=call, task="async", hold="task")
    server.at("task-started", id=call)
    server.terminate()
    server.until_logged("Waiting for background tasks to complete")
    server.open(f"{call}.task")
    assert server.exit_code() == UVICORN.exit_code
    assert server.has("task-ended", id=call)
