"""W4 across processes: spans and counts of jobs that go through a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import need, wait_until
from tests.services.redis import RedisServer
from tests.services.web import WebServer

need("opentelemetry.sdk.trace")
need("starlette")
need("uvicorn")
need("arq")
need("celery")

ROOT = Path(__file__).parents[2]
COUNT = 12
SENT, CONSUMED = "messaging.client.sent.messages", "messaging.client.consumed.messages"
HANDED_OVER, REFUSED = "asgi_bg.jobs.handed_over", "asgi_bg.jobs.refused"
COMMANDS = {
    "arq": ("arq", "tests.telemetry.broker_site.WorkerSettings"),
    "celery": ("celery", "-A", "tests.telemetry.broker_site:celery", "worker", "-c", "2"),
}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
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
    def worker(self, *command: str) -> Iterator[None]:
        """Run a worker of the engine's own."""
        with (
            (self.folder / "worker.log").open("w") as log,
            subprocess.Popen(
                (sys.executable, "-m", *command),
                cwd=self.folder,
                env={**os.environ, **self.env},
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                yield
            finally:
                process.terminate()

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
    return Place(tmp_path, request.param, redis.url)


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
    with place.app("shop") as shop, place.worker(*COMMANDS[place.env["SITE_ENGINE"]]):
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
            with place.worker(*COMMANDS[place.env["SITE_ENGINE"]]):
                wait_until(lambda: len(place.lines()) == COUNT, "jobs that ran")
            here = shop.told()
    assert here["counts"] == {SENT: COUNT, CONSUMED: 0, HANDED_OVER: COUNT, REFUSED: 0}
