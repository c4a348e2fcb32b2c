"""W1 to W3: what people see while their journal is locked, gone, replaced or damaged, or a job is.

The server stays up, says what is the matter, and gets well again with the file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import need, wait_until
from tests.servers.harness import UVICORN
from tests.services.service import need_program
from tests.services.web import DEADLINE

httpx = need("httpx")
need("starlette")
need("jinja2")
need("typer")

from tests.web.events import STREAM, events_in  # noqa: E402
from tests.web.servers_site import Site  # noqa: E402

ROOT = Path(__file__).parents[2]
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
SUFFIXES = ("", "-wal", "-shm")
PAGES = ("/pages/", "/pages/list", "/pages/job/{job}", "/jobs/{job}", "/jobs/{job}?wait=0.3")

pytestmark = pytest.mark.timeout(180)

Back = Callable[[], None]
Break = Callable[[Path], Back]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, UVICORN) as started:
        yield started


# What happens to journals. Each returns what makes all well again.


def locked(path: Path) -> Back:
    """Another process is about to write, and does not go on."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection.close


def held(path: Path) -> Back:
    """Another program has it for itself, and lets nobody read."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    return connection.close


def deleted(path: Path) -> Back:
    """Somebody tidies up, and has a copy."""
    names = [Path(f"{path}{suffix}") for suffix in SUFFIXES if Path(f"{path}{suffix}").exists()]
    for name in names:
        name.rename(f"{name}.aside")

    def back() -> None:
        for suffix in SUFFIXES:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        for name in names:
            Path(f"{name}.aside").rename(name)

    return back


def replaced(path: Path) -> Back:
    """There is something else of its name."""
    back = deleted(path)
    path.write_bytes(b"no database at all " * 1000)
    return back


def truncated(path: Path) -> Back:
    """The end of it is lost."""
    return _changed(path, lambda content: content[: 3 * 4096])


def emptied(path: Path) -> Back:
    """All of it is lost, but for the file itself."""
    return _changed(path, lambda content: b"")


def damaged(path: Path) -> Back:
    """Other bytes are in it, but for the first page."""
    return _changed(path, lambda content: content[:4096] + b"\xa5" * (len(content) - 4096))


def _changed(path: Path, change: Callable[[bytes], bytes]) -> Back:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()

    def write(wanted: bytes) -> None:
        with path.open("r+b") as file:
            file.write(wanted)
            file.truncate()

    write(change(content))
    return lambda: write(content)


class Viewer:
    """Somebody who looks at a stream all the time, as a browser does: it comes back.

    Attributes:
        statuses: How it was answered, each time.
        text: All that it was sent.
    """

    def __init__(self, site: Site, path: str, headers: dict[str, str]) -> None:
        self.statuses: list[int] = []
        self.text = ""
        self._address, self._headers = f"{site.url}{path}", headers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            with (
                contextlib.suppress(httpx.HTTPError),
                httpx.stream(
                    "GET", self._address, headers=self._headers, timeout=DEADLINE, trust_env=False
                ) as response,
            ):
                self.statuses.append(response.status_code)
                for part in response.iter_text():
                    self.text += part

    def end(self) -> None:
        self._over.set()


def page_of(site: Site, path: str) -> int:
    """Ask for a page, see that it tells what it should, and return its status."""
    answer = site.client.get(path)
    if answer.status_code == 503 and path.startswith("/pages"):
        assert "Not available now" in answer.text
        assert "journal cannot be used" in answer.text
        assert "sqlite" not in answer.text.lower()
    return int(answer.status_code)


@pytest.mark.parametrize(
    ("break_", "statuses"),
    [
        (locked, {200}),
        (deleted, {200}),
        (replaced, {200, 503}),
        (truncated, {200, 503}),
        (emptied, {200, 503}),
        (damaged, {200, 503}),
    ],
)
def test_who_looks_at_a_broken_journal(site: Site, break_: Break, statuses: set[int]) -> None:
    """The running job is known still; what cannot be told is said so, shortly, and comes back."""
    failed, job = site.add("broken", "pay"), site.add("guided", "one")
    site.until(failed, "failed")
    site.tell("one", "0.25")
    viewers = [
        Viewer(site, "/pages/live/list", {}),
        Viewer(site, f"/pages/live/job/{job}", {}),
        Viewer(site, f"/jobs/{job}", STREAM),
    ]
    wait_until(lambda: all("at 0.25" in viewer.text for viewer in viewers), "what they see")
    log = site.whole_log()
    back = break_(site.folder / "jobs.db")
    paths = [path.format(job=job) for path in PAGES]
    site.tell("one", "0.5")
    for _ in range(3):
        assert {page_of(site, path) for path in paths} <= statuses
    wait_until(lambda: all("at 0.5" in viewer.text for viewer in viewers[1:]), "what they see")
    answer = site.confirm(f"/job/{job}/cancel", token="x" * 43)
    assert answer.status_code == 403  # it answers whatever it is asked
    back()
    wait_until(lambda: {page_of(site, path) for path in paths} == {200}, "good pages")
    site.tell("one", "0.75")
    wait_until(lambda: all("at 0.75" in viewer.text for viewer in viewers), "what they see")
    assert failed in viewers[0].text
    for viewer in viewers:
        assert set(viewer.statuses) <= {200, 503}
        viewer.end()
    told = site.whole_log()[len(log) :]
    assert "a page could not be shown" not in told
    assert "Exception in ASGI" not in told
    site.tell("one", "end")


def test_action_on_a_locked_journal(site: Site) -> None:
    """It is told that nothing was done, and works when the other process is done."""
    job = site.add("broken", "pay")
    site.until(job, "failed")
    site.tell("pay", "yes")
    back = locked(site.folder / "jobs.db")
    answer = site.confirm(f"/job/{job}/retry")
    assert answer.status_code == 503
    assert "Not available now" in answer.text
    back()
    assert site.confirm(f"/job/{job}/retry").status_code == 303
    site.until(job, "succeeded")
    assert "Traceback" not in site.whole_log().partition("the bank does not answer")[2]
    assert "cannot be shown or changed now" in site.whole_log()


def test_new_journal_is_seen_by_who_only_looks(site: Site, tmp_path: Path) -> None:
    """W1, J4: a process that shares it, and writes nothing, does not go on with the former file."""
    (tmp_path / "other").mkdir()
    with Site(tmp_path / "other", UVICORN, tmp_path) as other:
        assert isinstance(other, Site)
        old = site.add("broken", "pay")
        wait_until(lambda: other.state(old)["status"] == "failed", "the failure")
        viewer = Viewer(other, "/pages/live/list", {})
        wait_until(lambda: old in viewer.text, "the job, in the other process")
        deleted(site.folder / "jobs.db")
        # The first answer may be that nothing is promised, until the new file is there (J2).
        asking = {"kind": "broken", "name": "pay"}
        answer = wait_until(
            lambda: (got := site.client.post("/add", params=asking)).is_success and got, "a new job"
        )
        new = answer.json()
        wait_until(lambda: new in viewer.text, "the new job, in the other process")
        viewer.end()
        for path in (f"/pages/job/{new}", f"/jobs/{new}"):
            wait_until(lambda path=path: page_of(other, path) == 200, "the new job")  # type: ignore[misc]
        for path in (f"/pages/job/{old}", f"/jobs/{old}"):
            wait_until(lambda path=path: page_of(other, path) == 404, "the old job's end")  # type: ignore[misc]


@contextlib.contextmanager
def watching(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run ``asgi-bg watch``, whose lines go to a file beside the journal."""
    command = (sys.executable, "-m", "asgi_bg", "--journal", f"{path}", "watch")
    with (
        Path(f"{path}.watch").open("w") as out,
        subprocess.Popen(
            (*command, "--interval", "0.1"),
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (locked, None),
        (held, "is locked by another program for long; try again"),
        (deleted, "there is no journal"),
        (replaced, "is damaged or no SQLite file"),
        (truncated, "is damaged or no SQLite file"),
        (emptied, "is no journal any more"),
        (damaged, "is damaged or no SQLite file"),
    ],
)
def test_watch_of_a_broken_journal(
    site: Site, tmp_path: Path, break_: Break, message: str | None
) -> None:
    """W3: who writes does not matter to it; it ends with one clear line where it cannot look."""
    job = site.add("guided", "one")
    site.until(job, "running")
    site.stop()  # so that nobody but the command looks, and nobody makes a new one
    path = tmp_path / "jobs.db"
    with watching(path) as process:
        out = Path(f"{path}.watch")
        wait_until(lambda: job in out.read_text(), "the job")
        back = break_(path)
        if message is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
        else:
            assert process.wait(DEADLINE) == 3
            assert message in out.read_text()
        back()
        assert "Traceback" not in out.read_text()
    with watching(path):
        wait_until(lambda: job in out.read_text(), "the job, again")


