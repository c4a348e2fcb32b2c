"""What the design rests on: how servers treat plain apps, without the middleware.

A failure here says that a server has changed its ways, and that the code which makes up for
the old ones should be looked at.
"""

from __future__ import annotations

import http.client

import pytest

from tests.servers.conftest import StartServer
from tests.servers.harness import (
    ALL,
    DAPHNE,
    GRANIAN,
    HYPERCORN,
    UVICORN,
    UVICORN_HTTPTOOLS,
    Kind,
    Leave,
    Server,
    http2_request,
    leaving,
    unique,
)

BOTH_UVICORNS = pytest.mark.parametrize("kind", [UVICORN, UVICORN_HTTPTOOLS], ids=str)


@pytest.fixture(params=ALL, ids=str)
def bare(request: pytest.FixtureRequest, share: StartServer) -> Server:
    """Every server, with a plain app."""
    return share(request.param, "bare")


# Calls that go on after their response.


def test_call_that_goes_on_delays_neither_response_nor_next_request(bare: Server) -> None:
    """Every server ends the response at its last message, not when the call returns."""
    call = unique()
    with bare.connect() as connection:
        assert connection.get("/linger", id=call, hold="app").status == 200
        assert connection.get("/plain", id=unique()).status == 200
        assert not bare.has("app-returned", id=call)
    bare.open(f"{call}.app")
    bare.at("app-returned", id=call)


@BOTH_UVICORNS
def test_call_that_goes_on_counts_in_the_concurrency_limit_of_uvicorn(
    start: StartServer, kind: Kind
) -> None:
    """So jobs must not run within their calls where they need not (R6)."""
    server = start(kind, "bare", "--limit-concurrency", "3")
    ids = [unique() for _ in range(3)]
    with server.connect() as connection:
        for call in ids:
            assert connection.get("/linger", id=call, hold="app").status == 200
        assert connection.get("/plain", id=unique()).status == 503
    for call in ids:
        server.open(f"{call}.app")


def test_call_that_fails_late_closes_the_connection_on_uvicorn_only(bare: Server) -> None:
    """There a request in flight on it gets no answer, so jobs must never raise into it (R3)."""
    first, second = unique(), unique()
    with bare.connect() as connection:
        connection.get("/late-error", id=first, hold="app")
        connection.send("/plain", id=second, hold="app")
        bare.at("app-waiting", id=second)
        bare.open(f"{first}.app")
        bare.at("call-ended", id=first)
        if bare.kind in (UVICORN, UVICORN_HTTPTOOLS):
            assert connection.is_closed_by_server()
        bare.open(f"{second}.app")
        if bare.kind in (UVICORN, UVICORN_HTTPTOOLS):
            bare.at("app-returned", id=second)
        else:
            assert connection.read().status == 200


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_system_exit_of_a_call_ends_hypercorn_and_daphne(start: StartServer, kind: Kind) -> None:
    """So a job's must not get there (R3)."""
    server = start(kind, "bare")
    call = unique()
    with server.connect() as connection:
        connection.get("/late-exit", id=call, hold="app")
        server.open(f"{call}.app")
        server.at("app-returned", id=call)
    if kind in (HYPERCORN, DAPHNE):
        server.exit_code()
    else:
        assert server.get("/plain", id=unique()).status == 200


# Clients that leave.


@leaving
def test_client_that_left_is_told_by_receive_and_not_by_send(bare: Server, leave: Leave) -> None:
    """No server cancels the call, and the last `send` returns as if the client were there."""
    sending, listening = unique(), unique()
    with bare.connect() as connection:
        connection.send("/stream", id=sending, hold="app")
        bare.at("app-waiting", id=sending)
        leave(connection)
    bare.open(f"{sending}.app")
    bare.at("final-sent", id=sending)
    with bare.connect() as connection:
        connection.send("/listen", id=listening)
        bare.at("app-waiting", id=listening)
        leave(connection)
    bare.at("app-returned", id=listening)
    assert not bare.has("app-cancelled")


def test_last_send_to_a_lost_http2_connection_hangs_on_hypercorn(start: StartServer) -> None:
    """It ends with the cancellation at shutdown; so jobs cannot wait for the app for ever (M4)."""
    server = start(HYPERCORN, "bare", "--graceful-timeout", "1")
    call = unique()
    with http2_request(server, f"/plain?id={call}&hold=app"):
        server.at("app-waiting", id=call)
    server.get("/plain", id=unique())
    server.open(f"{call}.app")
    server.at("final-sending", id=call)
    server.get("/plain", id=unique())
    server.terminate()
    server.exit_code()
    assert not server.has("final-sent", id=call)
    assert server.at("app-returned", id=call) <= server.at("server-says", type="lifespan.shutdown")


# Shutdown.


