"""R9: subscribers that fail, block, add jobs, and ask the runner; no job is harmed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import (
    BackgroundTaskMiddleware,
    JobEvent,
    JobStatus,
    Runner,
    add_task,
    current_job,
    task,
)
from asgi_bg import events as names
from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.base import Batch
from asgi_bg.journal.codec import codec_of
from tests.cli.helpers import new_job
from tests.engines.memory import MemoryEngine
from tests.helpers import BODY, START, Connection, responding, until
from tests.journal.helpers import crash

pytestmark = pytest.mark.anyio

MakeRunner = Callable[..., Awaitable[Runner]]
COUNT = 20


@task(name="subscribers.there", retries=1, retry_delay=0)
async def there(number: int) -> int:
    current_job().progress(0.5, "half")
    if current_job().attempt == 1:
        raise ValueError("once")
    return number


@task(name="subscribers.in_thread", retries=1, retry_delay=0)
def in_thread(number: int) -> int:
    current_job().progress(0.5, "half")
    if current_job().attempt == 1:
        raise ValueError("once")
    return number


@task(name="subscribers.endless")
async def endless() -> None:
    await asyncio.Event().wait()


STORY = Counter(("queued", "started", "started", "progressed", "progressed", "retrying"))
STORY["succeeded"] = 1


class Hearer:
    """One that takes the job as the runner has it."""

    def __init__(self, do: Callable[[str], None]) -> None:
        self._do = do

    def hear(self, name: str, record: Any) -> None:
        self._do(name)

    def __call__(self, event: JobEvent) -> None:
        self._do(event.name)


@pytest.fixture(params=["memory", "journal"])
async def make(
    request: pytest.FixtureRequest, make_runner: MakeRunner, tmp_path: Path
) -> MakeRunner:
    """Make runners, with a journal and without one."""

    async def made(**options: Any) -> Runner:
        journal = tmp_path / "jobs.db" if request.param == "journal" else None
        return await make_runner(journal=journal, **options)

    return made


async def results_of(runner: Runner, function: Any) -> list[int]:
    """Run some jobs, and return what comes of them."""
    jobs = [await runner.add_task(function, number) for number in range(COUNT)]
    return [await job.result(30) for job in jobs]


@pytest.mark.parametrize("function", [there, in_thread])
@pytest.mark.parametrize(
    "error", [RuntimeError, SystemExit, GeneratorExit, asyncio.CancelledError, StopIteration]
)
async def test_who_always_fails_harms_nobody(
    make: MakeRunner, function: Any, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """In the loop, in worker threads, as a function and as a hearer; each failure is logged."""
    heard: Counter[str] = Counter()

    def fail(*_: Any) -> None:
        raise error("subscriber")

    # The last one hears all, although each before it fails.
    runner = await make(on_event=[fail, Hearer(fail), lambda event: heard.update([event.name])])
    assert await results_of(runner, function) == list(range(COUNT))
    await until(lambda: heard == Counter({name: n * COUNT for name, n in STORY.items()}))
    failures = [one for one in caplog.messages if one.startswith("a subscriber of job events")]
    assert len(failures) == 2 * COUNT * sum(STORY.values())
    assert all("subscribers." in one and " on " in one for one in failures)
    assert runner.stats()["running"] == 0


@pytest.mark.parametrize("function", [there, in_thread])
async def test_who_blocks_for_a_while_only_delays(make: MakeRunner, function: Any) -> None:
    """It is called where the event happens, so all wait for it; nothing comes twice or never."""
    heard: list[tuple[str, str]] = []
    threads: set[int] = set()

    def block(event: JobEvent) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.01)
        heard.append((event.name, event.id))

    runner = await make(on_event=block)
    assert await results_of(runner, function) == list(range(COUNT))
    await until(lambda: len(heard) == COUNT * sum(STORY.values()), 30)
    for job in {job for _, job in heard}:
        story = [name for name, other in heard if other == job]
        assert Counter(story) == STORY
        assert (story[0], story[-1]) == ("queued", "succeeded")
    assert len(threads) > (function is in_thread)


async def test_who_adds_jobs_in_a_worker_thread(make: MakeRunner) -> None:
    """With `add_task`, to the request of the job it is told of; each runs once."""
    ran: list[int] = []

    @task(name="subscribers.next")
    def following(number: int) -> None:
        ran.append(number)

    def chain(event: JobEvent) -> None:
        if event.name == "started" and event.task == "subscribers.first":
            add_task(following, len(ran))

    @task(name="subscribers.first")
    def first() -> None: ...

    runner = await make(on_event=chain)
    app = responding(START, BODY, before=lambda: [add_task(first) for _ in range(3)])
    await Connection().call(BackgroundTaskMiddleware(app, runner=runner))
    await until(lambda: len(ran) == 3)
    assert await runner.drain(10)
    assert len(ran) == 3
    assert runner.stats()["failed"] == 0


async def test_who_adds_a_job_for_each_end(make: MakeRunner) -> None:
    """With the runner's own `add_task`, from a task of asyncio's; the drain waits for these."""
    ran: list[int] = []
    adding: list[asyncio.Task[Any]] = []

    @task(name="subscribers.last")
    async def last(number: int) -> None:
        ran.append(number)

    def chain(event: JobEvent) -> None:
        if event.name == "succeeded" and event.task == there.name:
            adding.append(asyncio.ensure_future(runner.add_task(last, event.job.result)))

    runner = await make(on_event=chain)
    await results_of(runner, there)
    await until(lambda: len(adding) == COUNT)
    await asyncio.gather(*adding)
    assert await runner.drain(10)
    assert sorted(ran) == list(range(COUNT))


async def test_who_asks_the_runner_and_changes_jobs(make: MakeRunner) -> None:
    """Cancels what starts, retries what was cancelled, and looks at all of it meanwhile."""
    asked: list[asyncio.Task[Any]] = []
    told: list[str] = []
    running: list[int] = []

    def act(event: JobEvent) -> None:
        running.append(runner.stats()["running"])
        told.append(event.name)
        if event.name == "started":
            asked.append(asyncio.ensure_future(runner.cancel(event.id)))
        elif event.name == "cancelled":
            asked.append(asyncio.ensure_future(runner.info(event.id)))
            asked.append(asyncio.ensure_future(runner.jobs(limit=5)))
            if told.count("cancelled") < 3:
                asked.append(asyncio.ensure_future(runner.retry(event.id)))

    runner = await make(on_event=act)
    job = await runner.add_task(endless)
    await until(lambda: told.count("cancelled") == 3, 30)
    while not all(one.done() for one in asked):
        await asyncio.wait(asked, timeout=10)
    assert [one.exception() for one in asked] == [None] * len(asked)
    assert (await runner.info(job.id)).status is JobStatus.cancelled
    assert Counter(told) == {"queued": 1, "started": 3, "cancelled": 3}
    assert set(running) == {0, 1}


async def test_who_waits_for_the_loop_in_a_worker_thread(make: MakeRunner) -> None:
    """From there, the runner may be asked, and its answer waited for."""
    loop = asyncio.get_running_loop()
    found: list[JobStatus] = []

    def ask(event: JobEvent) -> None:
        if event.name == "progressed":
            question = asyncio.run_coroutine_threadsafe(runner.info(event.id), loop)
            found.append(question.result(10).status)

    runner = await make(on_event=ask)
    assert await results_of(runner, in_thread) == list(range(COUNT))
    assert found == [JobStatus.running] * 2 * COUNT


@pytest.mark.parametrize("is_hearer", [False, True])
async def test_who_fails_on_what_is_handed_over(
    make_runner: MakeRunner, tmp_path: Path, is_hearer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """E1: the job is handed over, once, and stays so; other jobs follow."""

    def fail(event: Any) -> None:
        if (event if isinstance(event, str) else event.name) == names.HANDED_OVER:
            raise RuntimeError("subscriber")

    engine = MemoryEngine(supports=("retries",))
    runner = await make_runner(
        engine=engine, journal=tmp_path / "jobs.db", on_event=Hearer(fail) if is_hearer else fail
    )
    jobs = [await runner.add_task(there, number) for number in range(COUNT)]
    await until(lambda: len(engine.sent) == COUNT)
    await until(lambda: len(_failures(caplog)) == COUNT)
    assert sorted(engine.arrivals) == sorted(job.id for job in jobs)
    assert all("on handed_over of job" in one for one in _failures(caplog))
    assert all([(await job.info()).handed_over_at is not None for job in jobs])


async def test_who_fails_on_what_is_recovered(
    make_runner: MakeRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """J3: a job that another process has left is run nevertheless."""
    journal = SQLiteJournal(tmp_path / "jobs.db")
    journal.open()
    job = new_job(there.name, time.time(), call=codec_of(there).encode((7,), {})[0], is_held=True)
    journal.commit(Batch(added=[job]))
    crash(journal)

    def fail(event: JobEvent) -> None:
        raise RuntimeError("subscriber")

    second = await make_runner(journal=tmp_path / "jobs.db", on_event=fail)
    assert await second.result(job.id, 30) == 7
    await until(lambda: any("on recovered of job" in one for one in _failures(caplog)))


def _failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {one.levelno for one in caplog.records if one.exc_info} <= {
        logging.ERROR,
        logging.WARNING,
    }
    return [one for one in caplog.messages if one.startswith("a subscriber of job events")]
