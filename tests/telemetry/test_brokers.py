"""W4 across processes: spans and counts of jobs that go through a real broker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs_page import blocks_of
from tests.helpers import need, wait_until
from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer
from tests.services.web import WebServer

need("opentelemetry.sdk.trace")
need("starlette")
need("uvicorn")
need("arq")
need("celery")
need("taskiq_redis")
need("psycopg")
procrastinate = need("procrastinate")

ROOT = Path(__file__).parents[2]
COUNT = 12
SENT, CONSUMED = "messaging.client.sent.messages", "messaging.client.consumed.messages"
HANDED_OVER, REFUSED = "asgi_bg.jobs.handed_over", "asgi_bg.jobs.refused"
WAIT, DURATION = "asgi_bg.queue.wait", "messaging.process.duration"
COMMANDS = {
    "arq": ("arq", "tests.telemetry.broker_site.WorkerSettings"),
    "celery": ("celery", "-A", "tests.telemetry.broker_site:celery", "worker", "-c", "2"),
    "taskiq": ("taskiq", "worker", "tests.telemetry.broker_site:broker", "--workers", "1"),
    "procrastinate": (
        *("procrastinate", "--app=tests.telemetry.broker_site.queue", "worker"),
        *("--concurrency", "4", "--fetch-job-polling-interval", "0.2"),
    ),
}
ENGINES = list(COMMANDS)
PAGE_COMMANDS = {
    "arq": ("arq", "shop.WorkerSettings"),
    "celery": ("celery", "-A", "shop:celery", "worker", "-c", "1"),
    "taskiq": ("taskiq", "worker", "shop:broker", "--workers", "1"),
    "procrastinate": ("procrastinate", "--app=shop.app", "worker"),
}
PAGE_TASK = """
from pathlib import Path
from asgi_bg import task

@task(name="page.greet")
def greet(name): ...

def hear(name, record, heard=telemetry.hear):
    heard(name, record)
    Path(name).touch()

telemetry.hear = hear
"""
PAGE_SENDER = """
import asyncio
import shop
from asgi_bg import Runner

async def send():
    async with Runner(engine=shop.engine) as runner:
        await runner.add_task(shop.greet, "you")

asyncio.run(send())
"""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """With the tables of Procrastinate."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as started:
        assert isinstance(started, PostgresServer)
        connector = procrastinate.SyncPsycopgConnector(conninfo=started.url)
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
        yield started