def test_daphne_cancels_calls_at_once_and_waits_for_them(start: StartServer) -> None:
    """So one that outlasts its cancellation may still do its work (R7)."""
    server = start(DAPHNE, "bare")
    call = unique()
    server.get("/linger", id=call, hold="app")
    server.at("app-waiting", id=call)
    server.terminate()
    server.at("app-cancelled", id=call)
    server.open(f"{call}.app")
    assert server.exit_code() == 0
    assert server.has("app-returned", id=call)


@BOTH_UVICORNS
def test_uvicorn_awaits_calls_before_it_ends_the_lifespan(start: StartServer, kind: Kind) -> None:
    """Without limit, unless it is told one."""
    server = start(kind, "bare")
    call = unique()
    server.get("/linger", id=call, hold="app")
    server.at("app-waiting", id=call)
    server.terminate()
    server.until_logged("Waiting for background tasks to complete")
    assert not server.has("server-says", type="lifespan.shutdown")
    server.open(f"{call}.app")
    server.exit_code()
    returned = server.at("app-returned", id=call)
    assert returned <= server.at("server-says", type="lifespan.shutdown")
    assert not server.has("app-cancelled", id=call)


def test_hypercorn_cancels_calls_before_it_ends_the_lifespan(start: StartServer) -> None:
    """When the graceful timeout is over, 3 seconds by default; a wait at shutdown is too late."""
    server = start(HYPERCORN, "bare")
    call = unique()
    server.get("/yielding", id=call, hold="app")
    server.at("app-waiting", id=call)
    with server.connect() as idle:
        idle.get("/plain")
        server.terminate()
        assert idle.is_closed_by_server()
    server.exit_code()
    cancelled = server.at("app-cancelled", id=call)
    assert cancelled <= server.at("server-says", type="lifespan.shutdown")
    assert cancelled - server.at("app-waiting", id=call) >= 2.9


def test_granian_drops_calls_without_a_word(start: StartServer) -> None:
    """No cancellation, no cleanup; so jobs must not run within their calls (R6)."""
    server = start(GRANIAN, "bare")
    call = unique()
    server.get("/yielding", id=call, hold="app")
    server.at("app-waiting", id=call)
    server.terminate()
    assert server.exit_code() == 0
    assert server.has("app-shutdown")
    assert not server.has("app-cancelled", id=call)


def test_granian_runs_calls_on_while_the_lifespan_waits(start: StartServer) -> None:
    """So waiting there for the requests being served is worth it (R6)."""
    server = start(GRANIAN, "bare_patient")
    call = unique()
    server.get("/linger", id=call, hold="app")
    server.at("app-waiting", id=call)
    server.terminate()
    server.at("app-shutdown")
    server.open(f"{call}.app")
    server.at("app-returned", id=call)
    server.open("detached")
    assert server.exit_code() == 0


def test_lifespan_that_waits_at_shutdown_is_waited_for(
    start: StartServer, supervising: Kind
) -> None:
    """What runs beside the requests is finished, which is how jobs are drained (R6)."""
    server = start(supervising, "bare_patient")
    server.terminate()
    server.at("app-shutdown")
    assert server.is_alive()
    server.open("detached")
    assert server.exit_code() == supervising.exit_code
    ended = server.at("task-ended", id="detached")
    assert ended <= server.at("server-told", type="lifespan.shutdown.complete")


def test_lifespan_that_died_is_not_asked_to_shut_down(
    start: StartServer, supervising: Kind
) -> None:
    """The server serves on; so somebody has to stay in the lifespan call for the drain (R6)."""
    server = start(supervising, "bare_dying")
    server.open("lifespan")
    server.at("app-dying")
    assert server.get("/plain", id=unique()).status == 200
    server.terminate()
    server.exit_code()
    assert not server.has("server-says", type="lifespan.shutdown")


# Scopes.


def test_scope_is_a_dict_of_its_own_for_every_request(bare: Server) -> None:
    """Which takes a key without showing it to the next one (M1)."""
    ids = [unique(), unique()]
    with bare.connect() as connection:
        for call in ids:
            assert connection.get("/scope", id=call).status == 200
    for call in ids:
        (found,) = bare.events("scope", id=call)
        assert (found["kind"], found["is_marked"]) == ("dict", False)
        assert found["has_state"] is bare.kind.has_lifespan


def test_every_server_but_daphne_speaks_lifespan(bare: Server) -> None:
    """So daphne's jobs are request-bound (R7)."""
    assert bare.has("server-says", type="lifespan.startup") is bare.kind.has_lifespan


# How apps fail.


def test_app_that_fails_before_its_response_is_answered_for(bare: Server) -> None:
    """The server sends a 500 that the app, and whoever wraps it, does not see (M5)."""
    assert bare.get("/error", id=unique()).status == 500


def test_app_that_fails_within_its_response_ends_the_connection(bare: Server) -> None:
    """Everywhere but on daphne, where the client waits on (M5)."""
    with bare.connect() as connection:
        connection.send("/half", id=unique())
        response = connection.head()
        if bare.kind is DAPHNE:
            return
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
