"""What ends a response, and what that means for its jobs: M2, M3, M5, M6."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, add_task
from tests.helpers import BODY, DISCONNECT, MORE, REQUEST, START, Connection, responding

pytestmark = pytest.mark.anyio

TRAILING = {**START, "trailers": True}
TRAILERS = {"type": "http.response.trailers", "headers": []}
MORE_TRAILERS = {**TRAILERS, "more_trailers": True}
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
DENIAL = {"type": "websocket.http.response.start", "status": 401, "headers": []}

ENDINGS = {
    "body": ([START, BODY], "http"),
    "streamed body": ([START, MORE, MORE, BODY], "http"),
    "trailers": ([TRAILING, BODY, TRAILERS], "http"),
    "several trailers": ([TRAILING, MORE, BODY, MORE_TRAILERS, TRAILERS], "http"),
    "pathsend": ([START, {"type": "http.response.pathsend", "path": "/tmp/x"}], "http"),
    "zerocopysend": ([START, {"type": "http.response.zerocopysend", "file": 3}], "http"),
    "zerocopysend in parts": (
        [
            START,
            {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
            {"type": "http.response.zerocopysend", "file": 3},
        ],
        "http",
    ),
    "push and hint before": (
        [
            {"type": "http.response.early_hint", "links": []},
            {"type": "http.response.push", "path": "/x", "headers": []},
            START,
            {"type": "http.response.debug", "info": {}},
            BODY,
        ],
        "http",
    ),
    "websocket close": ([ACCEPT, {"type": "websocket.send", "text": "hi"}, CLOSE], "websocket"),
    "websocket refused by close": ([CLOSE], "websocket"),
    "websocket denial response": (
        [
            DENIAL,
            {"type": "websocket.http.response.body", "body": b"n", "more_body": True},
            {"type": "websocket.http.response.body", "body": b"o"},
        ],
        "websocket",
    ),
}


@pytest.mark.parametrize(("messages", "kind"), ENDINGS.values(), ids=ENDINGS)
async def test_response_ended_runs_its_jobs_after_the_last_message(
    messages: list[Any], kind: str
) -> None:
    """M3: every form of a last message ends the response. M2: the messages are the same objects."""
    connection = Connection(kind=kind)
    app = responding(*messages, before=lambda: add_task(connection.log.append, "job"))

    await connection.call(BackgroundTaskMiddleware(app))

    assert connection.log == [*(message["type"] for message in messages), "job"]
    assert all(a is b for a, b in zip(connection.sent, messages, strict=True))


UNENDED = {
    "nothing sent": ([], "http"),
    "start only": ([START], "http"),
    "body with more to come": ([START, MORE], "http"),
    "body before announced trailers": ([TRAILING, BODY], "http"),
    "trailers with more to come": ([TRAILING, BODY, MORE_TRAILERS], "http"),
    "trailers that nobody announced": ([START, MORE, TRAILERS], "http"),
    "websocket neither accepted nor closed": ([], "websocket"),
    "denial unfinished": ([DENIAL], "websocket"),
}


@pytest.mark.parametrize(("messages", "kind"), UNENDED.values(), ids=UNENDED)
async def test_response_unended_drops_its_jobs_with_one_warning(
    messages: list[Any], kind: str, warnings_logged: Any
) -> None:
    """M3, M5: without a last message nothing runs, unless the job asks to run always."""
    connection = Connection(kind=kind)

    def queue() -> None:
        add_task(connection.log.append, "first")
        add_task(connection.log.append, "second")

    await connection.call(BackgroundTaskMiddleware(responding(*messages, before=queue)))

    assert "first" not in connection.log
    assert len(warnings_logged()) == 1
    assert warnings_logged()[0].startswith("2 job(s) dropped")

    connection = Connection(kind=kind)
    app = responding(*messages, before=lambda: add_task(connection.log.append, "job"))
    await connection.call(BackgroundTaskMiddleware(app, run_on="always"))
    assert connection.log[-1] == "job"


async def test_websocket_left_open_by_the_app_counts_as_ended() -> None:
    """An app may return from an accepted websocket; the server closes it, so its jobs run."""
    connection = Connection(kind="websocket")
    app = responding(ACCEPT, before=lambda: add_task(connection.log.append, "job"))

    await connection.call(BackgroundTaskMiddleware(app))

    assert connection.log == ["websocket.accept", "job"]


async def test_websocket_disconnect_received_ends_the_response() -> None:
    """M3: a received `websocket.disconnect` ends it, whatever the app does then."""
    connection = Connection([{"type": "websocket.disconnect", "code": 1006}], kind="websocket")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(connection.log.append, "job")
        await send(ACCEPT)
        await receive()
        raise RuntimeError("the session is gone")

    with pytest.raises(RuntimeError, match="session is gone"):
        await connection.call(BackgroundTaskMiddleware(app))
    assert connection.log == ["websocket.accept", "job"]


async def _raise_after_disconnect(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    assert (await receive())["type"] == "http.disconnect"
    raise ConnectionError("client went")


async def _return_after_disconnect(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    assert (await receive())["type"] == "http.disconnect"


@pytest.mark.parametrize("ending", [_raise_after_disconnect, _return_after_disconnect])
@pytest.mark.parametrize("run_on", ["response", "success"])
async def test_client_left_midway_and_app_stops_counts_as_ended(ending: Any, run_on: Any) -> None:
    """M6: the client never decides; the app's stopping because of it ends the response."""
    connection = Connection([DISCONNECT])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(connection.log.append, "job")
        await ending(scope, receive, send)

    middleware = BackgroundTaskMiddleware(app, run_on=run_on)
    try:
        await connection.call(middleware)
    except ConnectionError:
        assert ending is _raise_after_disconnect
    assert connection.log == ["http.response.start", "job"]


