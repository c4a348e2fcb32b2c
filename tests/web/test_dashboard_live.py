"""W1: pages that change while somebody looks, and cost nothing while nobody does."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, Runner
from tests.helpers import need, until

need("starlette")
need("jinja2")

from starlette.middleware.gzip import GZipMiddleware  # noqa: E402

from asgi_bg.web import Dashboard, _live  # noqa: E402
from tests.web.dashboard_site import Stream, broken, ended, fine, waits  # noqa: E402

pytestmark = pytest.mark.anyio

MakeRunner = Callable[..., Awaitable[Runner]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look ten times as often."""
    monkeypatch.setattr(_live, "TICK", 0.02)
    for name in ("OverviewPanel", "JobPanel"):
        monkeypatch.setattr(f"asgi_bg.web._panels.{name}.interval", 0.1)


def tasks() -> list[str]:
    """The names of the dashboard's tasks."""
    names = [one.get_name() for one in asyncio.all_tasks()]
    return [name for name in names if name.startswith("asgi_bg: dashboard")]


async def test_list_shows_what_comes(make_runner: MakeRunner) -> None:
    """The first message has the page; the next ones only what has changed."""
    runner = await make_runner()
    first = await ended(runner, fine)
    stream = Stream(Dashboard(runner), "/live/list")
    await until(lambda: stream.events)
    assert stream.events[0][1]["order"] == [f"job-{first.id}"]
    second = await ended(runner, broken)
    await until(lambda: len(stream.events) > 1)
    changes = stream.events[-1][1]
    assert changes["order"] == [f"job-{second.id}", f"job-{first.id}"]
    assert set(changes["parts"]) == {f"job-{second.id}"}
    assert "no such user" in changes["parts"][f"job-{second.id}"]
    await stream.leave()


