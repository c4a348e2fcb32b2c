"""The client never decides whether jobs run, nor how often: M6, and M4 for hypercorn's HTTP/2."""

from __future__ import annotations

import pytest

from tests.servers.conftest import StartServer
from tests.servers.harness import DEADLINE, HYPERCORN, Leave, Server, http2_request, leaving, unique

executor = pytest.mark.parametrize("task", ["async", "sync"])


def assert_runs_once(server: Server, call: str) -> None:
    """The task runs, and has not been run twice when a later one is through."""
    server.at("task-ended", id=call)
    server.settle()
    assert len(server.events("task-started", id=call)) == 1
    assert len(server.events("task-ended", id=call)) == 1
    assert not server.has("task-cancelled", id=call)


@leaving
@executor
def test_client_that_leaves_before_the_response_changes_nothing(
    server: Server, leave: Leave, task: str
) -> None:
    """M6: the endpoint goes on and responds to nobody, and its task runs."""
    call = unique()
    with server.connect() as connection:
        connection.send("/plain", id=call, task=task, hold="app")
        server.at("app-waiting", id=call)
        leave(connection)
    server.open(f"{call}.app")
    assert_runs_once(server, call)


@leaving
@executor
def test_client_that_leaves_a_stream_changes_nothing(
    server: Server, leave: Leave, task: str
) -> None:
    """M6: the endpoint goes on sending to nobody, and its task runs."""
    call = unique()
    with server.connect() as connection:
        connection.send("/stream", id=call, task=task, hold="app")
        assert connection.head().read(10)
        server.at("app-waiting", id=call)
        leave(connection)
    server.open(f"{call}.app")
    assert_runs_once(server, call)
    assert server.at("final-sending", id=call) <= server.at("task-started", id=call)


@leaving
@executor
def test_stream_that_stops_as_the_client_left_runs_its_task(
    server: Server, leave: Leave, task: str
) -> None:
    """M6: as Starlette's streams do, which then send no last message."""
    call = unique()
    with server.connect() as connection:
        connection.send("/listen", id=call, task=task)
        assert connection.head().read(10)
        server.at("app-waiting", id=call)
        leave(connection)
    assert_runs_once(server, call)
    assert not server.has("final-sending", id=call)


@leaving
@executor
def test_client_that_leaves_during_the_task_changes_nothing(
    server: Server, leave: Leave, task: str
) -> None:
    """M6: the response is complete, and the task runs when the connection goes."""
    call = unique()
    with server.connect() as connection:
        connection.get("/plain", id=call, task=task, hold="task")
        server.at("task-started", id=call)
        leave(connection)
    # Other requests come and go, so the server has had time to notice.
    server.settle()
    assert not server.has("task-ended", id=call)
    server.open(f"{call}.task")
    assert_runs_once(server, call)


@leaving
def test_client_that_leaves_at_once_changes_nothing(server: Server, leave: Leave) -> None:
    """M6: it reads nothing at all; the request alone is enough."""
    ids = [unique() for _ in range(20)]
    for call in ids:
        with server.connect() as connection:
            connection.send("/plain", id=call, task="async")
            server.at("app-called", id=call)
            leave(connection)
    for call in ids:
        server.at("task-ended", id=call)
    server.settle()
    for call in ids:
        assert len(server.events("task-started", id=call)) == 1


def test_http2_client_that_vanishes_gets_its_task_run_after_five_seconds(
    start: StartServer,
) -> None:
    """M4: hypercorn's last `send` never returns when an HTTP/2 client's connection is gone.

    So the app does not return either, and its jobs start 5 seconds after that message. At
    shutdown the hanging call does not count as a request being served.
    """
    server = start(HYPERCORN, "app", "--graceful-timeout", "1")
    ids = {"async": unique(), "sync": unique()}
    for task, call in ids.items():
        with http2_request(server, f"/plain?id={call}&task={task}&hold=app"):
            server.at("app-waiting", id=call)
    # The server has heard of the end of a connection when it serves one opened after that.
    server.settle()
    for call in ids.values():
        server.open(f"{call}.app")
    for call in ids.values():
        assert server.at("task-started", id=call) - server.at("final-sending", id=call) >= 4.99
        assert_runs_once(server, call)
        assert server.story(call)[-1] == "task-ended"  # neither the `send` nor the app returned
    server.terminate()
    assert server.exit_code() == 0
    assert server.has("server-told", type="lifespan.shutdown.complete")
    for call in ids.values():
        assert len(server.events("task-started", id=call)) == 1


def test_http2_client_that_stays_gets_its_task_run_at_once(share: StartServer) -> None:
    """M4: the same over HTTP/2 as over HTTP/1.1, where the client is there."""
    server = share(HYPERCORN)
    call = unique()
    with http2_request(server, f"/plain?id={call}&task=async&hold=task") as sock:
        sock.settimeout(DEADLINE)
        received = b""
        while call.encode() not in received:
            chunk = sock.recv(65_536)
            assert chunk, server.report()
            received += chunk
        server.at("task-started", id=call)
        server.open(f"{call}.task")
        assert_runs_once(server, call)
