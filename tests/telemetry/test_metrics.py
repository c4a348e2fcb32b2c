"""Metrics of OpenTelemetry: W4."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobEvent, Runner, add_task, task
from asgi_bg._origin import Tracing
from asgi_bg.engines.base import Engine
from tests.engines.memory import MemoryEngine
from tests.helpers import BODY, START, Connection, need, responding, until

sdk = need("tests.telemetry.sdk")

pytestmark = pytest.mark.anyio

SENT = "messaging.client.sent.messages"
CONSUMED = "messaging.client.consumed.messages"
DURATION = "messaging.process.duration"
WAIT = "asgi_bg.queue.wait"


@task(name="metrics.good")
async def good() -> None:
    pass


@task(name="metrics.threaded")
def threaded() -> None:
    time.sleep(0.02)


@task(name="metrics.flaky", retries=1, retry_delay=0)
async def flaky(fail: int) -> None:
    tries.append(fail)
    if len(tries) <= fail:
        raise LookupError(f"number {fail} is not there")


@task(name="metrics.slow", timeout=0.05)
async def slow() -> None:
    await asyncio.sleep(60)


@task(name="metrics.endless")
async def endless() -> None:
    await asyncio.sleep(60)


tries: list[int] = []


async def test_every_job_and_attempt_is_counted(make_runner: Any, telemetry: Any) -> None:
    """W4: by task and kind of error, whatever becomes of it, on the loop and in threads."""
    tries.clear()
    runner = await make_runner(on_event=telemetry.events())
    for _ in range(3):
        await runner.add_task(good)
    for _ in range(2):
        await runner.add_task(threaded)
    await runner.add_task(flaky, 1)
    await runner.add_task(slow)
    stopped = await runner.add_task(endless)
    waiting = await runner.add_task(good.using(delay=60))
    await until(lambda: runner.stats()["running"] == 1)
    await runner.cancel(stopped.id)
    await runner.cancel(waiting.id)
    assert await runner.drain(30)

    assert telemetry.numbers(SENT) == {
        ("metrics.good", None): 4,
        ("metrics.threaded", None): 2,
        ("metrics.flaky", None): 1,
        ("metrics.slow", None): 1,
        ("metrics.endless", None): 1,
    }
    attempts = {
        ("metrics.good", None): 3,
        ("metrics.threaded", None): 2,
        ("metrics.flaky", "LookupError"): 1,
        ("metrics.flaky", None): 1,
        ("metrics.slow", "TimeoutError"): 1,
        ("metrics.endless", "cancelled"): 1,
    }
    assert telemetry.numbers(CONSUMED) == attempts
    assert telemetry.numbers(DURATION) == attempts
    assert telemetry.numbers(WAIT) == {
        (name, None): count
        for name, count in (
            *(("metrics.good", 3), ("metrics.threaded", 2), ("metrics.flaky", 1)),
            *(("metrics.slow", 1), ("metrics.endless", 1)),
        )
    }


async def test_names_units_and_attributes_are_those_of_the_conventions(
    make_runner: Any, telemetry: Any
) -> None:
    """W4: and no attribute is one of a job, however many there are."""
    events = telemetry.events()
    runner = await make_runner(on_event=events)
    events.observe(runner, 0.05)
    for _ in range(100):
        await runner.add_task(good)
    assert await runner.drain(30)
    await until(lambda: "asgi_bg.jobs.queued" in telemetry.metrics())

    found = telemetry.metrics()
    assert set(found) == {
        *(SENT, CONSUMED, DURATION, WAIT),
        *("asgi_bg.jobs.in_flight", "asgi_bg.jobs.queued", "asgi_bg.jobs.oldest.age"),
    }
    process = {
        "messaging.system": "asgi_bg",
        "messaging.operation.name": "process",
        "messaging.destination.name": "metrics.good",
    }
    for name, attributes in (
        (SENT, {**process, "messaging.operation.name": "send"}),
        (CONSUMED, process),
        (DURATION, process),
        (WAIT, process),
        ("asgi_bg.jobs.in_flight", {}),
    ):
        (point,) = found[name]
        assert dict(point.attributes) == attributes
    assert found[DURATION][0].explicit_bounds[:3] == (0.005, 0.01, 0.025)
    assert found[WAIT][0].explicit_bounds[-1] == 1800
    (resource,) = telemetry._reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "asgi_bg"
    assert scope.scope.schema_url.startswith("https://opentelemetry.io/schemas/")
    units = {metric.name: metric.unit for metric in scope.metrics}
    assert units[SENT] == "{message}"
    assert units[DURATION] == units["asgi_bg.jobs.oldest.age"] == "s"


async def test_seconds_are_those_that_passed(make_runner: Any, telemetry: Any) -> None:
    """W4: a wait begins when the job is due, and a duration when its task is called."""
    runner = await make_runner(on_event=telemetry.events(), max_jobs=1)
    await runner.add_task(threaded)
    await runner.add_task(good)
    await runner.add_task(task(name="metrics.later")(good.func).using(delay=1.0))
    at = datetime.now(timezone.utc) + timedelta(seconds=1.0)
    await runner.add_task(task(name="metrics.at")(good.func).using(run_at=at))
    await until(lambda: runner.stats()["succeeded"] == 4, 60)

    found = telemetry.metrics()
    durations = {p.attributes["messaging.destination.name"]: p.sum for p in found[DURATION]}
    waits = {p.attributes["messaging.destination.name"]: p.sum for p in found[WAIT]}
    assert 0.02 <= durations["metrics.threaded"] < 5
    assert 0.015 <= waits["metrics.good"] < 5
    assert waits["metrics.later"] < 0.9
    assert waits["metrics.at"] < 0.9


@pytest.mark.parametrize("is_durable", [False, True])
async def test_gauges_tell_how_jobs_stand(
    make_runner: Any, telemetry: Any, tmp_path: Any, is_durable: bool
) -> None:
    """W4: how many wait and run, and the oldest, with a journal and without one."""
    gate = threading.Event()

    @task(name="metrics.held")
    def held() -> None:
        gate.wait(60)

    events = telemetry.events()
    journal = tmp_path / "jobs.db" if is_durable else None
    runner = await make_runner(on_event=events, max_jobs=1, journal=journal)
    events.observe(runner, 0.02)
    try:
        for _ in range(3):
            await runner.add_task(held)
        await until(lambda: telemetry.numbers("asgi_bg.jobs.queued") == {(None, None): 2}, 60)
        assert telemetry.numbers("asgi_bg.jobs.in_flight") == {(None, None): 1}
        first = telemetry.metrics()["asgi_bg.jobs.oldest.age"][0].value
        await until(
            lambda: telemetry.metrics()["asgi_bg.jobs.oldest.age"][0].value > first + 0.1, 60
        )
    finally:
        gate.set()
    assert await runner.drain(30)
    await until(lambda: telemetry.metrics()["asgi_bg.jobs.queued"][0].value == 0, 60)
    assert telemetry.metrics()["asgi_bg.jobs.oldest.age"][0].value == 0


async def test_collecting_in_the_loop_or_while_it_is_blocked_blocks_nobody(
    make_runner: Any, telemetry: Any
) -> None:
    """W4: gauges show the last look, so that a collection never waits for the event loop."""
    events = telemetry.events()
    runner = await make_runner(on_event=events)
    events.observe(runner, 0.02)
    await until(lambda: telemetry.metrics().get("asgi_bg.jobs.queued"))
    began = time.monotonic()
    telemetry.metrics()
    blocked = threading.Thread(target=telemetry.metrics)
    blocked.start()
    blocked.join(30)  # this blocks the loop until the other thread has collected
    assert not blocked.is_alive()
    assert time.monotonic() - began < 5


async def test_looks_end_with_the_runner_or_at_close(make_runner: Any, telemetry: Any) -> None:
    """W4: no thread is left behind, and no runner is kept alive."""

    def watchers() -> int:
        return sum(thread.name == "asgi_bg telemetry" for thread in threading.enumerate())

    before = watchers()
    events = telemetry.events()
    events.observe(await make_runner(), 0.02)
    events.observe(Runner(), 0.02)  # it is never started, and gone at once
    await until(lambda: watchers() == before + 1)
    events.close()
    await until(lambda: watchers() == before)


async def test_an_arguments_mistake_is_told(telemetry: Any) -> None:
    """What was expected, and what came."""
    with pytest.raises(ValueError, match="measured"):
        telemetry.events(measured=0)
    with pytest.raises(TypeError, match="Runner"):
        telemetry.events().observe("runner")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="interval"):
        telemetry.events().observe(Runner(), 0)


async def test_dropped_and_handed_over_jobs_are_counted(make_runner: Any, telemetry: Any) -> None:
    """W4: jobs that end up elsewhere, or nowhere."""
    app = responding({**START, "status": 500}, BODY, before=lambda: add_task(good))
    await Connection().call(
        BackgroundTaskMiddleware(app, run_on="success", on_event=telemetry.events())
    )
    assert telemetry.numbers("asgi_bg.jobs.dropped") == {("metrics.good", None): 1}


async def test_many_attempts_are_all_counted_and_a_share_is_measured(
    make_runner: Any, telemetry: Any
) -> None:
    """W4: counters are exact at any rate; ``measured`` bounds what the histograms cost."""
    some = await make_runner(on_event=telemetry.events(measured=1))
    for _ in range(1000):
        await some.add_task(good)
    assert await some.drain(60)
    assert telemetry.numbers(CONSUMED) == {("metrics.good", None): 1000}
    assert 1 <= telemetry.numbers(DURATION)["metrics.good", None] < 900

    other = sdk.Telemetry()
    every = await make_runner(on_event=other.events(measured=None))
    for _ in range(1000):
        await every.add_task(good)
    assert await every.drain(60)
    assert other.numbers(DURATION) == other.numbers(CONSUMED) == {("metrics.good", None): 1000}
    other.close()


async def test_after_many_attempts_few_are_all_measured_again(
    make_runner: Any, telemetry: Any
) -> None:
    """W4: the share follows the rate at once, and not only when somebody collects."""
    runner = await make_runner(on_event=telemetry.events())
    for _ in range(3000):
        await runner.add_task(good)
    assert await runner.drain(60)
    seldom = task(name="metrics.seldom")(good.func)
    await asyncio.sleep(0.5)  # by when the share has been chosen anew
    for _ in range(5):
        await runner.add_task(seldom)
    assert await runner.drain(60)
    counts = telemetry.numbers(DURATION)
    assert counts["metrics.good", None] < 3000
    assert counts["metrics.seldom", None] == 5


async def test_the_kind_of_an_error_is_its_class(make_runner: Any, telemetry: Any) -> None:
    """W4: with its module, unless that is Python's own; its text is in no attribute."""

    @task(name="metrics.parse")
    def parse() -> None:
        json.loads("{")

    runner = await make_runner(on_event=telemetry.events())
    await runner.add_task(parse)
    assert await runner.drain(30)
    assert telemetry.numbers(CONSUMED) == {("metrics.parse", "json.decoder.JSONDecodeError"): 1}