class Place:
    """What the processes of one test have in common."""

    def __init__(self, folder: Path, engine: str, url: str) -> None:
        self.folder = folder
        self.path = folder / "lines"
        self.path.touch()
        self.env = {
            "SITE_ENGINE": engine,
            "SITE_URL": url,
            "SITE_LINES": f"{self.path}",
            "PYTHONPATH": f"{ROOT}",
        }

    def app(self, name: str, **env: str) -> App:
        """Return a process of the app, with a journal of its own."""
        folder = self.folder / name
        folder.mkdir()
        return App(folder, {**self.env, "SITE_JOURNAL": f"{folder / 'jobs.db'}", **env})

    @contextmanager
    def worker(self, *, is_watched: bool = False) -> Iterator[None]:
        """Run a worker of the engine's own, with subscribers or without."""
        told = self.folder / "told"
        told.mkdir(exist_ok=True)
        env = {"SITE_TOLD": f"{told}"} if is_watched else {}
        with self.running(*COMMANDS[self.env["SITE_ENGINE"]], **env):
            yield

    @contextmanager
    def running(self, *command: str, **env: str) -> Iterator[None]:
        """Run a program of the virtual environment's, whose output is the log."""
        with (
            (self.folder / "worker.log").open("w") as log,
            subprocess.Popen(
                (sys.executable, "-m", *command),
                cwd=self.folder,
                env={**os.environ, **self.env, **env},
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                yield
            finally:
                process.terminate()

    def told(self) -> list[dict[str, Any]]:
        """What the SDKs of the worker's processes have received."""
        return [json.loads(path.read_text()) for path in (self.folder / "told").glob("*.json")]

    def spans(self) -> list[dict[str, Any]]:
        """The spans of the attempts in the worker's processes."""
        return [span for told in self.told() for span in told["spans"]]

    def sums(self, kind: str) -> dict[str, int]:
        """The sums of the worker's ``counts``, or of what was ``measured``."""
        sums: Counter[str] = Counter()
        for told in self.told():
            for name, value in told[kind].items():
                sums[name] += value
        return dict(sums)

    def log(self) -> str:
        """What the worker has logged."""
        return (self.folder / "worker.log").read_text()

    def lines(self) -> list[list[Any]]:
        """The attempts so far: number of the job and attempt, process, and current span."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]


class App(WebServer):
    """A process of the app."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        super().__init__(folder, "tests.telemetry.broker_site:served", "/told", env)

    def add(self, task: str, *, fails: int = 0) -> list[str]:
        """Add jobs in one request; return its trace and span."""
        query: dict[str, str | int] = {"task": task, "count": COUNT, "fails": fails}
        source: list[str] = self.client.post("/add", params=query).json()
        return source

    def told(self) -> dict[str, Any]:
        """What the SDK of this process has received."""
        found: dict[str, Any] = self.client.get("/told").json()
        return found


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, redis: RedisServer) -> Place:
    made = Place(tmp_path, request.param, redis.url)
    if request.param == "procrastinate":
        made.env["SITE_POSTGRES"] = request.getfixturevalue("postgres").url
    return made


@pytest.mark.parametrize("place", ["arq"], indirect=True)
@pytest.mark.parametrize(("task", "fails"), [("pay", 1), ("paint", 0)])
def test_spans_of_another_process_link_to_the_request(place: Place, task: str, fails: int) -> None:
    """W4, E1, E3: each side counts what it has done, once; the spans are where the job runs."""
    attempts = COUNT * (fails + 1)
    with place.app("shop") as shop, place.app("kitchen", SITE_CONSUME="yes") as kitchen:
        assert isinstance(shop, App)
        assert isinstance(kitchen, App)
        source = shop.add(task, fails=fails)
        wait_until(lambda: len(kitchen.told()["spans"]) == attempts, "spans")
        wait_until(lambda: shop.told()["counts"][HANDED_OVER] == COUNT, "what was handed over")
        there, here = kitchen.told(), shop.told()
    assert [span["links"] for span in there["spans"]] == [[source]] * attempts
    assert {span["status"] for span in there["spans"] if span["attempt"] > fails} == {"succeeded"}
    assert {span["status"] for span in there["spans"] if span["attempt"] <= fails} <= {"retrying"}
    assert len({(span["job"], span["attempt"]) for span in there["spans"]}) == attempts
    # The task itself was inside of its span.
    lines = place.lines()
    assert {pid for _, _, pid, _ in lines} == {there["pid"]}
    assert {span for *_, span in lines} == {span["span"] for span in there["spans"]}
    assert len(lines) == attempts
    assert here["spans"] == []
    assert here["counts"] == {SENT: COUNT, CONSUMED: 0, HANDED_OVER: COUNT, REFUSED: 0}
    assert there["counts"] == {SENT: 0, CONSUMED: attempts, HANDED_OVER: 0, REFUSED: 0}


@pytest.mark.parametrize("place", ["arq", "celery"], indirect=True)
def test_jobs_of_an_engines_own_worker_are_counted_where_they_were_added(place: Place) -> None:
    """W4, E3: once, as added and as handed over; an attempt is no attempt of this process."""
    with place.app("shop") as shop, place.worker():
        assert isinstance(shop, App)
        shop.add("paint")
        wait_until(lambda: len(place.lines()) == COUNT, "jobs that ran")
        wait_until(lambda: shop.told()["counts"][HANDED_OVER] == COUNT, "what was handed over")
        here = shop.told()
    assert here["spans"] == []
    assert here["counts"] == {SENT: COUNT, CONSUMED: 0, HANDED_OVER: COUNT, REFUSED: 0}
    assert sorted(number for number, *_ in place.lines()) == list(range(COUNT))
    assert here["pid"] not in {pid for _, _, pid, _ in place.lines()}


@pytest.mark.parametrize("place", ["arq", "celery"], indirect=True)
def test_broker_that_is_away_counts_nothing_twice(
    place: Place, tmp_path: Path, redis: RedisServer
) -> None:
    """W4, E1, E2: a job that had to wait for it is handed over once."""
    with RedisServer(tmp_path / "own") as own:
        place.env["SITE_URL"] = own.url
        with place.app("shop") as shop:
            assert isinstance(shop, App)
            own.kill()
            shop.add("paint")
            wait_until(lambda: shop.told()["counts"][SENT] == COUNT, "jobs that were added")
            assert shop.told()["counts"][HANDED_OVER] == 0
            own.start()
            wait_until(lambda: shop.told()["counts"][HANDED_OVER] == COUNT, "handing over")
            with place.worker():
                wait_until(lambda: len(place.lines()) == COUNT, "jobs that ran")
            here = shop.told()
    assert here["counts"] == {SENT: COUNT, CONSUMED: 0, HANDED_OVER: COUNT, REFUSED: 0}


@pytest.mark.parametrize("place", ENGINES, indirect=True)
@pytest.mark.parametrize(("task", "fails"), [("pay", 1), ("paint", 0)])
def test_an_engines_own_worker_is_traced_and_counted(place: Place, task: str, fails: int) -> None:
    """W4, R9: each attempt once, where it was made; a subscriber that fails harms none."""
    attempts = COUNT * (fails + 1)
    with place.app("shop") as shop, place.worker(is_watched=True):
        assert isinstance(shop, App)
        source = shop.add(task, fails=fails)
        wait_until(lambda: len(place.spans()) == attempts, "spans")
        wait_until(lambda: shop.told()["counts"][HANDED_OVER] == COUNT, "what was handed over")
        spans, here = place.spans(), shop.told()
    assert [span["links"] for span in spans] == [[source]] * attempts
    assert {span["status"] for span in spans if span["attempt"] > fails} == {"succeeded"}
    assert {span["status"] for span in spans if span["attempt"] <= fails} <= {"retrying"}
    assert len({(span["job"], span["attempt"]) for span in spans}) == attempts
    # The task itself was inside of its span.
    lines = place.lines()
    assert len(lines) == attempts
    assert {span for *_, span in lines} == {span["span"] for span in spans}
    assert {pid for _, _, pid, _ in lines} == {told["pid"] for told in place.told()}
    assert place.sums("counts") == {SENT: 0, CONSUMED: attempts, HANDED_OVER: 0, REFUSED: 0}
    assert place.sums("measured") == {WAIT: COUNT, DURATION: attempts}
    assert here["counts"] == {SENT: COUNT, CONSUMED: 0, HANDED_OVER: COUNT, REFUSED: 0}
    assert "a subscriber of job events failed: <function broken" in place.log()
    assert "RuntimeError: succeeded is not heard" in place.log()


@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_jobs_that_a_task_adds_in_a_worker_go_on_with_the_trace(place: Place) -> None:
    """W4: they link to the attempt that has added them, and count as added and handed over."""
    with place.app("shop") as shop, place.worker(is_watched=True):
        assert isinstance(shop, App)
        source = shop.add("order")
        wait_until(lambda: len(place.spans()) == 2 * COUNT, "spans")
        spans = place.spans()
        wait_until(lambda: place.sums("counts")[HANDED_OVER] == COUNT, "what was handed over")
    orders = [span for span in spans if span["task"] == "brokers.order"]
    paints = [span for span in spans if span["task"] == "brokers.paint"]
    assert [span["links"] for span in orders] == [[source]] * COUNT
    added_in = sorted([span["trace"], span["span"]] for span in orders)
    assert sorted(link for span in paints for link in span["links"]) == added_in
    assert place.sums("counts") == {
        SENT: COUNT,
        CONSUMED: 2 * COUNT,
        HANDED_OVER: COUNT,
        REFUSED: 0,
    }


@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_worker_that_is_set_up_by_its_page_is_traced(place: Place) -> None:
    """W4: what the page of the engine has its reader write, with a task, and a real worker."""
    name = place.env["SITE_ENGINE"]
    page = (ROOT / "docs" / "engines" / f"{name}.md").read_text()
    program = "".join(block for _, block in blocks_of(page)) + PAGE_TASK
    program = re.sub(r'"(redis|amqp)://[^"]*"', f'"{place.env["SITE_URL"]}"', program)
    program = program.replace('"..."', f'"{place.env.get("SITE_POSTGRES")}"')
    (place.folder / "shop.py").write_text(program)
    place.env["PYTHONPATH"] += f"{os.pathsep}{place.folder}"
    with place.running(*PAGE_COMMANDS[name]):
        subprocess.run(
            (sys.executable, "-c", PAGE_SENDER),
            cwd=place.folder,
            env={**os.environ, **place.env},
            check=True,
        )
        wait_until((place.folder / "succeeded").exists, "the job")
    # The worker has sent them when it ended, as its page has it do.
    assert place.log().count('"name": "process page.greet"') == 1
    assert place.log().count('"asgi_bg.status": "succeeded"') == 1
