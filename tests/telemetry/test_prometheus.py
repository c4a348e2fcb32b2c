"""Metrics of Prometheus: W4."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobEvent, Runner, add_task, task
from tests.engines.memory import MemoryEngine
from tests.helpers import BODY, START, Connection, need, responding, until

client = need("prometheus_client")
parser = need("prometheus_client.parser")
ours = need("asgi_bg.prometheus")
httpx = need("httpx")
need("uvicorn")

from tests.services.web import DEADLINE, WebServer  # noqa: E402

Samples = dict[str, float]


def samples_of(text: str) -> Samples:
    """Return the values of all samples by name and labels, as ``name task outcome``."""
    found: Samples = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith(("_bucket", "_created")):
                labels = dict(sample.labels)
                assert set(labels) <= {"task", "outcome"}, "no label is one of a job or a process"
                words = (sample.name, labels.get("task"), labels.get("outcome"))
                found[" ".join(filter(None, words))] = sample.value
    return found


class Site(WebServer):
    """The application of `tests.telemetry.prometheus_site` under uvicorn."""

    def __init__(self, folder: Path, *, workers: int = 1, journal: bool = False) -> None:
        env = {}
        if workers > 1:
            values = folder / "values"
            values.mkdir()
            env["PROMETHEUS_MULTIPROC_DIR"] = str(values)
        if journal:
            env["SITE_JOURNAL"] = str(folder / "jobs.db")
        options = (
            *("--workers", str(workers)),
            *("--no-access-log", "--timeout-graceful-shutdown", "5"),
        )
        app = "tests.telemetry.prometheus_site:app"
        super().__init__(folder, app, "/metrics", env, options=options)

    def get(self, path: str) -> Any:
        # A new connection each time, as any worker may take it.
        return httpx.get(self.url + path, timeout=DEADLINE)

    def scrape(self) -> Samples:
        answer = self.get("/metrics")
        assert answer.status_code == 200, self.log()
        return samples_of(answer.text)

    def scrape_until(self, condition: Callable[[Samples], Any]) -> Samples:
        deadline = time.monotonic() + DEADLINE
        while not condition(found := self.scrape()):
            assert time.monotonic() < deadline, f"{found}\n{self.log()}"
            time.sleep(0.05)
        return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Site:
            site = Site(tmp_path, **options)
            stack.enter_context(site)
            return site

        yield make


TASK = "tests.telemetry.prometheus_site:"


def test_a_scrape_of_a_server_tells_all(start: Callable[..., Site]) -> None:
    """W4: what was added, how attempts ended, how long they took and waited, what waits."""
    site = start()
    site.get("/works?count=3")
    site.get("/fails")
    found = site.scrape_until(
        lambda found: (
            found.get(f"asgi_bg_attempt_duration_seconds_count {TASK}works succeeded") == 3
            and found.get(f"asgi_bg_attempt_duration_seconds_count {TASK}fails failed") == 1
        )
    )
    assert found[f"asgi_bg_jobs_added_total {TASK}works"] == 3
    assert found[f"asgi_bg_jobs_added_total {TASK}fails"] == 1
    assert found[f"asgi_bg_attempt_duration_seconds_count {TASK}fails retrying"] == 1
    assert found[f"asgi_bg_queue_wait_seconds_count {TASK}works"] == 3
    assert found[f"asgi_bg_queue_wait_seconds_count {TASK}fails"] == 1
    site.get("/waits?count=4&seconds=1.5")
    found = site.scrape_until(lambda found: found.get("asgi_bg_jobs_in_flight"))
    assert found["asgi_bg_jobs_in_flight"] <= 2
    site.scrape_until(lambda found: found["asgi_bg_jobs_queued"] >= 1)
    site.scrape_until(lambda found: found["asgi_bg_oldest_job_age_seconds"] > 0)
    site.scrape_until(
        lambda found: not found["asgi_bg_jobs_in_flight"] and not found["asgi_bg_jobs_queued"]
    )


def test_two_processes_are_scraped_as_one(start: Callable[..., Site]) -> None:
    """W4: counters and histograms add up, and what waits in a shared journal counts once."""
    site = start(workers=2, journal=True)
    pids: list[int] = []
    deadline = time.monotonic() + DEADLINE
    while len(set(pids)) < 2:
        assert time.monotonic() < deadline, site.log()
        pids.append(site.get("/works").json())
    count = len(pids)
    site.scrape_until(
        lambda found: (
            found.get(f"asgi_bg_attempt_duration_seconds_count {TASK}works succeeded") == count
        )
    )
    found = site.scrape()
    assert found[f"asgi_bg_jobs_added_total {TASK}works"] == count
    assert found[f"asgi_bg_queue_wait_seconds_count {TASK}works"] == count
    site.get("/waits?count=12&seconds=2")
    # Each process runs two at most; what waits is in the journal, and seen by both.
    found = site.scrape_until(lambda found: found["asgi_bg_jobs_in_flight"] >= 2)
    assert found["asgi_bg_jobs_in_flight"] <= 4
    found = site.scrape_until(lambda found: found["asgi_bg_jobs_queued"] > 0)
    assert found["asgi_bg_jobs_queued"] <= 12


@task(name="prometheus.good")
async def good() -> None:
    pass


@pytest.mark.anyio
async def test_names_registry_and_buckets_can_be_chosen(make_runner: Any) -> None:
    """W4: two subscribers side by side, each under its own names."""
    registry = client.CollectorRegistry()
    first = ours.PrometheusEvents(registry=registry, namespace="shop", buckets=(1, 2))
    second = ours.PrometheusEvents(registry=registry)
    runner = await make_runner(on_event=(first, second))
    await runner.add_task(good)
    assert await runner.drain(30)
    text = client.generate_latest(registry).decode()
    found = samples_of(text)
    for name in ("shop", "asgi_bg"):
        assert found[f"{name}_jobs_added_total prometheus.good"] == 1
    bounds = {
        line.split('le="')[1].split('"')[0]
        for line in text.splitlines()
        if line.startswith("shop_queue_wait_seconds_bucket")
    }
    assert bounds == {"1.0", "2.0", "+Inf"}
    assert "in_flight" not in text
    with pytest.raises(ValueError, match="shop_jobs_added"):
        ours.PrometheusEvents(registry=registry, namespace="shop")


@pytest.mark.anyio
async def test_dropped_handed_over_and_cancelled_jobs_are_counted(
    make_runner: Any, tmp_path: Path
) -> None:
    """W4: a job that is cancelled while it waits has no attempt."""
    registry = client.CollectorRegistry()
    events = ours.PrometheusEvents(registry=registry)
    app = responding({**START, "status": 500}, BODY, before=lambda: add_task(good))
    await Connection().call(BackgroundTaskMiddleware(app, run_on="success", on_event=events))
    engine = MemoryEngine()
    outside = await make_runner(on_event=events, engine=engine, journal=tmp_path / "jobs.db")
    await outside.add_task(good)
    here = await make_runner(on_event=events)
    waiting = await here.add_task(good.using(delay=60))
    await here.cancel(waiting.id)

    def found() -> Samples:
        return samples_of(client.generate_latest(registry).decode())

    await until(lambda: found().get("asgi_bg_jobs_handed_over_total prometheus.good") == 1, 60)
    assert found()["asgi_bg_jobs_dropped_total prometheus.good"] == 1
    engine.refuses = lambda message: "too large"
    await outside.add_task(good)
    await until(lambda: found().get("asgi_bg_jobs_refused_total prometheus.good") == 1, 60)
    events(JobEvent("failed", datetime.now(timezone.utc), await waiting.info()))
    events(JobEvent("handed_over", datetime.now(timezone.utc), await waiting.info()))
    assert found()["asgi_bg_jobs_refused_total prometheus.good"] == 2
    assert found()["asgi_bg_jobs_handed_over_total prometheus.good"] == 2
    assert not any(name.startswith("asgi_bg_attempt_duration") for name in found())


@pytest.mark.anyio
async def test_gauges_begin_with_observe_and_end_with_close(make_runner: Any) -> None:
    """W4: of what nobody looks at there is no figure that looks like one."""
    registry = client.CollectorRegistry()
    events = ours.PrometheusEvents(registry=registry)
    runner = await make_runner(on_event=events)
    events.observe(runner, 0.02)
    events.observe(Runner(), 0.02)
    await until(lambda: registry.get_sample_value("asgi_bg_jobs_queued") == 0)
    await runner.add_task(good.using(delay=60))
    await until(lambda: registry.get_sample_value("asgi_bg_jobs_queued") == 1)
    events.close()
    with pytest.raises(TypeError, match="Runner"):
        events.observe(None)
    await runner.aclose(0)