async def test_send_that_raises_oserror_counts_as_ended() -> None:
    """M6: servers of ASGI 2.4 say that the client left by raising `OSError` from `send`."""
    connection = Connection(fail_on={"http.response.body": OSError("gone")})
    app = responding(START, MORE, before=lambda: add_task(connection.log.append, "job"))

    with pytest.raises(OSError, match="gone"):
        await connection.call(BackgroundTaskMiddleware(app))
    assert connection.log == ["http.response.start", "job"]


async def test_last_message_refused_by_the_server_does_not_end_the_response() -> None:
    """M5: a server that refuses the last message has no response; that is the app's failure."""
    connection = Connection(fail_on={"http.response.body": RuntimeError("too long")})
    app = responding(START, BODY, before=lambda: add_task(connection.log.append, "job"))

    with pytest.raises(RuntimeError, match="too long"):
        await connection.call(BackgroundTaskMiddleware(app))
    assert connection.log == ["http.response.start"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, ["response", "success", "always"]),
        (399, ["response", "success", "always"]),
        (400, ["response", "always"]),
        (503, ["response", "always"]),
    ],
)
async def test_run_on_of_a_task_decides_by_status(
    status: int, expected: list[str], warnings_logged: Any
) -> None:
    """M5: "response" runs after any status, "success" below 400; a task's word beats all."""
    from asgi_bg import task

    connection = Connection()
    note = task(connection.log.append)

    def queue() -> None:
        for run_on in ("response", "success", "always"):
            add_task(note.using(run_on=run_on), run_on)

    app = responding({**START, "status": status}, BODY, before=queue)
    await connection.call(BackgroundTaskMiddleware(app, run_on="always"))

    assert connection.log[2:] == expected
    assert len(warnings_logged()) == (status >= 400)


async def test_messages_after_the_last_are_still_passed_on() -> None:
    """M2: what to say of a message too many is the server's business."""
    connection = Connection()
    app = responding(START, BODY, BODY, before=lambda: add_task(connection.log.append, "job"))

    await connection.call(BackgroundTaskMiddleware(app))

    assert connection.log == [
        "http.response.start",
        "http.response.body",
        "http.response.body",
        "job",
    ]


async def test_received_messages_are_passed_on_as_they_are() -> None:
    """M2, for what the app receives."""
    incoming = [{**REQUEST, "more_body": True}, REQUEST]
    connection = Connection(incoming)
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive(), await receive()])
        await send(START)
        await send(BODY)

    await connection.call(BackgroundTaskMiddleware(app))

    assert received[0] is incoming[0]
    assert received[1] is incoming[1]
