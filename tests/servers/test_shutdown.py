"""SIGTERM while requests are served and jobs run: R6, and R7 on daphne."""

from __future__ import annotations

import pytest

from tests.servers.conftest import StartServer
from tests.servers.harness import (
    DAPHNE,
    GRANIAN,
    HYPERCORN,
    SUPERVISING,
    UVICORN,
    UVICORN_HTTPTOOLS,
    Kind,
    unique,
)

COMPLETE = "lifespan.shutdown.complete"


executors = pytest.mark.parametrize(
    ("kind", "task"),
    [(kind, task) for kind in SUPERVISING for task in ("async", "sync", "process")],
    ids=str,
)


@executors
def test_running_task_is_finished_before_the_server_ends(
    start: StartServer, kind: Kind, task: str
) -> None:
    """R6: and before the app shuts down what the task may use."""
    server = start(kind)
    call = unique()
    server.get("/plain", id=call, task=[task, task], hold="task")
    server.at("task-started", id=call)
    server.terminate()
    server.at("server-says", type="lifespan.shutdown")
    assert server.is_alive()
    assert not server.has("app-shutdown")
    server.open(f"{call}.task")
    assert server.exit_code() == kind.exit_code
    assert len(server.events("task-ended", id=call)) == 2
    last = server.events("task-ended", id=call)[-1]["at"]
    assert last <= server.at("app-shutdown") <= server.at("server-told", type=COMPLETE)
    assert "not done" not in server.log()


@executors
def test_task_longer_than_the_drain_is_cancelled_and_named(
    start: StartServer, kind: Kind, task: str
) -> None:
    """R6: the server ends after ``drain_timeout``, though the task would go on for ever."""
    server = start(kind, "brief")
    call = unique()
    server.get("/plain", id=call, task=task, hold="task")
    server.at("task-started", id=call)
    server.terminate()
    assert server.exit_code() == kind.exit_code
    (line,) = [line for line in server.log().splitlines() if "not done when" in line]
    (added,) = server.events("added", id=call)
    assert f"tests.servers.tasks:{task}_task ({added['job']})" in line
    assert not server.has("task-ended", id=call)
    assert server.has("task-cancelled", id=call) is (task == "async")
    said = server.at("server-says", type="lifespan.shutdown")
    assert server.at("server-told", type=COMPLETE) - said >= 0.99
    assert server.has("app-shutdown")


@pytest.mark.parametrize(
    "task",
    [
        "async",
        "sync",
    ],
)
def test_task_behind_one_that_is_cancelled_is_cancelled_and_named_too(
    start: StartServer, task: str
) -> None:
    """R6: it does not get to run when the one before it makes room."""
    server = start(UVICORN, "brief")
    call = unique()
    server.get("/plain", id=call, task=[task, "async"], hold="task")
    server.at("task-started", id=call)
    server.terminate()
    assert server.exit_code() == UVICORN.exit_code
    (line,) = [line for line in server.log().splitlines() if "not done when" in line]
    for added, name in zip(server.events("added", id=call), (task, "async"), strict=True):
        assert f"tests.servers.tasks:{name}_task ({added['job']})" in line
    assert len(server.events("task-started", id=call)) == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (UVICORN, ()),
        (UVICORN_HTTPTOOLS, ()),
        (HYPERCORN, ("--graceful-timeout", "60")),
        (GRANIAN, ()),
    ],
    ids=str,
)
def test_request_being_served_is_answered_and_its_task_run(
    start: StartServer, kind: Kind, options: tuple[str, ...]
) -> None:
    """R6: servers wait for what they serve, and then the drain for what that has added."""
    server = start(kind, "app", *options)
    call = unique()
    with server.connect() as connection, server.connect() as idle:
        idle.get("/plain")
        connection.send("/plain", id=call, task=["async", "sync"], hold="app")
        server.at("app-waiting", id=call)
        server.terminate()
        # The first that all servers do on the way down.
        assert idle.is_closed_by_server()
        assert server.is_alive()
        server.open(f"{call}.app")
        assert connection.read().status == 200
    assert server.exit_code() == kind.exit_code
    assert len(server.events("task-ended", id=call)) == 2
    assert server.at("task-ended", id=call) <= server.at("app-shutdown")


