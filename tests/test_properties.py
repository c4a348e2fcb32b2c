"""Whatever an app sends, adds and raises, in whatever order: M2 to M6, R2, R3."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, task
from tests.helpers import DISCONNECT, Connection

STEPS = st.one_of(
    st.builds(lambda status: ("start", status, False), st.sampled_from([200, 302, 404, 500])),
    st.just(("start", 200, True)),
    st.builds(lambda more: ("body", more), st.booleans()),
    st.builds(lambda more: ("trailers", more), st.booleans()),
    st.builds(lambda more: ("zerocopysend", more), st.booleans()),
    st.just(("pathsend",)),
    st.just(("early_hint",)),
    st.just(("receive disconnect",)),
    st.just(("pause",)),
    st.builds(
        lambda kind, run_on: ("add", kind, run_on),
        st.sampled_from(["sync", "async", "async later", "fails", "adds another", "retried"]),
        st.sampled_from([None, "response", "success", "always"]),
    ),
)
ENDS = st.sampled_from(["return", "raise", "cancel"])


def message_of(step: Any) -> dict[str, Any]:
    match step:
        case ("start", status, trailers):
            message = {"type": "http.response.start", "status": status, "headers": []}
            return {**message, "trailers": True} if trailers else message
        case ("body", more):
            return {"type": "http.response.body", "body": b"x", "more_body": more}
        case ("trailers", more):
            return {"type": "http.response.trailers", "headers": [], "more_trailers": more}
        case ("zerocopysend", more):
            return {"type": "http.response.zerocopysend", "file": 3, "more_body": more}
    return {"type": f"http.response.{step[0]}"}


class Model:
    """What the contract says, written down as plainly as can be."""

    def __init__(self) -> None:
        self.trailers = False
        self.status: int | None = None
        self.ended = False
        self.left = False

    def note(self, step: Any) -> None:
        match step:
            case ("start", status, trailers):
                self.status, self.trailers = status, trailers
            case ("body", False):
                self.ended = self.ended or not self.trailers
            case ("trailers", False):
                self.ended = self.ended or self.trailers
            case ("pathsend",) | ("zerocopysend", False):
                self.ended = True
            case ("receive disconnect",):
                self.left = True

    def runs(self, run_on: str) -> bool:
        if run_on == "always":
            return True
        if not (self.ended or self.left):
            return False
        return run_on == "response" or self.status is None or self.status < 400


async def play(
    steps: list[Any], end: str, default: Any, supervised: bool, ordered: bool
) -> tuple[list[Any], list[dict[str, Any]], Connection, Runner, BaseException | None]:
    """Play one request; return the log, the messages, the connection, runner and error."""
    log: list[Any] = []
    runner = Runner(ordered=ordered)
    sent: list[dict[str, Any]] = []

    async def slow(number: int) -> None:
        await asyncio.sleep(0)
        log.append(number)

    async def quick(number: int) -> None:
        log.append(number)

    def fails(number: int) -> None:
        log.append(number)
        raise ValueError(number)

    def adds(number: int) -> None:
        log.append(number)
        add_task(log.append, (number, "more"))

    attempts: set[int] = set()

    @task(retries=1, retry_delay=0)
    async def retried(number: int) -> None:
        if number not in attempts:
            attempts.add(number)
            raise ValueError(number)
        log.append((number, "retried"))

    functions: dict[str, Any] = {
        "sync": log.append,
        "async": quick,
        "async later": slow,
        "fails": fails,
        "adds another": adds,
        "retried": retried,
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for number, step in enumerate(steps):
            match step:
                case ("add", kind, run_on):
                    add_task(task(functions[kind]).using(run_on=run_on), number)
                case ("receive disconnect",):
                    await receive()
                case ("pause",):
                    await asyncio.sleep(0)
                case _:
                    message = message_of(step)
                    sent.append(message)
                    await send(message)
        log.append("app done")
        if end == "raise":
            raise RuntimeError("app")
        if end == "cancel":
            raise asyncio.CancelledError

    connection = Connection([DISCONNECT] * len(steps))
    error: BaseException | None = None
    if supervised:
        await runner.start()
    try:
        await connection.call(BackgroundTaskMiddleware(app, runner=runner, run_on=default))
    except (RuntimeError, asyncio.CancelledError) as exc:
        error = exc
    await runner.drain()
    if supervised:
        await runner.aclose()
    return log, sent, connection, runner, error


@pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")
@given(
    steps=st.lists(STEPS, max_size=12),
    end=ENDS,
    default=st.sampled_from(["response", "success", "always"]),
    supervised=st.booleans(),
    ordered=st.booleans(),
)
def test_any_request_keeps_the_contract(
    steps: list[Any], end: str, default: Any, supervised: bool, ordered: bool
) -> None:
    """The same messages go out in order; exactly the right jobs run, once, after the app."""
    log, sent, connection, runner, error = asyncio.run(
        play(steps, end, default, supervised, ordered)
    )

    assert len(connection.sent) == len(sent)
    assert all(a is b for a, b in zip(connection.sent, sent, strict=True))
    assert (
        type(error)
        is {
            "return": type(None),
            "raise": RuntimeError,
            "cancel": asyncio.CancelledError,
        }[end]
    )

    model = Model()
    for step in steps:
        model.note(step)
    added = [(n, step) for n, step in enumerate(steps) if step[0] == "add"]
    due = [(n, kind) for n, (_, kind, run_on) in added if model.runs(run_on or default)]
    expected = [n for n, kind in due if kind != "retried"]
    adding = [(n, "more") for n, kind in due if kind == "adds another"]
    # What a running job adds is a job of the same request, and of the same response.
    expected_more = adding if model.runs(default) else []
    expected_retried = [(n, "retried") for n, kind in due if kind == "retried"]

    assert log[0] == "app done"
    jobs = log[1:]
    assert sorted(n for n in jobs if isinstance(n, int)) == sorted(expected)
    assert [n for n in jobs if n in expected_more] == expected_more or not ordered
    assert sorted(n for n in jobs if isinstance(n, tuple)) == sorted(
        expected_more + expected_retried
    )
    if ordered:
        assert [n for n in jobs if isinstance(n, int)] == expected
    stats = runner.stats()
    assert stats["queued"] == stats["running"] == 0
    assert stats["failed"] == sum(kind == "fails" for _, kind in due)
    assert stats["cancelled"] == len(added) - len(due) + len(adding) - len(expected_more)
    assert stats["succeeded"] == len(due) + len(expected_more) - stats["failed"]