# A job that is gone.


@pytest.fixture
def browser_page() -> Iterator[Any]:
    """A page of a headless browser."""
    chromium = need_program("chromium", "chromium")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with need("playwright.sync_api").sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
        page.set_default_timeout(DEADLINE * 1000)
        yield page
        browser.close()


@pytest.mark.parametrize("is_away", [False, True], ids=["looking", "coming-back"])
def test_page_of_a_job_that_is_purged(site: Site, browser_page: Any, is_away: bool) -> None:
    """W1: it says so, keeps what was seen, offers no action, and asks for nothing any more."""
    job = site.add("broken", "pay")
    site.until(job, "failed")
    page, wrong = browser_page, []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{site.url}/pages/job/{job}")
    page.locator("#link-state", has_text="Live").wait_for()
    if is_away:
        hide = (
            "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, "
            "configurable: true}); document.dispatchEvent(new Event('visibilitychange')); }"
        )
        page.evaluate(hide, True)
    _purge(site)
    if is_away:
        page.evaluate(HIDE, False)
    page.locator("#link-state", has_text="No longer kept").wait_for()
    page.locator("#notice", has_text="This job is no longer kept").wait_for()
    assert page.locator("#do-retry").count() == 0
    assert page.locator("#pause").count() == 0
    assert "the bank does not answer" in page.locator("#outcome").text_content()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)  # for what must not happen
    assert asked == []
    assert wrong == []


