"""An engine without a journal: its acknowledgement is what the response waits for (E1)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobEvent, JobStatus, Runner, add_task, task
from asgi_bg._ids import new_id
from asgi_bg.engines import Again, Report
from asgi_bg.engines.worker import Worker
from asgi_bg.exceptions import EngineError, JobFailed, JobNotFound, ResponseEnded
from tests.engines.memory import MemoryEngine
from tests.helpers import BODY, MORE, START, Connection, responding, until

pytestmark = pytest.mark.anyio

here: list[Any] = []


@task(name="direct:double")
async def double(number: int) -> int:
    """A declared task, for the engine's workers."""
    here.append(number)
    return 2 * number


@task(name="direct:parent")
def parent(number: int) -> None:
    """A task that adds another one."""
    add_task(double, number)


@task(name="direct:flaky", retries=2, retry_delay=0.5)
def flaky(number: int) -> int:
    """A task that fails."""
    raise ValueError(number)


@pytest.fixture(autouse=True)
def nothing_here() -> None:
    here.clear()


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine(supports=("results", "cancel", "retries"), timeout=0.5)


def adding(*numbers: int, **options: Any) -> Any:
    """An app that adds a job for each number, and then responds."""

    def before() -> None:
        for number in numbers:
            add_task(double.using(**options), number)

    return responding(START, MORE, BODY, before=before)


async def test_acknowledgement_comes_before_any_byte(
    make_runner: Any, engine: MemoryEngine
) -> None:
    """E1: no message of the response goes on before the engine has the job."""
    runner: Runner = await make_runner(engine=engine)
    connection = Connection()
    send = connection.send

    async def sending(message: Any) -> None:
        connection.log.append(len(engine.sent))
        await send(message)

    connection.send = sending  # type: ignore[method-assign]
    await connection.call(BackgroundTaskMiddleware(adding(1, 2), runner=runner))
    assert connection.log[:2] == [2, "http.response.start"]
    assert here == []


async def test_concurrent_requests_share_a_pipeline(make_runner: Any, engine: MemoryEngine) -> None:
    """A hundred requests at once take a few sends."""
    runner: Runner = await make_runner(engine=engine)
    app = BackgroundTaskMiddleware(adding(1), runner=runner)
    await asyncio.gather(*(Connection().call(app) for _ in range(100)))
    assert len(engine.sent) == 100
    assert len(engine.batches) < 20


@pytest.mark.parametrize("ends", ["is_away", "is_frozen"])
async def test_engine_that_is_away_fails_the_response_in_time(
    make_runner: Any, engine: MemoryEngine, ends: str
) -> None:
    """E1: within the limit, with an error that says which engine, and nothing is promised."""
    setattr(engine, ends, True)
    heard: list[JobEvent] = []
    runner: Runner = await make_runner(engine=engine, on_event=heard.append)
    app = BackgroundTaskMiddleware(adding(1), runner=runner)
    began = time.monotonic()
    connection = Connection()
    with pytest.raises(EngineError, match="the engine memory did not acknowledge 1 job"):
        await connection.call(app)
    assert time.monotonic() - began < 3
    assert connection.sent == []
    assert [event.name for event in heard] == ["queued", "dropped"]
    setattr(engine, ends, False)
    await Connection().call(app)
    assert len(engine.sent) == 1


async def test_many_requests_fail_in_time_together(make_runner: Any, engine: MemoryEngine) -> None:
    """Those that come while another send hangs do not wait for two limits and more."""
    engine.is_frozen = True
    engine.timeout = 2.0
    runner: Runner = await make_runner(engine=engine)
    app = BackgroundTaskMiddleware(adding(1), runner=runner)
    took: list[float] = []

    async def request(after: float) -> None:
        await asyncio.sleep(after)
        began = time.monotonic()
        with pytest.raises(EngineError):
            await Connection().call(app)
        took.append(time.monotonic() - began)

    await asyncio.gather(*(request(0.1 * number) for number in range(20)))
    assert max(took) < 2 * engine.timeout


