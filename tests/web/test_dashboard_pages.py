"""W1: what the pages show, where their links lead, and what they do when asked for nonsense."""

from __future__ import annotations

import asyncio
import html
import logging
import re
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import msgspec
import pytest

from asgi_bg import JobStatus, Runner, current_job, task
from tests.helpers import need, until

httpx = need("httpx")
need("starlette")
need("jinja2")

from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402

from asgi_bg import BackgroundTaskMiddleware  # noqa: E402
from asgi_bg.web import Dashboard  # noqa: E402
from tests.web.dashboard_site import (  # noqa: E402
    ROOT,
    broken,
    confirm,
    ended,
    fine,
    runs_of,
    visiting,
    waits,
)

pytestmark = pytest.mark.anyio

MakeRunner = Callable[..., Awaitable[Runner]]

NASTY = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


@task(name=f"nasty {NASTY}", redact=("card",))
async def nasty(text: str, card: str = "") -> str:
    current_job().progress(0.5, text)
    logging.getLogger("nasty").warning("%s", text)
    if current_job().attempt == 1 and text.startswith("</pre>"):
        raise RuntimeError(text)
    return text


class Reader(HTMLParser):
    """Collects the tags of a page, and where its links and forms lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name in ("href", "src", "action", "data-live") and value is not None:
                self.links.append(value)


@pytest.mark.parametrize("has_journal", [True, False])
async def test_everything_shown_is_escaped(
    make_runner: MakeRunner, tmp_path: Path, has_journal: bool
) -> None:
    """W1: task names, arguments, errors, tracebacks, messages, log lines, results, keys, tags."""
    runner = await make_runner(journal=tmp_path / "jobs.db" if has_journal else None)
    failed = await ended(runner, nasty.using(key=NASTY, tags=(NASTY,), queue=NASTY), NASTY)
    good = await ended(runner, nasty, f"good {NASTY}")
    async with visiting(Dashboard(runner)) as visitor:
        for path in (
            "/",
            "/list",
            f"/job/{failed.id}",
            f"/job/{good.id}",
            f"/job/{failed.id}/retry",
        ):
            page = await visitor.get(ROOT + path)
            assert page.status_code == 200
            reader = Reader(page.text)
            assert reader.tags.count("script") == 1
            assert set(reader.links) & {"x"} == set()
            assert "alert(1)</script>" not in page.text
            assert "49" not in re.findall(r"nasty [^<]*", page.text)
            assert html.escape(NASTY, quote=False)[:20] in page.text
        for path in ("/list?text=", "/list?task="):
            page = await visitor.get(
                ROOT + path + httpx.URL("", params={"q": NASTY}).query.decode()[2:]
            )
            assert page.status_code == 200
            assert "alert(1)</script>" not in page.text


async def test_half_a_surrogate_pair_hides_nothing(make_runner: MakeRunner) -> None:
    """An error may name a file whose name is no Unicode text; the list must go on."""
    runner = await make_runner()
    other = await ended(runner, fine)
    job = await ended(runner, broken, "no file 'a\udcff'")
    async with visiting(Dashboard(runner)) as visitor:
        for path in ("/list", f"/job/{job.id}"):
            answer = await visitor.get(ROOT + path)
            assert answer.status_code == 200
            assert "a\\udcff" in answer.text
        assert other.id in (await visitor.get(ROOT + "/list")).text


@task(name="dashboard.huge")
async def huge(*many: int) -> None:
    current_job().progress(0.5, "m" * 1_000_000)
    raise ValueError("e" * 1_000_000)


async def test_pages_are_bounded(make_runner: MakeRunner) -> None:
    """However much a task says; the end of a traceback is what tells most."""
    runner = await make_runner()
    job = await ended(runner, huge, *range(10_000))
    async with visiting(Dashboard(runner)) as visitor:
        page = (await visitor.get(f"{ROOT}/job/{job.id}")).text
        assert len((await visitor.get(f"{ROOT}/list")).text) < 10_000
    assert len(page) < 200_000
    assert "And 9,900 more." in page
    assert "more characters)" in page
    assert "characters before) …eee" in page


async def test_message_of_a_running_job_is_bounded(make_runner: MakeRunner) -> None:
    """Its page is made anew with each progress."""
    runner = await make_runner()
    told = asyncio.Event()
    job = await runner.add_task(tells_much, told)
    async with visiting(Dashboard(runner)) as visitor:
        await told.wait()
        assert len((await visitor.get(f"{ROOT}/job/{job.id}")).text) < 10_000
    await runner.cancel(job.id)


@task(name="dashboard.tells_much")
async def tells_much(told: asyncio.Event) -> None:
    current_job().progress(0.5, "m" * 1_000_000)
    told.set()
    await asyncio.Event().wait()


WORDS = ["a\u00a0b", "\u0645\u06cc\u200c\u062e", "👩\u200d👩\u200d👧", "a\u3000b", "x" * 900]


@pytest.mark.parametrize("name", WORDS)
async def test_task_of_any_name_can_be_looked_for(
    make_runner: MakeRunner, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Joiners and spaces of all kinds are text, and forge no line of the log."""
    runner = await make_runner()
    job = await ended(runner, task(name=name)(broken.func))
    async with visiting(Dashboard(runner)) as visitor:
        for query in (f"task={quote(name)}", f"text={quote(name[:200])}"):
            assert job.id in (await visitor.get(f"{ROOT}/list?{query}")).text
        answer = await confirm(visitor, f"/retry-failed?task={quote(name)}", task=name)
        assert answer.headers["location"] == "./?done=retry-failed&n=1"
    lines = [one for one in caplog.messages if one.startswith("dashboard: retry of all")]
    assert lines
    assert all(line.isprintable() for line in lines)
    await runner.drain(10)