async def test_number_of_different_views_is_bounded(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asks the journal again and again; more viewers of the same cost nothing."""
    monkeypatch.setattr(_live, "WATCHES", 2)
    dashboard = Dashboard(await make_runner())
    streams = [Stream(dashboard, f"/live/list?text={text}") for text in ("a", "b", "a", "c")]
    await until(lambda: all(stream.status for stream in streams))
    assert [stream.status for stream in streams] == [200, 200, 200, 503]
    await asyncio.wait_for(streams.pop().task, 10)
    for stream in streams:
        await stream.leave()
    stream = Stream(dashboard, "/live/list?text=c")
    await until(lambda: stream.status)
    assert stream.status == 200
    await stream.leave()


async def test_client_that_has_the_state_gets_nothing_twice(make_runner: MakeRunner) -> None:
    """Whether it says so in the address or, after a lost connection, in the header; also to
    another process, and to one that was restarted."""
    runner = await make_runner()
    await ended(runner, fine)
    stream = Stream(Dashboard(runner), "/live/list")
    await until(lambda: stream.events)
    await stream.leave()
    seen = stream.events[-1][0]
    other = Dashboard(runner)
    again = Stream(other, "/live/list?state=0123", {"last-event-id": seen})
    from_page = Stream(other, f"/live/list?state={seen}")
    await until(lambda: "retry" in again.text and "retry" in from_page.text)
    job = await ended(runner, fine)
    await until(lambda: again.events and from_page.events)
    for one in (again, from_page):
        assert set(one.events[0][1]["parts"]) == {f"job-{job.id}"}
        await one.leave()


@pytest.mark.parametrize("seen", ["", "0" * 24, "nonsense\x00", "a" * 1000])
async def test_client_with_another_state_gets_all(make_runner: MakeRunner, seen: str) -> None:
    """A server that was restarted with other jobs shows those."""
    runner = await make_runner()
    job = await ended(runner, fine)
    stream = Stream(Dashboard(runner), "/live/list", {"last-event-id": seen})
    await until(lambda: stream.events)
    assert set(stream.events[0][1]["parts"]) == {"more", f"job-{job.id}"}
    await stream.leave()


async def test_nobody_looking_costs_nothing(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task, no question, before and after; and one asks for all who see the same."""
    runner = await make_runner()
    asked: list[str] = []
    search = runner.search

    async def counting(**options: Any) -> Any:
        asked.append("search")
        return await search(**options)

    monkeypatch.setattr(runner, "search", counting)
    dashboard = Dashboard(runner)
    assert tasks() == []
    same = [Stream(dashboard, "/live/list") for _ in range(20)]
    other = Stream(dashboard, "/live/list?status=failed")
    await until(lambda: all(stream.events for stream in [*same, other]))
    assert tasks() == ["asgi_bg: dashboard list"] * 2
    assert len(asked) == 2
    for stream in same[1:]:
        await stream.leave()
    assert len(tasks()) == 2
    await same[0].leave()
    await other.leave()
    await until(lambda: not tasks())
    before = len(asked)
    await asyncio.sleep(0.2)  # for what must not happen
    assert len(asked) == before


async def test_progress_moves(make_runner: MakeRunner) -> None:
    """One job's page follows what the task tells."""
    runner = await make_runner()
    job = await runner.add_task(waits)
    stream = Stream(Dashboard(runner), f"/live/job/{job.id}")
    await until(lambda: 'value="25.0"' in stream.text.replace("\\", ""))
    await runner.cancel(job.id)
    await until(lambda: "cancelled" in stream.events[-1][1]["parts"].get("facts", ""))
    assert "arguments" not in stream.events[-1][1]["parts"]
    await stream.leave()


async def test_job_that_is_purged_ends_its_stream(make_runner: MakeRunner) -> None:
    """Quietly; who comes back is told that there is none."""
    runner = await make_runner()
    job = await ended(runner, fine)
    dashboard = Dashboard(runner)
    stream = Stream(dashboard, f"/live/job/{job.id}")
    await until(lambda: stream.events)
    await runner.purge()
    await asyncio.wait_for(stream.task, 10)
    again = Stream(dashboard, f"/live/job/{job.id}")
    await asyncio.wait_for(again.task, 10)
    assert again.status == 404
    assert tasks() == []


async def test_failing_look_ends_the_stream_and_is_logged(
    make_runner: MakeRunner,
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: Callable[[], list[str]],
) -> None:
    """The client tries again; meanwhile nothing is asked."""
    runner = await make_runner()
    stream = Stream(Dashboard(runner), "/live/overview")
    await until(lambda: stream.events)

    async def overview(**options: Any) -> Any:
        raise OSError("disk is gone")

    monkeypatch.setattr(runner, "overview", overview)
    await asyncio.wait_for(stream.task, 10)
    assert warnings_logged() == ["dashboard: live updates have stopped"]


async def test_stream_has_an_end(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `authorize` is asked again, and no server waits for long; it lives until then."""
    monkeypatch.setattr(_live, "STREAM_SECONDS", 0.5)
    monkeypatch.setattr(_live, "HEARTBEAT", 0.1)
    asked: list[int] = []
    dashboard = Dashboard(await make_runner(), authorize=lambda request: asked.append(1) or "ada")
    stream = Stream(dashboard, "/live/list")
    await asyncio.wait_for(stream.task, 10)
    assert stream.messages[-1] == {"type": "http.response.body", "body": b""}
    assert stream.text.count(": still here\n\n") >= 2
    await asyncio.wait_for(Stream(dashboard, "/live/list").task, 10)
    assert len(asked) == 2
    assert tasks() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stream_ends_with_the_server(make_runner: MakeRunner, number: signal.Signals) -> None:
    """Whose handler of signals is a method of an object that keeps what it was told."""

    class Server:
        should_exit = False

        def handle(self, *args: Any) -> None: ...

    server = Server()
    before = signal.signal(number, server.handle)
    try:
        stream = Stream(Dashboard(await make_runner()), "/live/list")
        await until(lambda: stream.events)
        server.should_exit = True
        await asyncio.wait_for(stream.task, 10)
    finally:
        signal.signal(number, before)


async def test_head_does_not_stream(make_runner: MakeRunner) -> None:
    """It is answered at once."""
    stream = Stream(Dashboard(await make_runner()), "/live/list")
    stream.scope["method"] = "HEAD"
    await asyncio.wait_for(stream.task, 10)
    assert stream.status == 200
    assert stream.text == ""


async def test_stream_goes_through_other_middleware(make_runner: MakeRunner) -> None:
    """In FastAPI, mounted, behind middleware that compresses or has tasks of its own."""
    fastapi = need("fastapi")
    app = fastapi.FastAPI()
    runner = await make_runner()
    app.mount("/jobs", Dashboard(runner))
    app.add_middleware(GZipMiddleware)

    @app.middleware("http")
    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    stream = Stream(BackgroundTaskMiddleware(app, runner=runner), "/live/list", root="")
    await until(lambda: stream.events)
    job = await ended(runner, fine)
    await until(lambda: len(stream.events) > 1)
    assert stream.events[-1][1]["order"] == [f"job-{job.id}"]
    await stream.leave()
    await until(lambda: not tasks())


async def test_client_that_breaks_off_leaves_nothing_behind(make_runner: MakeRunner) -> None:
    """Servers say so by an `OSError` of `send`, or cancel the call."""
    dashboard = Dashboard(await make_runner())

    class Broken(Stream):
        async def send(self, message: Any) -> None:
            if len(self.messages) == 2:
                raise OSError("gone")
            await super().send(message)

    await asyncio.wait_for(Broken(dashboard, "/live/list").task, 10)
    stream = Stream(dashboard, "/live/list")
    await until(lambda: stream.events)
    stream.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.task
    await until(lambda: not tasks())


async def test_slow_client_gets_what_it_missed_as_one(make_runner: MakeRunner) -> None:
    """It is not sent an event for each change that came while it was busy."""
    runner = await make_runner()
    dashboard = Dashboard(runner)
    go = asyncio.Event()

    class Slow(Stream):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if b"data" in message.get("body", b""):
                await go.wait()

    slow, quick = Slow(dashboard, "/live/list"), Stream(dashboard, "/live/list")
    await until(lambda: slow.events)
    for number in range(3):
        await ended(runner, fine)
        await until(lambda: len(quick.events) == number + 2)  # noqa: B023
    go.set()
    await until(lambda: len(slow.events) == 2)
    assert slow.events[-1][0] == quick.events[-1][0]
    assert len(slow.events[-1][1]["order"]) == 3
    await slow.leave()
    await quick.leave()


async def test_thousand_events_a_second_are_one_message(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    """W1: usable at 1,000 events per second: few messages, small ones, and the loop is free."""
    runner = await make_runner(journal=tmp_path / "jobs.db")
    stream = Stream(Dashboard(runner), "/live/list")
    await until(lambda: stream.events)
    start = time.monotonic()
    added = 0
    worst = 0.0
    while time.monotonic() - start < 4:
        # Each job is at least three events: queued, started, succeeded.
        await asyncio.gather(*(runner.add_task(fine, added + one) for one in range(35)))
        added += 35
        before = time.monotonic()
        await asyncio.sleep(max(0.0, start + added / 350 - before))
        worst = max(worst, time.monotonic() - max(before, start + added / 350))
    lasted = time.monotonic() - start
    await runner.drain(30)
    events = stream.events
    await stream.leave()
    largest = max(len(str(data)) for _, data in events)
    print(f"{3 * added / lasted:,.0f} events/s, {len(events)} messages in {lasted:.1f} s,")
    print(f"the largest {largest:,} characters, the loop late by {worst * 1000:.0f} ms at most")
    assert 3 * added / lasted > 800
    assert len(events) <= lasted + 2
    assert largest < 60_000
    assert worst < 0.5