async def test_refused_job_fails_its_own_response_only(
    make_runner: Any, engine: MemoryEngine
) -> None:
    """The jobs of other requests in the same pipeline are acknowledged, and sent once."""
    engine.refuses = lambda message: "too large" if message.call == "[[7]]" else None
    runner: Runner = await make_runner(engine=engine)
    apps = [BackgroundTaskMiddleware(adding(number), runner=runner) for number in range(10)]
    results = await asyncio.gather(
        *(Connection().call(app) for app in apps), return_exceptions=True
    )
    failed = [number for number, result in enumerate(results) if result is not None]
    assert failed == [7]
    assert isinstance(results[7], EngineError)
    assert "too large" in str(results[7])
    assert len(engine.sent) == 9
    assert sorted(engine.arrivals) == sorted(set(engine.arrivals))


async def test_job_dropped_before_it_is_sent(make_runner: Any, engine: MemoryEngine) -> None:
    """M5: the status is known with the first message, and decides before anything is sent."""
    runner: Runner = await make_runner(engine=engine)
    failing = {"type": "http.response.start", "status": 404, "headers": []}

    def before() -> None:
        add_task(double.using(run_on="success"), 1)
        add_task(double, 2)

    app = BackgroundTaskMiddleware(responding(failing, BODY, before=before), runner=runner)
    await Connection().call(app)
    assert [message.call for message in engine.sent.values()] == ["[[2]]"]


async def test_job_dropped_later_is_cancelled_there(
    make_runner: Any, engine: MemoryEngine, warnings_logged: Callable[[], list[str]]
) -> None:
    """M5: an app that fails in the middle of its response; as far as the engine can."""
    runner: Runner = await make_runner(engine=engine)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(double, 1)
        await send(START)
        raise OverflowError

    wrapped = BackgroundTaskMiddleware(app, runner=runner)
    with pytest.raises(OverflowError):
        await Connection().call(wrapped)
    await until(lambda: engine.cancelled)
    assert engine.sent == {}
    engine.supports = frozenset()
    with pytest.raises(OverflowError):
        await Connection().call(wrapped)
    await until(lambda: any("may run it" in line for line in warnings_logged()))


async def test_info_and_result(make_runner: Any, engine: MemoryEngine) -> None:
    """What is known: that it was handed over, and what the engine tells."""
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(double, 4)
    assert (await runner.info(job.id)).message == "handed over"
    assert (await job.info()).task == "direct:double"
    assert [info.id for info in await runner.jobs()] == [job.id]
    engine.reports[job.id] = Report(status=JobStatus.succeeded, attempt=1, result=8)
    assert await job.result(5) == 8
    with pytest.raises(JobNotFound):
        await runner.info("0" * 32)
    assert (await runner.cancel(job.id)).status is JobStatus.succeeded


async def test_cancel_at_the_engine(make_runner: Any, engine: MemoryEngine) -> None:
    """Where the engine supports that."""
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(double, 4)
    assert (await runner.cancel(job.id)).status is JobStatus.cancelled
    assert engine.cancelled == [job.id]


async def test_key_needs_a_journal(make_runner: Any, engine: MemoryEngine) -> None:
    """Nobody else could tell whether the key is taken."""
    runner: Runner = await make_runner(engine=engine)
    with pytest.raises(EngineError, match="key=, which needs a journal"):
        await runner.add_task(double.using(key="k"), 1)


async def test_engine_error_from_add_task_outside_requests(
    make_runner: Any, engine: MemoryEngine
) -> None:
    """As in a response."""
    engine.is_away = True
    runner: Runner = await make_runner(engine=engine)
    with pytest.raises(EngineError):
        await runner.add_task(double, 1)