def test_page_says_when_it_cannot_be_kept_up_to_date(site: Site, browser_page: Any) -> None:
    """W1: and is live again when the journal is well."""
    job = site.add("broken", "pay")
    site.until(job, "failed")
    page = browser_page
    page.goto(f"{site.url}/pages/list")
    page.locator("#link-state", has_text="Live").wait_for()
    back = damaged(site.folder / "jobs.db")
    page.locator("#link-state", has_text="Not available now").wait_for()
    assert page.locator(f"#job-{job}").count() == 1
    back()
    page.locator("#link-state", has_text="Live").wait_for()
    other = site.add("broken", "pay")
    page.locator(f"#job-{other}").wait_for()


def test_followed_job_that_is_purged_ends_its_stream(site: Site) -> None:
    """W2: with what was last known; who comes back hears that there is none."""
    job = site.add("broken", "pay")
    site.until(job, "failed")
    with site.client.stream("GET", f"/jobs/{job}", headers=STREAM) as stream:
        (*_, (_, told)) = list(events_in(stream.iter_lines()))
    assert told["status"] == "failed"
    _purge(site)
    assert site.client.get(f"/jobs/{job}", headers=STREAM).status_code == 404


def _purge(site: Site) -> None:
    page = site.client.get("/pages/purge").text
    token = page.partition('name="token" value="')[2].partition('"')[0]
    answer = site.client.post(
        "/pages/purge",
        data={"token": token, "status": "failed", "older_than": "0"},
        headers={"origin": site.url},
    )
    assert answer.headers["location"] == "./?done=purge&n=1"