async def test_a_job_that_waits_for_a_thread_has_no_attempt_yet(
    make_runner: Any, telemetry: Any
) -> None:
    """W4: cancelled there it was not run, and nothing is measured of it."""
    gate = threading.Event()

    @task(name="metrics.gated")
    def gated() -> None:
        gate.wait(60)

    runner = await make_runner(on_event=telemetry.events(), max_threads=1, ordered=False)
    first = await runner.add_task(gated)
    try:
        await until(lambda: first.status == "running", 30)
        second = await runner.add_task(gated)
        await asyncio.sleep(0)
        await runner.cancel(second.id)
    finally:
        gate.set()
    assert await runner.drain(30)
    assert telemetry.numbers(CONSUMED) == {("metrics.gated", None): 1}
    assert telemetry.numbers(SENT) == {("metrics.gated", None): 2}


async def test_threads_lose_no_count(telemetry: Any) -> None:
    """W4: jobs of several loops and threads at once, while somebody collects."""
    events = telemetry.events(measured=1)
    app = BackgroundTaskMiddleware(
        responding(START, BODY, before=lambda: add_task(good)), on_event=events
    )

    async def many() -> None:
        for _ in range(300):
            await Connection().call(app)

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        telemetry.metrics()
        await asyncio.sleep(0.001)
    for thread in threads:
        thread.join()
    assert telemetry.numbers(SENT) == telemetry.numbers(CONSUMED) == {("metrics.good", None): 1200}


