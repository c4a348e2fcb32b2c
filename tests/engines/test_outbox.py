"""The outbox: with a journal, an engine that is away delays jobs and loses none (E1, E2)."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobEvent, Runner, add_task, task
from asgi_bg._job import JobStatus
from asgi_bg.engines import Message, Report, _outbox
from asgi_bg.exceptions import EngineError, JobFailed
from asgi_bg.journal import SQLiteJournal
from tests.engines.memory import MemoryEngine
from tests.helpers import BODY, START, Connection, responding, until

pytestmark = pytest.mark.anyio

here: list[Any] = []


@task(name="outbox:double")
async def double(number: int) -> int:
    """A declared task, for the engine's workers."""
    here.append(number)
    return 2 * number


@task(durable=False)
async def note(what: Any) -> None:
    """A task for this process alone."""
    here.append(what)


@pytest.fixture(autouse=True)
def nothing_here() -> None:
    here.clear()


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine(supports=("results", "cancel"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "RETRY_DELAY", 0.02)
    monkeypatch.setattr(_outbox, "RETRY_MAX_DELAY", 0.05)


async def all_sent(engine: MemoryEngine, count: int) -> None:
    await until(lambda: len(engine.sent) == count)


async def test_declared_tasks_go_to_the_engine_and_others_stay(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """E1: in the order added, by the job's id (E2), and never run here."""
    runner: Runner = await make_runner(journal=path, engine=engine)
    jobs = [await runner.add_task(double, number) for number in range(5)]
    await runner.add_task(note, "here")
    assert await runner.drain(10)
    assert list(engine.sent) == [job.id for job in jobs]
    first = engine.sent[jobs[0].id]
    assert (first.task, first.call, first.native) == ("outbox:double", "[[0]]", None)
    assert here == ["here"]
    assert runner.stats()["handed_over"] == 5
    assert runner.stats()["queued"] == 0


async def test_handed_over_is_told(make_runner: Any, engine: MemoryEngine, path: Path) -> None:
    """By info, in lists, and as an event; it outlives the process that added the job."""
    heard: list[JobEvent] = []
    engine.supports = frozenset()
    runner: Runner = await make_runner(journal=path, engine=engine, on_event=heard.append)
    job = await runner.add_task(double, 1)
    assert await runner.drain(10)
    info = await job.info()
    assert info == await runner.info(job.id)
    assert info.status is JobStatus.queued
    assert info.message == "handed over"
    assert info.owner == "engine:memory"
    assert info.handed_over_at is not None
    assert info.finished_at is None
    assert [found.id for found in await runner.jobs(status="queued")] == [job.id]
    assert [event.name for event in heard] == ["queued", "handed_over"]
    assert heard[1].job.owner == "engine:memory"
    await runner.aclose()
    other: Runner = await make_runner(journal=path, engine=engine)
    assert (await other.info(job.id)).message == "handed over"
    assert len(engine.arrivals) == 1


async def test_results_come_from_the_engine(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """What the engine's result store tells is what the job's info and result are."""
    runner: Runner = await make_runner(journal=path, engine=engine)
    job = await runner.add_task(double, 1)
    failed = await runner.add_task(double, 2)
    await all_sent(engine, 2)
    with pytest.raises(TimeoutError):
        await job.result(0.1)
    engine.reports[job.id] = Report(status=JobStatus.running, attempt=1, started_at=1e9)
    info = await runner.info(job.id)
    assert (info.status, info.attempt) == (JobStatus.running, 1)
    assert info.started_at is not None
    engine.reports[job.id] = Report(status=JobStatus.succeeded, attempt=1, result=2)
    engine.reports[failed.id] = Report(status=JobStatus.failed, error="ValueError: no")
    assert await job.result(5) == 2
    assert await runner.result(job.id, 5) == 2
    with pytest.raises(JobFailed, match="ValueError: no"):
        await failed.result(5)
    engine.is_away = True
    assert (await runner.info(job.id)).message == "handed over"


async def test_result_without_a_store_is_refused(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """Nobody waits for what never comes."""
    engine.supports = frozenset()
    runner: Runner = await make_runner(journal=path, engine=engine)
    job = await runner.add_task(double, 1)
    with pytest.raises(EngineError, match="tells no results here; configure its result store"):
        await asyncio.wait_for(job.result(), 10)


@pytest.mark.parametrize("ends", ["is_away", "is_frozen"])
async def test_outage_delays_and_loses_nothing(
    make_runner: Any, engine: MemoryEngine, path: Path, ends: str
) -> None:
    """E1: responses go on meanwhile, and afterwards all are sent once, oldest first."""
    engine.timeout = 0.2
    runner: Runner = await make_runner(journal=path, engine=engine, max_jobs=10)
    setattr(engine, ends, True)
    app = BackgroundTaskMiddleware(
        responding(START, BODY, before=lambda: add_task(double, 1)), runner=runner
    )
    took: list[float] = []
    for _ in range(100):
        began = time.monotonic()
        await Connection().call(app)
        took.append(time.monotonic() - began)
    assert engine.sent == {}
    assert runner.stats()["queued"] == 100
    assert sorted(took)[90] < 0.2
    setattr(engine, ends, False)
    await all_sent(engine, 100)
    order = list(engine.sent)
    # Two may be sent before their turn, to see whether it is another one that breaks things.
    assert sum(one > next_one for one, next_one in itertools.pairwise(order)) <= 2
    assert len(engine.arrivals) == 100
    assert await runner.drain(10)
    assert runner.stats()["queued"] == 0


async def test_new_jobs_go_behind_those_that_wait(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """E1: catching up is oldest first, also while more come in."""
    runner: Runner = await make_runner(journal=path, engine=engine, max_jobs=5)
    engine.is_away = True
    jobs = [await runner.add_task(double, number) for number in range(60)]
    engine.is_away = False
    while len(engine.sent) < 60:
        jobs.append(await runner.add_task(double, 60))
    await all_sent(engine, len(jobs))
    assert list(engine.sent)[:60] == [job.id for job in jobs[:60]]


async def test_poison_is_failed_and_blocks_nobody(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """A message that breaks the connection is found out among those that do not."""
    engine.breaks = lambda message: message.call == "[[3]]"
    runner: Runner = await make_runner(journal=path, engine=engine)
    engine.is_away = True
    jobs = [await runner.add_task(double, number) for number in range(30)]
    engine.is_away = False
    await all_sent(engine, 29)
    await until(lambda: runner.stats()["failed"] == 1)
    info = await runner.info(jobs[3].id)
    assert info.status is JobStatus.failed
    assert "reset by a message" in (info.error or "")
    assert "(8 times, while others went through)" in (info.error or "")


async def test_two_kinds_of_poison_side_by_side(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """The other job that is tried may be of the same kind; a further one is tried then."""
    engine.breaks = lambda message: message.call in ("[[0]]", "[[1]]", "[[2]]")
    runner: Runner = await make_runner(journal=path, engine=engine)
    engine.is_away = True
    for number in range(100):
        await runner.add_task(double, number)
    engine.is_away = False
    await all_sent(engine, 97)
    await until(lambda: runner.stats()["failed"] == 3)


async def test_poison_holds_nobody_up_though_few_come(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """What comes one by one goes past it, and finds it out in the end."""
    engine.breaks = lambda message: message.call == "[[0]]"
    runner: Runner = await make_runner(journal=path, engine=engine)
    await runner.add_task(double, 0)
    for number in range(1, 17):
        assert runner.stats()["failed"] == 0
        await runner.add_task(double, number)
        await all_sent(engine, number)
    await until(lambda: runner.stats()["failed"] == 1)


class Waiting:
    """A job, as far as the outbox looks at it."""

    kept = None
    is_away = False
    finished_at: float | None = None


class Tally:
    """A desk that counts."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.sent: list[Any] = []
        self.failed: list[Any] = []

    def handed_over(self, records: Sequence[Any]) -> None:
        self.sent.extend(records)
        for record in records:
            record.finished_at = 1.0

    def refused(self, record: Any, reason: str) -> None:
        record.finished_at = 1.0
        self.failed.append(record)

    def send_away(self, record: Any) -> None:
        record.is_away = True

    def hold(self) -> None: ...

    def release(self) -> None: ...


class Flaky:
    """A link over which sends fail at random, and those of some jobs always."""

    def __init__(self, failing: float, poison: Sequence[Any]) -> None:
        self.engine = MemoryEngine()
        self._draw = random.Random(7).random
        self._failing = failing
        self._poison = set(poison)

    async def send(self, messages: Sequence[Any]) -> list[str | None]:
        if self._draw() < self._failing or not self._poison.isdisjoint(messages):
            raise EngineError("the connection is lost")
        return [None] * len(messages)


async def _simulate(
    monkeypatch: pytest.MonkeyPatch, failing: float, count: int, poisonous: int
) -> tuple[Tally, list[Any]]:
    """Send jobs without waiting anywhere; return what became of them, and those of poison."""
    for name in ("RETRY_DELAY", "RETRY_MAX_DELAY", "LINGER"):
        monkeypatch.setattr(_outbox, name, 0.0)
    monkeypatch.setattr(_outbox.logger, "disabled", True)
    random.seed(7)
    jobs: list[Any] = [Waiting() for _ in range(count)]
    poison = jobs[10 : 10 + poisonous]
    desk = Tally()
    link: Any = Flaky(failing, poison)
    outbox = _outbox.Outbox(link, desk, lambda record: record)  # type: ignore[arg-type, return-value]
    for job in jobs:
        outbox.add(job)
    await until(lambda: len(desk.sent) + len(desk.failed) == count)
    return desk, poison


@pytest.mark.parametrize("failing", [0.5, 0.75, 0.9])
async def test_sends_that_fail_at_random_cost_no_job(
    monkeypatch: pytest.MonkeyPatch, failing: float, anyio_backend: Any
) -> None:
    """E1: however often they fail, nothing is blamed on a job that is not to blame."""
    desk, _ = await _simulate(monkeypatch, failing, 5000, 0)
    assert desk.failed == []


@pytest.mark.parametrize(("failing", "poisonous"), [(0.0, 150), (0.5, 5)])
async def test_poison_is_found_in_crowds_and_in_trouble(
    monkeypatch: pytest.MonkeyPatch, failing: float, poisonous: int, anyio_backend: Any
) -> None:
    """Poison in a herd at the front, and while other sends fail as well."""
    desk, poison = await _simulate(monkeypatch, failing, 8000, poisonous)
    assert set(desk.failed) == set(poison)


async def test_other_that_goes_through_while_all_is_given_back(anyio_backend: Any) -> None:
    """A shutdown while it is tried whose fault it is."""
    desk = Tally()
    jobs: list[Any] = [Waiting() for _ in range(5)]
    link: Any = Flaky(0.0, jobs[:1])
    passes, link.send = link.send, None

    async def send(messages: Sequence[Any]) -> list[str | None]:
        if messages[0] is not jobs[0]:
            outbox.finish()
        answers: list[str | None] = await passes(messages)
        return answers

    link.send = send
    outbox = _outbox.Outbox(link, desk, lambda record: record)  # type: ignore[arg-type, return-value]
    for job in jobs:
        outbox.add(job)
    await until(lambda: outbox._forwarding is None)
    assert len(desk.sent) == 1
    assert all(job.is_away for job in jobs)
    assert desk.failed == []


async def test_refused_job_has_failed_and_can_be_retried(
    make_runner: Any, engine: MemoryEngine, path: Path, errors: Callable[[], list[str]]
) -> None:
    """The engine's reason is the job's error; those behind it go on."""
    engine.refuses = lambda message: "too large" if message.call == "[[1]]" else None
    runner: Runner = await make_runner(journal=path, engine=engine)
    jobs = [await runner.add_task(double, number) for number in range(3)]
    await all_sent(engine, 2)
    with pytest.raises(JobFailed, match="memory does not take the job: too large"):
        await jobs[1].result(5)
    assert any("too large" in line for line in errors())
    engine.refuses = lambda message: None
    await runner.retry(jobs[1].id)
    await all_sent(engine, 3)


async def test_shutdown_during_an_outage_is_quick(
    engine: MemoryEngine, path: Path, caplog: pytest.LogCaptureFixture, anyio_backend: Any
) -> None:
    """The jobs wait in the journal for the next process, and nothing waits for the broker."""
    engine.is_away = True
    runner = Runner(journal=path, engine=engine)
    await runner.start()
    job = await runner.add_task(double, 1)
    await until(lambda: "its jobs wait in the journal" in caplog.text)
    assert engine.opened == 0
    assert engine.batches == []
    began = time.monotonic()
    await runner.aclose()
    assert time.monotonic() - began < 5
    engine.is_away = False
    async with Runner(journal=path, engine=engine):
        await all_sent(engine, 1)
    assert list(engine.sent) == [job.id]


async def test_jobs_of_before_the_engine_go_to_it(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """A journal that has waiting jobs when the engine is added is forwarded."""
    without: Runner = await make_runner(journal=path)
    job = await without.add_task(double.using(delay=0.3), 1)
    await without.aclose()
    await make_runner(journal=path, engine=engine)
    await all_sent(engine, 1)
    assert list(engine.sent) == [job.id]
    assert here == []


async def test_two_runners_forward_each_job_once(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """Two owners of one journal, as two processes are."""
    engine.is_away = True
    runners = [
        await make_runner(journal=SQLiteJournal(path), engine=engine, max_jobs=5) for _ in range(2)
    ]
    for number in range(100):
        await runners[number % 2].add_task(double, number)
    engine.is_away = False
    await all_sent(engine, 100)
    await asyncio.gather(*(runner.drain(10) for runner in runners))
    assert len(engine.arrivals) == 100


async def test_native_objects_go_the_same_way(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """E4: through the outbox, also over a restart, and never looked up by name here."""
    engine.is_away = True
    runner: Runner = await make_runner(journal=path, engine=engine)
    job = await runner.add_task("theirs", 1, [2], key="value")
    assert job.task_name == "theirs"
    await runner.aclose()
    engine.is_away = False
    await make_runner(journal=path, engine=engine)
    await all_sent(engine, 1)
    message: Message = engine.sent[job.id]
    assert (message.task, message.native) == ("theirs", {"own": True})
    assert message.arguments == ([1, [2]], {"key": "value"})


async def test_native_arguments_must_be_plain(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """What would arrive as something else is refused."""
    runner: Runner = await make_runner(journal=path, engine=engine)
    with pytest.raises(TypeError, match="plain JSON|come back changed"):
        await runner.add_task("theirs", (1, 2))


@pytest.mark.parametrize(
    ("feature", "options"),
    [
        ("delay", {"delay": 5}),
        ("priority", {"priority": 1}),
        ("queue", {"queue": "q"}),
        ("retries", {"retries": 1}),
        ("timeout", {"timeout": 1}),
        ("concurrency", {"concurrency": 1}),
    ],
)
async def test_what_the_engine_lacks_is_refused_at_once(
    make_runner: Any, engine: MemoryEngine, path: Path, feature: Any, options: Any
) -> None:
    """E5: from add_task, and not before that; in-memory tasks are free to ask."""
    runner: Runner = await make_runner(journal=path, engine=engine)
    with pytest.raises(EngineError, match=f"asks for {next(iter(options))}="):
        await runner.add_task(double.using(**options), 1)
    engine.supports = frozenset({feature})
    await runner.add_task(double.using(**options), 1)
    await all_sent(engine, 1)


async def test_key_gives_the_job_that_is_there(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """J6, also once that was handed over."""
    runner: Runner = await make_runner(journal=path, engine=engine)
    first = await runner.add_task(double.using(key="k"), 1)
    await all_sent(engine, 1)
    assert await runner.drain(5)
    second = await runner.add_task(double.using(key="k"), 1)
    assert second.id == first.id
    assert (await second.info()).message == "handed over"


async def test_cancel(make_runner: Any, engine: MemoryEngine, path: Path) -> None:
    """Before it is handed over the job ends here, and after that at the engine."""
    engine.is_away = True
    runner: Runner = await make_runner(journal=path, engine=engine)
    waits = await runner.add_task(double, 1)
    assert (await runner.cancel(waits.id)).status is JobStatus.cancelled
    engine.is_away = False
    sent = await runner.add_task(double, 2)
    await all_sent(engine, 1)
    assert await runner.drain(5)
    assert (await runner.cancel(sent.id)).status is JobStatus.cancelled
    assert engine.cancelled == [sent.id]
    engine.supports = frozenset()
    other = await runner.add_task(double, 3)
    await all_sent(engine, 1)
    assert await runner.drain(5)
    with pytest.raises(EngineError, match="cannot cancel"):
        await runner.cancel(other.id)
    with pytest.raises(ValueError, match="retry it there"):
        await runner.retry(other.id)


async def test_dropped_job_is_never_sent(
    make_runner: Any, engine: MemoryEngine, path: Path
) -> None:
    """M5: a job goes to the engine only once its response has ended as its run_on asks."""
    runner: Runner = await make_runner(journal=path, engine=engine)
    failing = {"type": "http.response.start", "status": 500, "headers": []}

    def before() -> None:
        add_task(double.using(run_on="success"), 1)
        add_task(double, 2)

    app = BackgroundTaskMiddleware(responding(failing, BODY, before=before), runner=runner)
    await Connection().call(app)
    await all_sent(engine, 1)
    assert await runner.drain(5)
    assert [message.call for message in engine.sent.values()] == ["[[2]]"]


async def test_consume_runs_what_is_shared(make_runner: Any, path: Path) -> None:
    """The app's own process works the queue, under its runner, drained at shutdown."""
    engine = MemoryEngine(supports=("results",), consume=True)
    runner: Runner = await make_runner(journal=path, engine=engine)
    job = await runner.add_task(double, 21)
    assert await job.result(10) == 42
    assert here == [21]


async def test_without_lifespan_the_call_waits_for_the_engine(
    engine: MemoryEngine, path: Path, anyio_backend: Any
) -> None:
    """R7: the loop may end with the request; but an engine that is away holds up nobody."""
    runner = Runner(journal=path, engine=engine)
    app = BackgroundTaskMiddleware(
        responding(START, BODY, before=lambda: add_task(double, 1)), runner=runner
    )
    await Connection().call(app)
    assert len(engine.sent) == 1
    engine.is_away = True
    await asyncio.wait_for(Connection().call(app), 5)
    assert len(engine.sent) == 1
    engine.is_away = False
    await all_sent(engine, 2)
    await runner.aclose()


async def test_engine_must_be_one(path: Path) -> None:
    """A mistake is told at once."""
    with pytest.raises(TypeError, match="engine must be an asgi_bg"):
        Runner(engine="arq")  # type: ignore[arg-type]
