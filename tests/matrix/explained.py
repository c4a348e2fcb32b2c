"""Where a scenario goes another way, why, and what happens instead.

Each explanation is tested as the scenario would be: it fails when it is no longer true, be it
that the scenario has come to work. Then remove it.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

import pytest

from tests.matrix.cell import Cell
from tests.matrix.columns import Column, Row
from tests.matrix.links import Refused
from tests.matrix.scenarios import Check, Scenario, left_stream
from tests.servers.harness import unique

RETURN_TIME = 5.0
"""For how many seconds the jobs of an app that does not return wait (M4)."""


@dataclass(frozen=True)
class Explanation:
    """What happens instead of scenarios.

    Attributes:
        scenarios: Their names; empty for all of them.
        reason: What is so there and why, for the documentation.
        check: Fails where that is not so.
        columns: The names of the servers; empty for all.
        rows: The names of the frameworks; empty for all.
    """

    scenarios: tuple[str, ...]
    reason: str
    check: Check
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    def covers(self, scenario: Scenario, row: Row, column: Column) -> bool:
        """Whether this is about that scenario there."""
        return (
            (not self.scenarios or scenario.name in self.scenarios)
            and (not self.columns or column.name in self.columns)
            and (not self.rows or row.name in self.rows)
        )


def explanation(scenario: Scenario, row: Row, column: Column) -> Explanation | None:
    """Return what happens instead of a scenario; None where it happens as it should."""
    return next((found for found in EXPLAINED if found.covers(scenario, row, column)), None)


# AWS Lambda: an invocation is a whole life, with startup and shutdown.


def handed_back_after_jobs(cell: Cell) -> None:
    """R6: the drain is part of the invocation."""
    server, call = cell.server, unique()
    with cell.link() as link:
        link.send("/plain", id=call, task=["async", "sync"], hold="task")
        server.at("task-started", id=call)
        server.open(f"{call}.task")
        assert link.rest().body == call.encode()
    server.until_ended(call, 2)
    ended = server.events("task-ended", id=call)[-1]["at"]
    assert ended <= server.at("handed-back", id=call)


def handed_back_whole(cell: Cell) -> None:
    server, call = cell.server, unique()
    with cell.link() as link:
        link.send("/stream", id=call, task="durable")
        server.at("app-waiting", id=call)
        server.open(f"{call}.app")
        assert link.rest().status == 200
    assert server.at("app-left", id=call) <= server.at("task-started", id=call)
    assert server.at("task-ended", id=call) <= server.at("handed-back", id=call)


def goes_on_unseen(cell: Cell) -> None:
    """M6."""
    server, call = cell.server, unique()
    with cell.link() as link:
        link.send("/stream", id=call, task=["durable", "async"])
        server.at("app-waiting", id=call)
    server.open(f"{call}.app")
    server.until_ended(call, 2)
    assert len(server.events("chunk", id=call)) == 3  # all of them


def one_at_a_time(cell: Cell) -> None:
    server, call, following = cell.server, unique(), unique()
    with cell.link() as link, cell.link() as other:
        link.send("/plain", id=call, task="async", hold="task")
        server.at("task-started", id=call)
        other.send("/plain", id=following, task="async")
        server.open(f"{call}.task")
        assert link.rest().body == call.encode()
        assert other.rest().body == following.encode()
    assert server.at("task-ended", id=call) <= server.at("task-started", id=following)


def http_events_only(cell: Cell) -> None:
    with cell.link() as link, pytest.raises(Refused, match="502"):
        link.websocket("/ws", id=unique())


def recovered_by_the_next(cell: Cell) -> None:
    """J3, once there is an invocation."""
    call = _interrupted(cell)
    cell.restart()
    _finished(cell, call)


def ended_in_the_middle(cell: Cell) -> None:
    """J3: what the end of the instance interrupts, another runs."""
    call = _interrupted(cell)
    cell.server.terminate()
    assert cell.server.exit_code() == -signal.SIGTERM
    assert not cell.server.has("task-ended", id=call)
    cell.restart()
    _finished(cell, call)


def _interrupted(cell: Cell) -> str:
    call = unique()
    with cell.link() as link:
        link.send("/plain", id=call, task="durable", hold="task")
        cell.server.at("task-started", id=call)
    return call


def _finished(cell: Cell, call: str) -> None:
    """The next event runs it, if it lasts until the runner has taken the job."""
    server, other = cell.server, unique()
    assert not server.has("task-ended", id=call)
    with cell.link() as link:
        link.send("/stream", id=other)
        server.until(lambda: len(server.events("job", id=call)) == 2, "second attempt")
        server.open(f"{call}.task")
        server.open(f"{other}.app")
        assert link.rest().status == 200
    server.until_ended(call, 1)
    first, second = server.events("job", id=call)
    assert first["job"] == second["job"]


# Single limits of servers and frameworks.


def send_never_returns(cell: Cell) -> None:
    """M4 is about the last message: the app does not get that far."""
    server, call = cell.server, left_stream(cell)
    server.at("chunk", id=call)
    time.sleep(RETURN_TIME + 1)  # for what must not happen
    assert len(server.events("chunk", id=call)) < 3
    assert not server.has("task-started", id=call)


def end_is_not_told(cell: Cell) -> None:
    server, call = cell.server, unique()
    with cell.link() as link:
        socket = link.websocket("/ws", id=call, task=["durable", "async"])
        assert socket.text() == call
        socket.close()
    for _ in range(2):
        following = unique()
        cell.get("/plain", id=following, task="async")
        server.until_ended(following, 1)
    assert not server.has("task-started", id=call)


def not_offered(cell: Cell) -> None:
    with cell.link() as link, pytest.raises(ConnectionError, match="reset the stream"):
        link.websocket("/ws", id=unique())


def refused_by_django(cell: Cell) -> None:
    with cell.link() as link, pytest.raises((Refused, ConnectionError)):
        link.websocket("/ws", id=unique())
    cell.server.until_logged("Django can only handle ASGI/HTTP connections, not websocket")


def scheme_is_missing(cell: Cell) -> None:
    with cell.link() as link, pytest.raises(Refused, match="500"):
        link.websocket("/ws", id=unique())
    cell.server.until_logged("KeyError: 'scheme'")


def fails_for_every_event(cell: Cell) -> None:
    with cell.link() as link:
        assert link.get("/plain", id=unique()).status == 500
    cell.server.until_logged("ValueError: Expected bytes or str")


def headers_with_capitals(cell: Cell) -> None:
    """M6: the jobs run all the same."""
    call = unique()
    with cell.link() as link, pytest.raises(ConnectionError, match="Content-Type"):
        link.get("/plain", id=call, task=["async", "sync"])
    cell.server.until_ended(call, 2)


def streams_with_http1_header(cell: Cell) -> None:
    """M6: the jobs run all the same."""
    call = unique()
    with cell.link() as link:
        link.send("/stream", id=call, task=["durable", "async"])
        with pytest.raises(ConnectionError, match="transfer-encoding"):
            link.first()
    cell.server.open(f"{call}.app")
    cell.server.until_ended(call, 2)


LAMBDA = ("mangum",)

EXPLAINED = [
    # Before the others on AWS Lambda, as nothing of them is to be seen there.
    Explanation(
        (),
        "BlackSheep needs the raw path of a request, which Mangum does not give (it is "
        "optional): every request is answered with 500.",
        fails_for_every_event,
        LAMBDA,
        ("blacksheep",),
    ),
    Explanation(
        (),
        "Django names headers with capitals, as in `Content-Type`, and Hypercorn passes them on; "
        "HTTP/3 forbids them, so clients drop the connection. The jobs run (M6).",
        headers_with_capitals,
        ("hypercorn-h3",),
        ("django",),
    ),
    Explanation(
        ("stream", "client-leaves"),
        "BlackSheep sends streams with the header `transfer-encoding`, and Hypercorn passes it "
        "on; HTTP/3 forbids it, so clients drop the connection. The jobs run (M6).",
        streams_with_http1_header,
        ("hypercorn-h3",),
        ("blacksheep",),
    ),
    Explanation(
        ("response-ends",),
        "An invocation ends when its jobs have: the adapter shuts the application down after "
        "each request, and hands the response back after that (R6).",
        handed_back_after_jobs,
        LAMBDA,
    ),
    Explanation(
        ("stream",),
        "The adapter hands a response back as a whole, after its jobs.",
        handed_back_whole,
        LAMBDA,
    ),
    Explanation(
        ("client-leaves",),
        "Nobody tells the function of a client that leaves; its jobs run (M6).",
        goes_on_unseen,
        LAMBDA,
    ),
    Explanation(
        ("keep-alive",),
        "An instance serves one event at a time; the next waits for the jobs of the one before, "
        "or goes to another instance.",
        one_at_a_time,
        LAMBDA,
    ),
    Explanation(("websocket",), "Mangum takes events of HTTP only.", http_events_only, LAMBDA),
    Explanation(
        ("restart",),
        "What was interrupted runs during a later event (J3), one that lasts until the runner "
        "has taken the job: short ones may shut down before. The journal must be on a file "
        "system that outlives the instance.",
        recovered_by_the_next,
        LAMBDA,
    ),
    Explanation(
        ("sigterm",),
        "Nothing in an instance waits at `SIGTERM`. A durable job runs during a later event, "
        "as after a crash (J3).",
        ended_in_the_middle,
        LAMBDA,
    ),
    Explanation(
        ("client-leaves",),
        "When an HTTP/2 client has closed its connection, `send` never returns. An application "
        "that does not listen for `http.disconnect` in the middle of a stream hangs there until "
        "the server shuts down; its jobs start then (M6).",
        send_never_returns,
        ("hypercorn-h2",),
        ("raw", "falcon", "blacksheep"),
    ),
    Explanation(
        ("websocket",),
        "Hypercorn does not tell the application when a websocket over HTTP/3 has ended, so the "
        "jobs of one that waits for this do not start before the shutdown.",
        end_is_not_told,
        ("hypercorn-h3",),
        ("raw", "starlette", "fastapi", "litestar", "quart", "falcon", "blacksheep"),
    ),
    Explanation(
        ("websocket",),
        "Granian has websockets over HTTP/1.1 only.",
        not_offered,
        ("granian-h2",),
    ),
    Explanation(
        ("websocket",),
        "Django's ASGI application serves HTTP only.",
        refused_by_django,
        rows=("django",),
    ),
    Explanation(
        ("websocket",),
        "Quart needs the scheme of a websocket, which Daphne does not give (it is optional).",
        scheme_is_missing,
        ("daphne",),
        ("quart",),
    ),
]