async def test_consume(make_runner: Any) -> None:
    """Any process may run any job, and tries again what its task wants tried again."""
    engine = MemoryEngine(supports=("results", "retries"), consume=True)
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(double, 4)
    failing = await runner.add_task(flaky.using(retry_delay=0.0), 4)
    assert await job.result(10) == 8
    with pytest.raises(JobFailed, match="ValueError"):
        await failing.result(10)
    assert engine.reports[failing.id].attempt == 3


async def test_queue_that_breaks_is_worked_again(
    make_runner: Any, warnings_logged: Callable[[], list[str]]
) -> None:
    """A worker that raises is started anew after a while."""

    class Breaking(MemoryEngine):
        tries = 0

        async def work(self, *args: Any) -> None:
            self.tries += 1
            if self.tries == 1:
                raise ConnectionError("gone")
            await super().work(*args)

    engine = Breaking(supports=("results",), consume=True)
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(double, 4)
    assert await job.result(10) == 8
    assert any("working the queue of memory was broken off" in w for w in warnings_logged())


class TestWorker:
    """The worker's side, in a process that is not the app's."""

    async def test_it_runs_a_job(self, engine: MemoryEngine, anyio_backend: Any) -> None:
        worker = Worker(engine)
        envelope = {"id": "1" * 32, "call": "[[4]]", "options": None}
        assert await worker.perform("direct:double", envelope, 1) == 8
        await worker.aclose()

    async def test_what_it_adds_goes_to_the_engine_before_it_is_done(
        self, engine: MemoryEngine, anyio_backend: Any
    ) -> None:
        """M8, J3: a worker that is killed right after loses nothing."""
        worker = Worker(engine)
        envelope = {"id": "1" * 32, "call": "[[4]]", "options": None}
        await worker.perform("direct:parent", envelope, 1)
        assert [message.call for message in engine.sent.values()] == ["[[4]]"]
        assert here == []
        await worker.aclose()

    async def test_failures_are_told_apart(self, engine: MemoryEngine, anyio_backend: Any) -> None:
        """Again, with the task's own delay, as long as it has retries; then its error."""
        worker = Worker(engine)
        envelope = {"id": "1" * 32, "call": "[[4]]", "options": '{"retry_delay":0.25}'}
        with pytest.raises(Again) as again:
            await worker.perform("direct:flaky", envelope, 1)
        assert 0 <= again.value.delay <= 0.25
        with pytest.raises(Again):
            await worker.perform("direct:flaky", envelope, 2)
        with pytest.raises(ValueError, match="4"):
            await worker.perform("direct:flaky", envelope, 3)
        with pytest.raises(LookupError, match="is declared in this worker"):
            await worker.perform("direct:unknown", envelope, 1)
        await worker.aclose()

    async def test_subscribers_hear_of_it(self, engine: MemoryEngine, anyio_backend: Any) -> None:
        """R9: once each, of what is run and of what that adds."""
        heard: list[tuple[str, str]] = []

        def hear(event: JobEvent) -> None:
            heard.append((event.name, event.task))

        worker = Worker(engine)
        worker.subscribe(hear)
        worker.subscribe([hear])
        with pytest.raises(TypeError, match="plain functions of one event"):
            worker.subscribe(asyncio.sleep)
        envelope = {"id": "1" * 32, "call": "[[4]]", "options": None}
        await worker.perform("direct:parent", envelope, 1)
        with pytest.raises(Again):
            await worker.perform("direct:flaky", {**envelope, "id": "2" * 32}, 1)
        await worker.aclose()
        assert sorted(heard) == sorted(
            [
                ("started", "direct:parent"),
                ("queued", "direct:double"),
                ("handed_over", "direct:double"),
                ("succeeded", "direct:parent"),
                ("started", "direct:flaky"),
                ("retrying", "direct:flaky"),
            ]
        )

    async def test_cancelled_by_the_engine(self, engine: MemoryEngine, anyio_backend: Any) -> None:
        """The engine's own time limit cancels the call, and so the task."""
        ended: list[str] = []

        @task(name="direct:endless")
        async def endless() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        worker = Worker(engine)
        envelope = {"id": "1" * 32, "call": "[[]]", "options": None}
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(worker.perform("direct:endless", envelope, 1), 0.2)
        await until(lambda: ended)
        await worker.aclose()