@pytest.mark.parametrize("path", ["/a%2Fb", "/job/a%2f..%2fb", "/%2f%2f%2f"])
async def test_error_page_finds_its_files_from_an_encoded_path(
    make_runner: MakeRunner, path: str
) -> None:
    """W1: and never those of somebody else above the dashboard."""
    async with visiting(Dashboard(await make_runner())) as visitor:
        answer = await visitor.get(ROOT + path)
    assert answer.status_code == 404
    links = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    assert links
    for link in links:
        assert urljoin(f"http://localhost{ROOT}{path}", link).startswith(f"http://localhost{ROOT}/")


async def test_job_page_shows_all_of_it(make_runner: MakeRunner, tmp_path: Path) -> None:
    """W1: arguments, attempts, traceback, result, log, request; redacted ones stay hidden."""
    runner = await make_runner(journal=tmp_path / "jobs.db")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ids.append(scope["asgi_bg"].add_task(nasty, "</pre>hello", card="4111-1111").id)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    ids: list[str] = []
    transport = httpx.ASGITransport(BackgroundTaskMiddleware(app, runner=runner))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        await client.post("/orders/7", headers={"x-request-id": "request-77"})
    await runner.drain(10)
    async with visiting(Dashboard(runner)) as visitor:
        text = html.unescape((await visitor.get(f"{ROOT}/job/{ids[0]}")).text)
    assert "POST /orders/7" in text
    assert "request-77" in text
    assert "4111" not in text
    assert "hidden (redact=)" in text
    assert "RuntimeError: </pre>hello" in text
    assert "Traceback (most recent call last)" in text
    assert "WARNING" in text
    assert "yes, it is in the journal" in text
    assert "1 of 1" in text


async def test_running_job_shows_its_progress(make_runner: MakeRunner) -> None:
    """W1: as a bar, which needs no script."""
    runner = await make_runner()
    job = await runner.add_task(waits)
    await until(lambda: runner.stats()["running"])
    async with visiting(Dashboard(runner)) as visitor:
        page = (await visitor.get(f"{ROOT}/job/{job.id}")).text
        rows = (await visitor.get(f"{ROOT}/list?status=running")).text
    assert '<progress max="100" value="25.0"' in page
    assert "a quarter" in page
    assert '<progress max="100" value="25.0"' in rows
    await runner.cancel(job.id)


