"""Events: R9."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobEvent, add_task, current_job, task
from asgi_bg.events import NAMES, Events
from tests.helpers import BODY, START, Connection, responding, until

pytestmark = pytest.mark.anyio


def test_names_are_those_of_the_contract() -> None:
    """R9 lists them."""
    assert (
        *("queued", "started", "progressed", "succeeded", "failed"),
        *("retrying", "cancelled", "dropped", "recovered", "handed_over"),
    ) == NAMES


async def test_subscriber_hears_the_whole_story_in_order(make_runner: Any) -> None:
    """R9: every change of a job, with the job as it stood right after."""
    heard: list[JobEvent] = []
    runner = await make_runner(on_event=heard.append)

    @task(name="flaky", retries=1, retry_delay=0)
    def flaky() -> str:
        current_job().progress(0.5, "half")
        if current_job().attempt == 1:
            raise ValueError("once")
        return "value"

    async def broken() -> None:
        raise ValueError("for good")

    good = await runner.add_task(flaky)
    await good.result(5)
    bad = await runner.add_task(broken)
    gone = await runner.add_task(task(print).using(delay=60))
    await runner.cancel(gone.id)
    await runner.drain(5)

    def story(job: Any) -> list[tuple[str, str, int]]:
        return [(e.name, str(e.job.status), e.job.attempt) for e in heard if e.id == job.id]

    assert story(good) == [
        ("queued", "queued", 0),
        ("started", "running", 1),
        ("progressed", "running", 1),
        ("retrying", "queued", 1),
        ("started", "running", 2),
        ("progressed", "running", 2),
        ("succeeded", "succeeded", 2),
    ]
    assert story(bad) == [
        ("queued", "queued", 0),
        ("started", "running", 1),
        ("failed", "failed", 1),
    ]
    assert story(gone) == [("queued", "queued", 0), ("cancelled", "cancelled", 0)]
    last = [e for e in heard if e.id == good.id][-1]
    assert (last.task, last.job.result) == ("flaky", "value")
    assert [e.at for e in heard] == sorted(e.at for e in heard)
    assert all(e.at.tzinfo is not None for e in heard)


async def test_dropped_jobs_are_told_as_such() -> None:
    """R9, M5."""
    heard: list[tuple[str, str | None]] = []
    app = responding({**START, "status": 500}, BODY, before=lambda: add_task(print))
    middleware = BackgroundTaskMiddleware(
        app, run_on="success", on_event=lambda event: heard.append((event.name, event.job.error))
    )
    await Connection().call(middleware)
    assert heard[0] == ("queued", None)
    assert heard[1][0] == "dropped"
    assert "run_on" in str(heard[1][1])


async def test_failing_subscriber_is_logged_and_the_others_hear(
    make_runner: Any, errors: Any
) -> None:
    """R9: and the job is not harmed."""
    heard: list[str] = []

    def broken(event: JobEvent) -> None:
        raise RuntimeError("subscriber")

    runner = await make_runner(on_event=[broken, lambda event: heard.append(event.name)])
    job = await runner.add_task(asyncio.sleep, 0, "value")
    assert await job.result(5) == "value"
    assert heard == ["queued", "started", "succeeded"]
    assert len(errors()) == 3
    assert all("a subscriber of job events failed" in line for line in errors())


async def test_subscriber_may_add_a_task(make_runner: Any) -> None:
    """R9: nothing is locked while it is told."""
    log: list[str] = []
    runner = await make_runner()

    def chain(event: JobEvent) -> None:
        if event.name == "queued" and event.task == "first":
            add_task(log.append, "second")

    runner = await make_runner(on_event=chain)
    await runner.add_task(task(name="first")(log.append), "first")
    await until(lambda: len(log) == 2)


def test_async_subscriber_is_refused() -> None:
    """Nobody would await it."""

    async def subscriber(event: JobEvent) -> None: ...

    with pytest.raises(TypeError, match="plain functions of one event"):
        Events([subscriber])