@pytest.mark.parametrize("kind", [UVICORN, HYPERCORN], ids=str)
def test_call_cancelled_after_its_response_runs_its_task(start: StartServer, kind: Kind) -> None:
    """M4, R6: the graceful time is over while the app cleans up, and the drain comes after."""
    option = "--timeout-graceful-shutdown" if kind is UVICORN else "--graceful-timeout"
    server = start(kind, "app", option, "1")
    call = unique()
    assert server.get("/yielding", id=call, task=["async", "sync"], hold="app").status == 200
    server.at("app-waiting", id=call)
    server.terminate()
    assert server.exit_code() == kind.exit_code
    assert len(server.events("task-ended", id=call)) == 2
    assert server.at("app-cancelled", id=call) <= server.at("task-started", id=call)


def test_call_that_granian_does_not_await_is_waited_for(start: StartServer) -> None:
    """R6: its cleanup after the response would vanish, and the tasks that this adds with it."""
    server = start(GRANIAN)
    call = unique()
    server.get("/late", id=call, task="async", hold="app")
    server.at("app-waiting", id=call)
    server.terminate()
    server.at("server-says", type="lifespan.shutdown")
    server.open(f"{call}.app")
    assert server.exit_code() == 0
    assert len(server.events("task-ended", id=call)) == 2
    assert server.at("app-returned", id=call) <= server.at("app-shutdown")


@pytest.mark.parametrize("task", ["async", "sync"])
def test_daphne_waits_at_shutdown_for_the_call_that_runs_the_task(
    start: StartServer, task: str
) -> None:
    """R7: it cancels the call at once, and the task is shielded from that."""
    server = start(DAPHNE)
    call, other = unique(), unique()
    server.get("/plain", id=call, task=task, hold="task")
    server.at("task-started", id=call)
    # Shows when daphne has cancelled the calls.
    server.get("/linger", id=other, hold="app")
    server.at("app-waiting", id=other)
    server.terminate()
    server.at("app-cancelled", id=other)
    server.open(f"{other}.app")
    server.at("app-returned", id=other)
    assert server.is_alive()
    assert not server.has("task-ended", id=call)
    server.open(f"{call}.task")
    assert server.exit_code() == 0
    assert len(server.events("task-ended", id=call)) == 1
    assert not server.has("task-cancelled", id=call)


def test_daphne_waits_only_until_a_cancelled_call_has_ended(start: StartServer) -> None:
    """R7, and its limit: with a request being served, only a durable job would outlive this."""
    server = start(DAPHNE)
    call, other = unique(), unique()
    server.get("/plain", id=call, task="async", hold="task")
    server.at("task-started", id=call)
    server.get("/yielding", id=other, hold="app")
    server.at("app-waiting", id=other)
    server.terminate()
    assert server.exit_code() == 0
    assert server.has("app-cancelled", id=other)
    assert not server.has("task-ended", id=call)


def test_idle_server_ends_at_once(start: StartServer, supervising: Kind) -> None:
    """R6: with tasks done in threads and processes, whose idle ends hold nothing up."""
    server = start(supervising)
    call = unique()
    server.get("/plain", id=call, task=["async", "sync", "process"])
    server.until_ended(call, 3)
    server.terminate()
    assert server.exit_code() == supervising.exit_code
    story = [event.get("type") for event in server.events() if event["event"].startswith("server")]
    assert story == [
        "lifespan.startup",
        "lifespan.startup.complete",
        "lifespan.shutdown",
        "lifespan.shutdown.complete",
    ]
    took = server.at("server-told", type=COMPLETE) - server.at(
        "server-says", type="lifespan.shutdown"
    )
    assert took < 10  # `drain_timeout` is 25
