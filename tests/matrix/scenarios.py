"""What a job may rely on, whatever the framework and the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.matrix.cell import Cell
from tests.servers.harness import unique

Check = Callable[[Cell], None]


@dataclass(frozen=True)
class Scenario:
    """One line of the promise.

    Attributes:
        name: What the tests call it.
        title: What the documentation calls it.
        check: Fails where it does not hold.
    """

    name: str
    title: str
    check: Check


def response_ends(cell: Cell) -> None:
    """M4: the client has its response while the jobs run."""
    server, call = cell.server, unique()
    assert cell.get("/plain", id=call, task=["async", "sync"], hold="task") == call.encode()
    server.at("task-started", id=call)
    assert not server.has("task-ended", id=call)
    server.open(f"{call}.task")
    server.until_ended(call, 2)


def stream(cell: Cell) -> None:
    """M2, M4: no part of a stream waits for its job, and the job waits for the last part."""
    server, call = cell.server, unique()
    with cell.link() as link:
        link.send("/stream", id=call, task="durable")
        assert link.first()
        server.at("app-waiting", id=call)
        assert not server.has("task-started", id=call)
        server.open(f"{call}.app")
        assert link.rest().status == 200
    assert server.at("task-started", id=call) >= server.at("app-left", id=call)
    server.until_ended(call, 1)


def client_leaves(cell: Cell) -> None:
    """M6: in the middle of a stream, which changes nothing."""
    call = left_stream(cell)
    cell.server.until_ended(call, 2)


def left_stream(cell: Cell) -> str:
    """Leave in the middle of a stream, and let it go on then; return its id."""
    call = unique()
    with cell.link() as link:
        link.send("/stream", id=call, task=["durable", "async"])
        assert link.first()
        cell.server.at("app-waiting", id=call)
    cell.server.open(f"{call}.app")
    return call


def keep_alive(cell: Cell) -> None:
    """R2: the next request on a connection does not wait for the jobs of the one before."""
    server, call, following = cell.server, unique(), unique()
    with cell.link() as link:
        assert link.get("/plain", id=call, task=["async", "sync"], hold="task").status == 200
        server.at("task-started", id=call)
        assert link.get("/plain", id=following, task="async").body == following.encode()
        server.until_ended(following, 1)
        assert not server.has("task-ended", id=call)
        server.open(f"{call}.task")
        server.until_ended(call, 2)


def task_error(cell: Cell) -> None:
    """R3: neither the connection nor another job hears of a job that fails."""
    server, call, following = cell.server, unique(), unique()
    with cell.link() as link:
        assert link.get("/plain", id=call, task=["fail", "async"]).status == 200
        server.until_ended(call, 2)
        server.until_logged(f"RuntimeError: {call} fails on purpose")
        assert link.get("/plain", id=following, task="async").body == following.encode()
        server.until_ended(following, 1)
    assert server.log().count(f"RuntimeError: {call} fails on purpose") == 1


def websocket(cell: Cell) -> None:
    """M3, M4: the jobs of a websocket run when it is closed."""
    server, call = cell.server, unique()
    with cell.link() as link:
        socket = link.websocket("/ws", id=call, task=["durable", "async"])
        assert socket.text() == call
        assert not server.has("task-started", id=call)
        socket.close()
        server.until_ended(call, 2)


def restart(cell: Cell) -> None:
    """J3: a job that was running when all processes were killed runs again, under its id."""
    call = unique()
    assert cell.get("/plain", id=call, task="durable", hold="task") == call.encode()
    cell.server.at("task-started", id=call)
    cell.restart()
    cell.server.open(f"{call}.task")
    if not cell.column.kind.has_lifespan:
        cell.get("/plain", id=unique())  # what starts the runner, without lifespan (R7)
    cell.server.until_ended(call, 1)
    first, second = cell.server.events("job", id=call)
    assert first["job"] == second["job"]
    assert first["pid"] != second["pid"]


def sigterm(cell: Cell) -> None:
    """R6: the server ends when the jobs have, which it waits for."""
    server, call = cell.server, unique()
    assert cell.get("/plain", id=call, task=["durable", "sync"], hold="task") == call.encode()
    server.at("task-started", id=call)
    server.terminate()
    if cell.column.kind.has_lifespan:
        server.at("server-says", type="lifespan.shutdown")
    else:
        server.until_logged("pending application instances")  # Daphne has cancelled them
    assert server.is_alive()
    assert not server.has("task-ended", id=call)
    server.open(f"{call}.task")
    assert server.exit_code() == cell.column.kind.exit_code
    assert len(server.events("task-ended", id=call)) == 2


SCENARIOS = [
    Scenario("response-ends", "response ends", response_ends),
    Scenario("stream", "stream", stream),
    Scenario("client-leaves", "client leaves early", client_leaves),
    Scenario("keep-alive", "keep-alive", keep_alive),
    Scenario("task-error", "task error", task_error),
    Scenario("websocket", "websockets", websocket),
    # These two end the process, in this order.
    Scenario("restart", "restart with a journal", restart),
    Scenario("sigterm", "`SIGTERM` with a running job", sigterm),
]