def test_calls_from_another_loop_find_the_way(engine: MemoryEngine) -> None:
    """Test clients run a request in a loop of its own; each opens the engine for itself."""
    runner = Runner(engine=engine)
    app = BackgroundTaskMiddleware(adding(1), runner=runner)
    for _ in range(2):
        asyncio.run(Connection().call(app))
    thread = threading.Thread(target=lambda: asyncio.run(Connection().call(app)))
    thread.start()
    thread.join()
    assert len(engine.sent) == 3
    asyncio.run(runner.aclose())


async def test_sealed_collectors_refuse(make_runner: Any, engine: MemoryEngine) -> None:
    """M8 holds with an engine, too."""
    runner: Runner = await make_runner(engine=engine)
    connection = Connection()
    await connection.call(BackgroundTaskMiddleware(adding(1), runner=runner))
    await runner.drain(5)
    with pytest.raises(ResponseEnded):
        connection.scope["asgi_bg"].add_task(double, 1)


async def test_a_job_that_another_machine_has_added(make_runner: Any, engine: MemoryEngine) -> None:
    """Whoever has the engine's result store can be asked, with or without that job's journal."""
    job_id = new_id(1e9)
    runner: Runner = await make_runner(engine=engine)
    with pytest.raises(JobNotFound):
        await runner.info(job_id)
    engine.reports[job_id] = Report(
        status=JobStatus.succeeded, task="direct:double", attempt=1, result=8
    )
    info = await runner.info(job_id)
    assert (info.task, info.status, info.result) == ("direct:double", JobStatus.succeeded, 8)
    assert info.queued_at.timestamp() == 1e9
    assert await runner.result(job_id, 5) == 8
    engine.is_away = True
    with pytest.raises(EngineError):
        await runner.info(job_id)


async def test_shutdown_returns_what_runs_to_the_engine(
    engine: MemoryEngine, anyio_backend: Any
) -> None:
    """What is not done in time is no failure: the engine's worker sees it cancelled."""

    @task(name="direct:long")
    async def long() -> None:
        here.append("begun")
        await asyncio.sleep(3600)

    runner = Runner(engine=engine)
    await runner.start()
    envelope = {"id": new_id(1e9), "call": "[[]]", "options": None}
    performing = asyncio.ensure_future(runner.perform("direct:long", envelope, 1))
    await until(lambda: here)
    await runner.aclose(0.1)
    with pytest.raises(asyncio.CancelledError):
        await performing


async def test_jobs_that_no_response_waits_for_are_named_when_lost(
    engine: MemoryEngine, anyio_backend: Any, errors: Callable[[], list[str]]
) -> None:
    """A job adds another one while the engine is away, and the process ends."""
    runner = Runner(engine=engine)

    async def adds() -> None:
        engine.is_away = True
        add_task(double, 1)

    await runner.start()
    job = await runner.add_task(adds)
    await job.result(5)
    await runner.aclose()
    assert any("direct:double is lost: no engine has it" in line for line in errors())


async def test_every_job_of_a_request_is_told_of_as_handed_over(engine: MemoryEngine) -> None:
    """R9: not the first one alone, though jobs of a request go in order."""
    told: list[str] = []

    def note(event: JobEvent) -> None:
        told.append(event.name)

    async with Runner(engine=engine, on_event=note) as runner:
        app = BackgroundTaskMiddleware(adding(1, 2, 3), runner=runner)
        await Connection().call(app)
        await until(lambda: len(engine.sent) == 3)
        assert await runner.drain(20)
        assert runner.stats()["handed_over"] == 3
    assert told.count("handed_over") == 3
