"""Servers that are killed in tests of users; J and E are those of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from asgi_bg import JobStatus
from asgi_bg.exceptions import JobNotFound
from asgi_bg.testing.crash import CrashSite
from tests.helpers import need

need("uvicorn")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., CrashSite]:
    def make_one(app: str = "tests.testing.crash_app:app", **options: Any) -> CrashSite:
        env = {"JOBS": str(tmp_path / "jobs.db"), "LINES": str(tmp_path / "lines")}
        env |= options.pop("env", {})
        return CrashSite(app, journal=tmp_path / "jobs.db", env=env, cwd=ROOT, **options)

    return make_one


@pytest.fixture
def site(make: Callable[..., CrashSite]) -> Iterator[CrashSite]:
    with make() as site:
        yield site


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[str]]:
    def read() -> list[str]:
        path = tmp_path / "lines"
        return path.read_text().splitlines() if path.exists() else []

    return read


@pytest.mark.parametrize("path", ["/store", "/thread"])
def test_killed_before_the_tasks_first_line(
    site: CrashSite, lines: Callable[[], list[str]], path: str
) -> None:
    """J3."""
    site.kill_at("started")
    job = site.post(f"{path}?a").json()["job"]
    site.restart()
    info = site.until_done(job)
    assert (info.status, info.result, info.attempt) == (JobStatus.succeeded, "a", 2)
    assert lines() == ["begin:a 2", "end:a 2"]


@pytest.mark.parametrize("path", ["/store", "/thread"])
def test_killed_where_the_task_says(
    site: CrashSite, lines: Callable[[], list[str]], path: str
) -> None:
    """J3: at least once."""
    site.kill_at("progressed")
    job = site.get(f"{path}?a").json()["job"]
    site.restart()
    assert site.until_done(job).status is JobStatus.succeeded
    assert lines() == ["begin:a 1", "begin:a 2", "end:a 2"]


def test_killed_after_the_last_line(site: CrashSite, lines: Callable[[], list[str]]) -> None:
    """J3: exactly once, as it was not interrupted."""
    site.kill_at("succeeded")
    job = site.post("/store?a").json()["job"]
    site.restart()
    assert site.until_done(job).attempt == 1
    assert lines() == ["begin:a 1", "end:a 1"]


def test_killed_before_the_answer(site: CrashSite, lines: Callable[[], list[str]]) -> None:
    """J1: nothing was promised."""
    site.kill_at("queued", task="site:store")
    with pytest.raises(ConnectionError):
        site.post("/store?a")
    site.restart()
    assert site.until_all_done() == []
    site.post("/store?b")
    assert [job.result for job in site.until_all_done()] == ["b"]


def test_a_trap_is_for_one_task_and_once(site: CrashSite, lines: Callable[[], list[str]]) -> None:
    site.kill_at("started", task="site:store")
    other = site.post("/thread?x").json()["job"]
    assert site.until_done(other).attempt == 1
    site.post("/store?a")
    site.restart()
    site.post("/store?b")
    assert [job.attempt for job in site.until_all_done()] == [1, 2, 1]


def test_killed_at_once_and_looked_at_while_dead(
    site: CrashSite, lines: Callable[[], list[str]]
) -> None:
    job = site.post("/wait").json()["job"]
    site.kill()
    assert not site.job(job).status.is_final
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
        site.get("/store?a")
    with pytest.raises(RuntimeError, match="does not run"):
        site.kill()
    with pytest.raises(JobNotFound):
        site.job("0" * 32)
    site.restart()
    assert "started" in site.log().lower()


def test_stopped_as_by_a_deployment(site: CrashSite) -> None:
    """R6: what was added is done before."""
    job = site.post("/store?a").json()["job"]
    assert site.stop() in (0, -15)
    assert site.job(job).status is JobStatus.succeeded


def test_a_factory(make: Callable[..., CrashSite]) -> None:
    with make("tests.testing.crash_app:create", factory=True, env={"FACTORY": "1"}) as site:
        assert site.until_done(site.post("/store?a").json()["job"]).result == "a"


def test_an_app_that_does_not_start(make: Callable[..., CrashSite]) -> None:
    """The error says what the server says."""
    with pytest.raises(RuntimeError, match=r"(?s)has not started.*no_such_module"):
        with make("tests.testing.no_such_module:app"):
            pass


def test_what_is_waited_for_in_vain(make: Callable[..., CrashSite]) -> None:
    with make(timeout=2.0) as site:
        job = site.post("/wait").json()["job"]
        with pytest.raises(TimeoutError, match="in vain for job"):
            site.until_done(job)
        with pytest.raises(TimeoutError, match="has not ended within 2 seconds"):
            site.restart()
        with pytest.raises(ValueError, match="event must be one of"):
            site.kill_at("lunch")


def test_nothing_is_left_behind(make: Callable[..., CrashSite]) -> None:
    me = psutil.Process()
    before = set(me.children(recursive=True))
    with make() as site:
        site.post("/wait")
        assert set(me.children(recursive=True)) - before
    assert set(me.children(recursive=True)) == before