@pytest.mark.parametrize("prefix", ["", "/jobs", "/a/b"])
async def test_every_link_leads_somewhere_wherever_it_is_mounted(
    make_runner: MakeRunner, prefix: str
) -> None:
    """Raw, mounted, mounted in a mount, behind a middleware: all links are of the dashboard."""
    runner = await make_runner()
    await ended(runner, broken)
    await ended(runner, fine)
    for _ in range(60):
        await runner.add_task(fine)
    await runner.drain(10)
    app: Any = Dashboard(runner)
    for part in reversed(prefix.split("/")[1:]):
        app = Starlette(routes=[Mount(f"/{part}", app)])
    app = BackgroundTaskMiddleware(app, runner=runner)
    transport = httpx.ASGITransport(app)
    seen: set[str] = set()
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as visitor:
        todo = [f"{prefix}/"]
        while todo:
            path = todo.pop()
            address = path.partition("#")[0]
            if address in seen or len(seen) > 150 or "/live/" in address:
                continue
            seen.add(address)
            answer = await visitor.get(address)
            assert answer.status_code == 200, address
            assert address.startswith(f"{prefix}/"), address
            if answer.headers["content-type"].startswith("text/html"):
                todo += [urljoin(address, link) for link in Reader(answer.text).links]
    assert f"{prefix}/purge" in seen
    assert any("/retry" in path for path in seen)
    assert any("after=" in path for path in seen)


async def test_mount_without_its_slash_is_led_to_it(make_runner: MakeRunner) -> None:
    """As all links are relative, the address must end with it."""
    async with visiting(Dashboard(await make_runner())) as visitor:
        answer = await visitor.get(ROOT)
        assert answer.status_code == 308
        assert str(answer.next_request.url) == f"http://localhost{ROOT}/"


