"""The programs of the README and of the pages in docs run as they stand."""

from __future__ import annotations

import asyncio
import io
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from asgi_bg import BackgroundTaskMiddleware, Runner, task
from tests.helpers import need

ROOT = Path(__file__).parent.parent


def blocks_of(page: str) -> list[str]:
    """Return the Python programs of a page."""
    text = (ROOT / page).read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Run every program in one namespace, in order, as a reader would type them in."""

    def run(page: str) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        names: dict[str, Any] = {"__name__": Path(page).stem.lower(), "apps": []}
        for block in blocks_of(page):
            exec(compile(block, page, "exec"), names)
            if re.search("^app = ", block, re.MULTILINE):
                names["apps"].append(names["app"])
        return names

    return run


@pytest.fixture
def names(run_page: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What the README's programs define."""
    return run_page("README.md")


def test_smallest_program_and_frameworks_send_their_mail(
    names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each app of the README, over HTTP."""
    raw, _, _, fastapi, starlette = names["apps"]
    with TestClient(raw) as client:
        assert client.get("/").text == "accepted\n"
    with TestClient(fastapi) as client:
        assert len(client.post("/signup?email=me@example.com").json()["job"]) == 32
    with TestClient(starlette) as client:
        assert client.get("/signup").text == "welcome"
    assert capsys.readouterr().out.splitlines() == [
        "mail to you@example.com",
        "mail to me@example.com",
        "mail to you@example.com",
    ]


def test_smallest_durable_program_keeps_its_job(
    names: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job is in the file before the answer is there, and runs."""
    _, durable, *_ = names["apps"]
    with TestClient(durable) as client:
        assert client.get("/").text == "accepted\n"
        assert rows_of(tmp_path / "jobs.db", "SELECT task FROM jobs") == [("readme:send_invoice",)]
    assert capsys.readouterr().out == "invoice for order 7\n"
    assert rows_of(tmp_path / "jobs.db", "SELECT status FROM jobs") == [("succeeded",)]


def test_following_a_job_works(names: dict[str, Any]) -> None:
    """The block's own assertions."""
    asyncio.run(names["follow"]())


def test_programs_for_operators_run(
    run_page: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The journals can be opened, and the look at failed jobs retries and removes them."""
    need("cryptography")
    page = run_page("docs/operating.md")

    @task(name="fails_once")
    def fails_once() -> None:
        failures.append(1)
        if len(failures) == 1:
            raise ConnectionError("nobody there")

    failures: list[int] = []

    async def run(journal: Any) -> None:
        async with Runner(journal=journal) as runner:
            await runner.add_task(fails_once)
            await runner.drain(10)
            await page["look"](runner)
            assert await runner.drain(10)

    asyncio.run(run(page["journal"]))
    assert re.fullmatch(
        r"0 jobs wait, 0 run here\n\w{32} fails_once 1 ConnectionError: nobody there\n"
        r"0 jobs removed\n",
        capsys.readouterr().out,
    )
    assert len(failures) == 2
    with TestClient(page["app"]):
        assert Path("jobs.db").exists()


class TestIdempotentTasks:
    """Each task of that page, in a job that is run twice, does what it does once."""

    @pytest.fixture
    def page(self, run_page: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        """What its programs define."""
        return run_page("docs/idempotent-tasks.md")

    def run_twice(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a task of the page in both attempts of one job, and return what it returned."""
        values: list[Any] = []

        @task(name="twice")
        def twice() -> None:
            values.append(function(*args))
            if len(values) == 1:
                raise ConnectionError("after all was done")

        async def run() -> None:
            async with Runner(journal="jobs.db") as runner:
                job = await runner.add_task(twice)
                assert await runner.drain(10)
                await runner.retry(job.id)
                assert await runner.drain(10)

        asyncio.run(run())
        first, second = values
        assert first == second
        return second

    def serving(self, endpoint: Callable[[], Any]) -> TestClient:
        """Return a client of an app with a journal that calls the endpoint in each request."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"  # it knows no lifespan
            endpoint()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return TestClient(BackgroundTaskMiddleware(app, journal="jobs.db"))

    def test_row_is_written_once(self, page: dict[str, Any]) -> None:
        """Two jobs, run twice each, write two rows."""
        self.run_twice(page["write_invoice"], "ada", 99)
        self.run_twice(page["write_invoice"], "ada", 99)
        query = "SELECT customer, cents FROM invoices"
        assert rows_of(page["FOLDER"] / "shop.db", query) == [("ada", 99), ("ada", 99)]

    def test_row_is_changed_once(self, page: dict[str, Any]) -> None:
        """Two jobs add their points once each."""
        self.run_twice(page["add_points"], "ada", 10)
        self.run_twice(page["add_points"], "ada", 10)
        assert rows_of(page["FOLDER"] / "shop.db", "SELECT * FROM points") == [("ada", 20)]

    def test_service_sees_one_key(self, page: dict[str, Any]) -> None:
        """Both requests of one job carry the same key."""
        keys: list[str] = []

        def urlopen(request: Any, timeout: float) -> io.BytesIO:
            keys.append(request.get_header("Idempotency-key"))
            return io.BytesIO(b'{"id": "charge-1"}')

        page["urlopen"] = urlopen
        assert self.run_twice(page["charge_card"], 7, 99) == "charge-1"
        assert len(keys) == 2
        assert len(set(keys)) == 1

    def test_file_is_written_as_a_whole(self, page: dict[str, Any]) -> None:
        """The report is there, and nothing else."""
        assert self.run_twice(page["write_report"], 2024) == "report-2024.txt"
        assert [path.name for path in page["FOLDER"].glob("report*")] == ["report-2024.txt"]

    def test_outbox_is_sent_once(
        self, page: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An order's mail is sent by the job that the endpoint adds."""

        with self.serving(lambda: page["place_order"]("order-7", "ada")) as client:
            client.get("/")
        self.run_twice(page["send_outbox"])
        assert capsys.readouterr().out == "to ada\n"

    def test_parts_are_sent_once(
        self, page: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A job that adds its parts twice has each of them once."""
        self.run_twice(page["send_newsletter"], ["ada", "bob"])
        assert capsys.readouterr().out == "to ada\nto bob\n"

    def test_form_that_is_sent_twice_makes_one_job(
        self, page: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Two requests with one key are told of the same job."""
        ids: list[str] = []

        with self.serving(lambda: ids.append(page["sign_up"]("ada"))) as client:
            client.get("/")
            client.get("/")
        assert len(ids) == 2
        assert len(set(ids)) == 1
        assert capsys.readouterr().out == "to ada\n"


def rows_of(file: Path, query: str) -> list[Any]:
    """Ask a database."""
    with closing(sqlite3.connect(file)) as db:
        return db.execute(query).fetchall()


def test_promises_are_held_by_tests_that_exist() -> None:
    """Every file that the last column of the promises' tables names."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    rows = re.findall(r"^\| ([MRJEW]\d+) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == [
        *(f"M{number}" for number in range(1, 9)),
        *(f"R{number}" for number in range(1, 10)),
        *(f"J{number}" for number in range(1, 11)),
        *(f"E{number}" for number in range(1, 7)),
        *(f"W{number}" for number in range(1, 5)),
    ]
    for name, files in rows:
        for file in re.findall(r"`([^`]+)`", files):
            assert list((ROOT / "tests").glob(file.rstrip("/"))), f"{name}: {file}"


def test_links_lead_somewhere() -> None:
    """Every relative link, in the README and in docs, and the heading that it names."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            target, _, heading = link.partition("#")
            if "://" in target:
                continue
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {link}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                slugs = [
                    re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles
                ]
                assert heading in slugs, f"{page.name}: {link}"
