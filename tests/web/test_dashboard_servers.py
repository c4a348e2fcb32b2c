"""W1, W2 on every server: pages, actions, streams, clients that leave, and the server's end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import Runner
from tests.helpers import need, wait_until
from tests.matrix.columns import COLUMNS
from tests.servers.harness import reset_on_close

httpx = need("httpx")
need("starlette")
need("jinja2")

from asgi_bg.web import Dashboard, JobStatusApp, _ending  # noqa: E402
from tests.services.web import DEADLINE  # noqa: E402
from tests.web.dashboard_site import Stream, ended, fine  # noqa: E402
from tests.web.events import STREAM, events_in  # noqa: E402
from tests.web.servers_site import Site  # noqa: E402

SERVERS = ("gunicorn-uvicorn", "gunicorn-asgi", "granian", "daphne", "hypercorn")
KINDS = {column.name: column.kind for column in COLUMNS}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, KINDS[request.param]) as started:
        yield started


def test_pages_and_actions(site: Site) -> None:
    """W1: without a slash at the end too; a form works with its token, and with no other."""
    assert site.client.get("/pages").status_code in (307, 308)
    for path in ("", "list", "purge", "static/dashboard.js"):
        assert site.client.get(f"/pages/{path}").status_code == 200
    assert site.client.get("/pages/job/none").status_code == 404
    job = site.add("broken", "pay")
    site.until(job, "failed")
    page = site.client.get(f"/pages/job/{job}").text
    assert "the bank does not answer" in page
    site.tell("pay", "yes")
    assert site.confirm(f"/job/{job}/retry", token="x" * 43).status_code == 403
    assert site.state(job)["status"] == "failed"
    answer = site.confirm(f"/job/{job}/retry")
    assert (answer.status_code, answer.headers["location"]) == (303, f"../{job}?done=retry")
    site.until(job, "succeeded")
    assert "asgi_bg/web" not in site.whole_log()


def test_streams_bring_every_step(site: Site) -> None:
    """W1, W2: each progress is there before the next is made, and the last is the end."""
    job = site.add("guided", "one")
    with (
        site.client.stream("GET", f"/jobs/{job}", headers=STREAM) as stream,
        site.client.stream("GET", f"/pages/live/job/{job}") as live,
    ):
        events, lines = events_in(stream.iter_lines()), live.iter_lines()
        for words in ("0.25", "0.5", "1"):
            site.tell("one", words)
            assert next(told for _, told in events if told["progress"] == float(words))
            assert next(line for line in lines if f"at {words}" in line)
        site.tell("one", "end")
        (*_, (_, told)) = list(events)
        assert (told["status"], told["result"]) == ("succeeded", "one has ended")
        assert next(line for line in lines if "succeeded" in line)


def test_long_poll_is_answered_at_the_end_of_the_job(site: Site) -> None:
    """W2: and not before, as long as it may wait."""
    job = site.add("guided", "one")
    site.until(job, "running")
    address = f"{site.url}/jobs/{job}?wait=60"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.get, address, timeout=DEADLINE, trust_env=False)
        wait_until(site.ours, "somebody who waits")
        assert not answer.done()
        site.tell("one", "end")
        assert answer.result(DEADLINE).json()["result"] == "one has ended"


@pytest.mark.parametrize("has_reset", [False, True], ids=["close", "reset"])
def test_who_leaves_leaves_nothing_behind(site: Site, has_reset: bool) -> None:
    """W1, W2: no task, no thread, and no word in the log, whichever way they look."""
    job = site.add("guided", "one")
    site.until(job, "running")
    before = site.follow(job)
    wait_until(lambda: len(site.ours()) == site.looking(1), "everybody who looks")
    for connection in before:
        connection.close()
    wait_until(lambda: not site.ours(), "end of looking")
    threads, log = site.facts()["threads"], site.whole_log()
    connections = [connection for _ in range(3) for connection in site.follow(job)]
    wait_until(lambda: len(site.ours()) == site.looking(3), "everybody who looks")
    for connection in connections:
        if has_reset:
            reset_on_close(connection)
        connection.close()
    wait_until(lambda: not site.ours(), "end of looking", 9)
    new_threads = set(site.facts()["threads"]) - set(threads)
    assert all(name.startswith("asgi_bg journal reader_") for name in new_threads)  # they stay
    new = [line for line in site.whole_log()[len(log) :].splitlines() if '"GET ' not in line]
    assert new == []
    site.tell("one", "end")
    site.until(job, "succeeded")


def test_server_ends_in_time_while_somebody_looks(site: Site) -> None:
    """W1, W2, R6: before it loses patience with the open connections, so that jobs are drained."""
    job = site.add("guided", "one")
    site.until(job, "running")
    connections = site.follow(job)
    wait_until(lambda: len(site.ours()) == site.looking(1), "everybody who looks")
    log = site.whole_log()
    site.client.close()  # one that is kept alive would be waited for as well
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.enter_context(connection)
        asked = time.monotonic()
        site.stop()
        took = time.monotonic() - asked
    assert took < _ending.UNSEEN + 8
    told = site.whole_log()[len(log) :]
    assert "asgi_bg/web" not in told
    has_lifespan = "daphne" not in " ".join(site._command)
    assert (f"stay queued in the journal: servers.guided ({job})" in told) is has_lifespan


# What servers do that no test can make them do at will.


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/list", "/job/none", "/static/dashboard.js", "/purge"])
async def test_client_that_leaves_a_page_is_no_failure(
    make_runner: Callable[..., Awaitable[Runner]], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W1: `send` raises as the client has left; nothing is logged, and the server sees nothing."""
    await _leave(Dashboard(await make_runner()), path)
    assert caplog.records == []


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["", "?wait=0.2", "/none"])
async def test_client_that_leaves_an_answer_is_no_failure(
    make_runner: Callable[..., Awaitable[Runner]], query: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W2: as for pages."""
    runner = await make_runner()
    job = await ended(runner, fine)
    await _leave(JobStatusApp(runner), f"/{job.id}{query}")
    assert caplog.records == []


@pytest.mark.anyio
async def test_failing_disk_is_still_a_failure(
    make_runner: Callable[..., Awaitable[Runner]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """W1: an `OSError` of anybody but `send` is told."""
    runner = await make_runner()

    async def search(**options: Any) -> Any:
        raise OSError("disk is gone")

    monkeypatch.setattr(runner, "search", search)
    stream = Stream(Dashboard(runner), "/list")
    await stream.task
    assert stream.status == 500
    assert caplog.messages == ["dashboard: a page could not be shown"]


async def _leave(app: Any, path: str) -> None:
    class Broken(Stream):
        async def send(self, message: Any) -> None:
            raise OSError("gone")

    await asyncio.wait_for(Broken(app, path, root="").task, 10)
