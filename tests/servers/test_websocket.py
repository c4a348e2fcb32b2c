"""The end of a websocket is the end of its response: M3, M4, M6."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers import need
from tests.servers.harness import DAPHNE, DEADLINE, Server, reset_on_close, unique

executor = pytest.mark.parametrize("task", ["async", "sync"])


def connect(server: Server, path: str) -> Any:
    """Open a websocket, or raise what says that it was refused."""
    client = need("websockets.sync.client")
    return client.connect(
        f"ws://127.0.0.1:{server.port}{path}",
        open_timeout=DEADLINE,
        close_timeout=DEADLINE,
        ping_interval=None,
        proxy=None,
    )


def assert_runs_once(server: Server, call: str) -> None:
    server.at("task-ended", id=call)
    server.settle()
    assert len(server.events("task-started", id=call)) == 1
    assert server.at("app-returned", id=call) <= server.at("task-started", id=call)


@executor
def test_websocket_that_the_app_closes_runs_its_task(server: Server, task: str) -> None:
    """M3: with ``websocket.close``."""
    call = unique()
    with connect(server, f"/ws-close?id={call}&task={task}&hold=app") as websocket:
        server.at("app-waiting", id=call)
        assert not server.has("task-started", id=call)
        server.open(f"{call}.app")
        with pytest.raises(need("websockets").ConnectionClosed):
            websocket.recv(timeout=DEADLINE)
    assert_runs_once(server, call)


@executor
def test_websocket_that_the_app_leaves_open_runs_its_task(server: Server, task: str) -> None:
    """M3: it returns, and leaves the rest to the server; daphne does not even close then."""
    call = unique()
    with connect(server, f"/ws-return?id={call}&task={task}&hold=app") as websocket:
        server.at("app-waiting", id=call)
        assert not server.has("task-started", id=call)
        server.open(f"{call}.app")
        if server.kind is not DAPHNE:
            with pytest.raises(need("websockets").ConnectionClosed):
                websocket.recv(timeout=DEADLINE)
        assert_runs_once(server, call)


@executor
def test_websocket_that_the_client_closes_runs_its_task(server: Server, task: str) -> None:
    """M3: the app is told with ``websocket.disconnect``."""
    call = unique()
    with connect(server, f"/ws-listen?id={call}&task={task}"):
        server.at("app-waiting", id=call)
        assert not server.has("task-started", id=call)
    assert_runs_once(server, call)


@executor
@pytest.mark.parametrize("how", ["close", "reset"])
def test_websocket_whose_client_vanishes_runs_its_task(server: Server, task: str, how: str) -> None:
    """M6: the connection goes without a closing handshake."""
    call = unique()
    with connect(server, f"/ws-listen?id={call}&task={task}") as websocket:
        server.at("app-waiting", id=call)
        if how == "reset":
            reset_on_close(websocket.socket)
        websocket.close_socket()
        assert_runs_once(server, call)


@executor
def test_websocket_task_outlives_the_connection(server: Server, task: str) -> None:
    """M6: the client leaves while the task runs."""
    call = unique()
    with connect(server, f"/ws-close?id={call}&task={task}&hold=task"):
        server.at("task-started", id=call)
    server.settle()
    assert not server.has("task-ended", id=call)
    server.open(f"{call}.task")
    assert_runs_once(server, call)


@executor
def test_refused_handshake_runs_its_task_unless_it_asks_for_success(
    server: Server, task: str
) -> None:
    """M3, M5: closing instead of accepting answers with 403, which is a response."""
    ran, dropped = unique(), unique()
    for call, run_on in ((ran, "response"), (dropped, "success")):
        with pytest.raises(need("websockets").InvalidStatus):
            connect(server, f"/ws-refuse?id={call}&task={task}&run_on={run_on}")
    assert_runs_once(server, ran)
    server.settle()
    assert not server.has("task-started", id=dropped)