@pytest.mark.parametrize("name", ["a;b", "a\r\nx: y", "a b", "é", "x:y"])
async def test_name_of_the_mount_cannot_forge_headers(make_runner: MakeRunner, name: str) -> None:
    """A mount with a parameter in its path has what the client has sent in its `root_path`."""
    app = Starlette(routes=[Mount("/{tenant}", Dashboard(await make_runner()))])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as visitor:
        address = f"/{quote(name, safe='')}"
        cookie = (await visitor.get(f"{address}/purge")).headers["set-cookie"]
        assert f"Path={quote('/' + name, safe='/:')};" in cookie
        answer = await visitor.get(address)
        assert answer.next_request.url.path == f"/{name}/"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/job/", 404),
        ("GET", "/job/" + "0" * 32, 404),
        ("GET", "/job/" + "0" * 32 + "/retry", 404),
        ("GET", "/live/job/" + "0" * 32, 404),
        ("GET", "/job/..%2f..%2fetc", 404),
        ("GET", "/job/%00", 400),
        ("GET", "/job/" + "a" * 101, 400),
        ("GET", "/static/", 404),
        ("GET", "/static/nothing.css", 404),
        ("GET", "/static/../dashboard.py", 404),
        ("GET", "/static/%2e%2e%2fdashboard.py", 404),
        ("GET", "/templates/base.html", 404),
        ("GET", "/list?status=odd", 400),
        ("GET", "/list?after=%27--", 400),
        ("GET", "/list?text=%00", 400),
        ("GET", "/list?text=" + "x" * 201, 400),
        ("GET", "/list?task=" + "x" * 1001, 400),
        ("GET", "/live/list?status=odd", 400),
        ("GET", "/?seconds=1", 400),
        ("GET", "/?seconds=-3600", 400),
        ("GET", "/?seconds=%C2%B2", 400),
        ("GET", "/?seconds=" + "9" * 5000, 400),
        ("GET", "/retry-failed?task=%0a", 400),
        ("POST", "/", 405),
        ("POST", "/list", 405),
        ("PUT", "/purge", 405),
        ("DELETE", "/job/0", 405),
        ("OPTIONS", "/list", 405),
        ("POST", "/purge", 400),
    ],
)
async def test_nonsense_is_answered_by_a_page_that_tells_nothing(
    make_runner: MakeRunner, method: str, path: str, status: int
) -> None:
    """W1: neither versions nor paths nor what was asked for."""
    async with visiting(Dashboard(await make_runner())) as visitor:
        answer = await visitor.request(method, ROOT + path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert "starlette" not in answer.text.lower()
    assert "odd" not in answer.text
    assert answer.headers["content-security-policy"]
    assert ("allow" in answer.headers) == (status == 405)


async def test_failure_of_ours_is_logged_and_tells_nothing(
    make_runner: MakeRunner, errors: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a journal that cannot be read; also for the stream."""
    runner = await make_runner()

    async def search(**options: Any) -> Any:
        raise RuntimeError("/secret/path/jobs.db")

    monkeypatch.setattr(runner, "search", search)
    async with visiting(Dashboard(runner)) as visitor:
        for path in ("/list", "/live/list"):
            answer = await visitor.get(ROOT + path)
            assert answer.status_code == 500
            assert "secret" not in answer.text
    assert errors() == ["dashboard: a page could not be shown"] * 2


async def test_error_pages_are_ours_inside_of_another_application(
    make_runner: MakeRunner,
) -> None:
    """An application's own handlers of errors see nothing of them."""
    seen: list[Any] = []

    async def handler(request: Any, exc: Any) -> Any:
        seen.append(exc)

    routes = [Mount("/jobs", Dashboard(await make_runner()))]
    app = Starlette(routes=routes, exception_handlers={404: handler, 405: handler, 500: handler})
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as visitor:
        assert "Not found" in (await visitor.get("/jobs/nothing")).text
        assert (await visitor.delete("/jobs/list")).status_code == 405
    assert seen == []


async def ids_on(visitor: Any, path: str) -> list[str]:
    return re.findall(r'<tr id="job-(\w+)"', (await visitor.get(ROOT + path)).text)


@pytest.mark.parametrize("has_journal", [True, False])
async def test_list_is_filtered(make_runner: MakeRunner, tmp_path: Path, has_journal: bool) -> None:
    """W1: by status, task and text, and by all together."""
    runner = await make_runner(journal=tmp_path / "jobs.db" if has_journal else None)
    good = await ended(runner, fine, "Needle in HAY")
    bad = await ended(runner, broken, "nobody there")
    async with visiting(Dashboard(runner)) as visitor:
        assert await ids_on(visitor, "/list") == [bad.id, good.id]
        assert await ids_on(visitor, "/list?status=failed") == [bad.id]
        assert await ids_on(visitor, "/list?task=dashboard.fine") == [good.id]
        if has_journal:  # otherwise the arguments of a job are let go when it has ended
            assert await ids_on(visitor, "/list?text=needle") == [good.id]
        assert await ids_on(visitor, "/list?text=NOBODY&status=failed&task=dashboard.broken") == [
            bad.id
        ]
        assert await ids_on(visitor, "/list?text=needle&status=failed") == []
        assert "No job fits." in (await visitor.get(ROOT + "/list?text=nowhere")).text
        assert await ids_on(visitor, f"/list?text={good.id.upper()}") == [good.id]
        assert await ids_on(visitor, f"/list?text={good.id}&status=failed") == []
        assert await ids_on(visitor, f"/list?text={good.id}&task=dashboard.fine") == [good.id]
        assert await ids_on(visitor, f"/list?text={'0' * 32}") == []


@pytest.mark.parametrize("has_journal", [True, False])
async def test_paging_is_stable_while_jobs_come(
    make_runner: MakeRunner, tmp_path: Path, has_journal: bool
) -> None:
    """W1: every job that was there at the start is seen once, whatever is added meanwhile."""
    runner = await make_runner(journal=tmp_path / "jobs.db" if has_journal else None)
    jobs = [await runner.add_task(fine, number) for number in range(170)]
    await runner.drain(20)
    seen: list[str] = []
    async with visiting(Dashboard(runner)) as visitor:
        path = "list"
        while path:
            text = (await visitor.get(f"{ROOT}/{path}")).text
            seen += re.findall(r'<tr id="job-(\w+)"', text)
            for _ in range(7):
                await runner.add_task(fine, "new")
            found = re.search(r'id="next" href="\./(list\?[^"]*)"', text)
            path = html.unescape(found[1]) if found else ""
    assert seen == [job.id for job in reversed(jobs)]


async def test_list_that_was_cut_says_how_far_it_looked(
    make_runner: MakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And offers to go on from there."""
    runner = await make_runner(journal=tmp_path / "jobs.db")
    for number in range(5):
        await runner.add_task(fine, number)
    await runner.drain(10)
    search = runner.search

    async def hasty(**options: Any) -> Any:
        page = await search(**{**options, "text": None, "limit": 1})
        return msgspec.structs.replace(page, is_cut=True)

    monkeypatch.setattr(runner, "search", hasty)
    async with visiting(Dashboard(runner)) as visitor:
        text = (await visitor.get(f"{ROOT}/list?text=nowhere")).text
    assert re.search(r"Looked back to <time[^>]*>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d</time>", text)
    assert re.search(r'id="next" href="\./list\?text=nowhere&amp;after=\w+" data-cut="1"', text)


# Actions.


async def test_job_is_retried_and_cancelled(make_runner: MakeRunner) -> None:
    """W1: each after it was confirmed; the answer leads back, with a notice."""
    runner = await make_runner()
    failed = await ended(runner, broken)
    running = await runner.add_task(waits)
    await until(lambda: runner.stats()["running"])
    async with visiting(Dashboard(runner)) as visitor:
        answer = await confirm(visitor, f"/job/{failed.id}/retry")
        assert answer.status_code == 303
        page = await visitor.get(answer.next_request.url)
        assert "The job was queued again." in page.text
        await until(lambda: runs_of(failed) == 2)
        answer = await confirm(visitor, f"/job/{running.id}/cancel")
        page = await visitor.get(answer.next_request.url)
        assert "The job is being cancelled." in page.text
    assert await runner.drain(10)
    assert (await runner.info(running.id)).status is JobStatus.cancelled


async def test_action_that_came_too_late_says_so(make_runner: MakeRunner) -> None:
    """A job that has succeeded cannot be retried; one that is gone is not found."""
    runner = await make_runner()
    job = await ended(runner, fine)
    async with visiting(Dashboard(runner)) as visitor:
        answer = await confirm(visitor, f"/job/{job.id}/retry")
        page = await visitor.get(answer.next_request.url)
        assert "Nothing was done: the job had moved on." in page.text
        await visitor.get(f"{ROOT}/purge")
        await runner.purge()
        answer = await visitor.post(
            f"{ROOT}/job/{job.id}/retry",
            data={"token": visitor.cookies["asgi_bg_token"]},
            headers={"sec-fetch-site": "same-origin"},
        )
        assert answer.status_code == 404


async def test_failed_jobs_of_a_task_are_retried(make_runner: MakeRunner) -> None:
    """W1: those of this task, and no other's."""
    runner = await make_runner()
    mine = [await ended(runner, broken) for _ in range(3)]
    other = await ended(runner, nasty, "</pre>")
    async with visiting(Dashboard(runner)) as visitor:
        overview = (await visitor.get(ROOT + "/")).text
        assert 'href="./retry-failed?task=dashboard.broken"' in overview
        answer = await confirm(
            visitor, "/retry-failed?task=dashboard.broken", task="dashboard.broken"
        )
        page = await visitor.get(answer.next_request.url)
        assert "3 failed jobs were queued again." in page.text
    await runner.drain(10)
    assert [runs_of(job) for job in mine] == [2, 2, 2]
    assert (await runner.info(other.id)).status is JobStatus.failed


async def test_purge_removes_by_status_and_age(make_runner: MakeRunner) -> None:
    """W1: what ended so, and long enough ago."""
    runner = await make_runner()
    good, bad = await ended(runner, fine), await ended(runner, broken)
    async with visiting(Dashboard(runner)) as visitor:
        answer = await confirm(visitor, "/purge", status="failed", older_than="3600")
        assert "0 jobs were removed." in (await visitor.get(answer.next_request.url)).text
        answer = await confirm(visitor, "/purge", status="failed", older_than="0")
        assert "1 job was removed." in (await visitor.get(answer.next_request.url)).text
        assert await ids_on(visitor, "/list") == [good.id]
        for fields in ({"status": "queued"}, {"status": "odd"}, {"older_than": "1"}):
            answer = await confirm(visitor, "/purge", **{"status": "", "older_than": "0", **fields})
            assert answer.status_code == 400
    assert bad.id != good.id


async def test_action_that_lasts_goes_on_after_the_answer(
    make_runner: MakeRunner,
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: Callable[[], list[str]],
) -> None:
    """The browser need not wait for it; the log tells its end."""
    runner = await make_runner()
    go = asyncio.Event()

    async def purge(**options: Any) -> int:
        await go.wait()
        return 7

    monkeypatch.setattr(runner, "purge", purge)
    monkeypatch.setattr("asgi_bg.web._actions.PATIENCE", 0.01)
    async with visiting(Dashboard(runner)) as visitor:
        answer = await confirm(visitor, "/purge", status="", older_than="0")
        assert "goes on" in (await visitor.get(answer.next_request.url)).text
    go.set()
    await until(lambda: any("is done: 7 jobs" in text for text in warnings_logged()))


async def test_action_that_fails_is_logged_with_who(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, errors: Callable[[], list[str]]
) -> None:
    """The page tells nothing of why."""
    runner = await make_runner()

    async def purge(**options: Any) -> int:
        raise OSError("/secret is full")

    monkeypatch.setattr(runner, "purge", purge)
    async with visiting(Dashboard(runner, authorize=lambda request: "ada")) as visitor:
        answer = await confirm(visitor, "/purge", status="", older_than="0")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert errors()[0].startswith("dashboard: purge of all ended jobs")
    assert errors()[0].endswith("by ada failed")


@pytest.mark.parametrize("done", ["odd", NASTY, "retry-failed"])
async def test_notice_is_of_our_own_words(make_runner: MakeRunner, done: str) -> None:
    """A link can choose among them, and say nothing of its own."""
    async with visiting(Dashboard(await make_runner())) as visitor:
        page = await visitor.get(ROOT + "/", params={"done": done, "n": "<b>1</b>"})
    assert page.status_code == 200
    assert "<b>" not in page.text
    assert ('class="notice"' in page.text) == (done == "retry-failed")


async def test_static_files_are_kept_by_version(make_runner: MakeRunner) -> None:
    """The page names the version; HEAD is answered as GET."""
    async with visiting(Dashboard(await make_runner())) as visitor:
        page = (await visitor.get(ROOT + "/")).text
        for name, kind in [
            ("css", "text/css"),
            ("js", "text/javascript"),
            ("svg", "image/svg+xml"),
        ]:
            file = "icon.svg" if name == "svg" else f"dashboard.{name}"
            assert re.search(rf"\./static/{file}\?v=\w+", page)
            answer = await visitor.get(f"{ROOT}/static/{file}")
            assert answer.headers["content-type"].startswith(kind)
            assert (await visitor.head(f"{ROOT}/static/{file}")).status_code == 200