async def test_without_metrics_or_traces_there_are_none(make_runner: Any, telemetry: Any) -> None:
    """W4: either can be had alone; without traces no trace is looked for."""
    Tracing.current = None
    events = telemetry.events(traces=False)
    assert Tracing.current is None
    runner = await make_runner(on_event=events)
    await runner.add_task(good)
    assert await runner.drain(30)
    assert telemetry.spans() == []
    assert telemetry.numbers(CONSUMED) == {("metrics.good", None): 1}

    other = sdk.Telemetry()
    spans_only = other.events(metrics=False)
    runner = await make_runner(on_event=spans_only)
    spans_only.observe(runner)
    await runner.add_task(good)
    assert await runner.drain(30)
    assert other.metrics() == {}
    assert len(other.spans()) == 1
    other.close()


async def test_without_an_sdk_nothing_happens(make_runner: Any) -> None:
    """W4: the API alone takes everything, and keeps nothing."""
    events = sdk.OpenTelemetryEvents()
    runner = await make_runner(on_event=events)
    job = await runner.add_task(good)
    await job.result(30)
    events.close()


async def test_jobs_that_fail_without_an_attempt_are_counted(
    make_runner: Any, telemetry: Any, tmp_path: Any
) -> None:
    """W4: those that an engine refuses, and those that are not in this process at all."""
    events = telemetry.events()
    engine = MemoryEngine()
    engine.refuses = lambda message: "too large"
    runner = await make_runner(on_event=events, engine=engine, journal=tmp_path / "jobs.db")
    job = await runner.add_task(good)
    refused = "asgi_bg.jobs.refused"
    await until(lambda: telemetry.numbers(refused) == {("metrics.good", None): 1}, 60)
    assert CONSUMED not in telemetry.metrics()

    # As the runner tells of a job whose task is gone, or whose processes have died.
    events(JobEvent("failed", datetime.now(timezone.utc), await job.info()))
    events(JobEvent("recovered", datetime.now(timezone.utc), await job.info()))
    assert telemetry.numbers(refused) == {("metrics.good", None): 2}


async def test_handed_over_jobs_are_counted(
    make_runner: Any, telemetry: Any, tmp_path: Any
) -> None:
    """W4, E1: what an engine has taken."""
    engine: Engine = MemoryEngine()
    runner = await make_runner(
        on_event=telemetry.events(), engine=engine, journal=tmp_path / "jobs.db"
    )
    await runner.add_task(good)
    await until(
        lambda: telemetry.numbers("asgi_bg.jobs.handed_over") == {("metrics.good", None): 1}, 60
    )
