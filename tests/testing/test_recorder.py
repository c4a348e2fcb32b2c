"""Recording, running and asserting; M and R are those of the contract."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, JobStatus, Runner, add_task, current_job, task
from asgi_bg.exceptions import JobFailed, MiddlewareNotInstalled, NotSerializable
from asgi_bg.testing import RecordedJob, TaskRecorder, record_tasks
from tests.helpers import BODY, START, Connection, need, responding, until
from tests.process_tasks import report

seen: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@task(name="recorder:note")
async def note(word: str, times: int = 1) -> str:
    seen.append(word)
    return word * times


@task(name="recorder:sync")
def note_in_thread(word: str) -> None:
    seen.append((word, threading.current_thread() is threading.main_thread()))


@task(name="recorder:chain")
async def chain(left: int) -> None:
    seen.append(left)
    if left:
        add_task(chain, left - 1)


@task(name="recorder:flaky", retries=2, retry_delay=10.0)
async def flaky() -> int:
    seen.append(current_job().attempt)
    if current_job().attempt < 3:
        raise ValueError("not yet")
    return current_job().attempt


async def fail() -> None:
    raise ValueError("no such user")


def serving(*jobs: Any, status: int = 200, **options: Any) -> BackgroundTaskMiddleware:
    """Return an app that adds jobs, each a tuple of a task and its arguments."""

    def add() -> None:
        for func, *args in jobs:
            add_task(func, *args)

    return BackgroundTaskMiddleware(
        responding({**START, "status": status}, BODY, before=add), **options
    )


def get(app: Any) -> None:
    """Make a request, as clients do that have an event loop for each."""
    asyncio.run(Connection().call(app))


# Recording.


def test_jobs_are_recorded_and_not_run(background_tasks: TaskRecorder) -> None:
    get(serving((note, "a"), (note, "b", 2)))
    assert seen == []
    job = background_tasks.assert_added(note, "b", 2)
    assert isinstance(job, RecordedJob)
    assert (job.task, job.args, job.kwargs) == (note, ("b", 2), {})
    assert (job.status, job.attempt, job.error) == (JobStatus.queued, 0, None)
    assert [each.args for each in background_tasks.added()] == [("a",), ("b", 2)]
    with pytest.raises(LookupError, match="has no result, as it is queued"):
        job.result()


def test_a_response_ends_without_waiting_for_them(background_tasks: TaskRecorder) -> None:
    """R7: what is laid aside holds up neither its request nor the ones behind it."""
    app = serving((note, "a"), (fail,), (note, "b"))
    for _ in range(3):
        get(app)
    assert len(background_tasks.added()) == 9
    assert len(background_tasks.drain(raise_errors=False)) == 9
    assert seen == ["a", "b"] * 3


def test_arguments_are_those_that_were_given(background_tasks: TaskRecorder) -> None:
    """The same objects, though a journal would bring back others."""
    word = ["x"]
    with background_tasks.request() as tasks:
        tasks.add_task(note, word, times=2)  # type: ignore[arg-type]
    job = background_tasks.assert_added(note, word, times=2)
    assert job.args[0] is word
    with pytest.raises(AssertionError):
        background_tasks.assert_added(note, word, 2)


@pytest.mark.parametrize("wanted", [note, note.func, note.using(delay=3), "recorder:note"])
def test_a_task_is_known_by_any_of_its_names(background_tasks: TaskRecorder, wanted: Any) -> None:
    get(serving((note, "a")))
    background_tasks.assert_added(wanted, "a")
    background_tasks.assert_not_added(wanted, "b")
    background_tasks.assert_not_added(fail)
    assert len(background_tasks.added(wanted)) == 1


def test_functions_of_every_kind(background_tasks: TaskRecorder) -> None:
    """R1: plain ones, methods, lambdas, callable objects."""

    class Mailer:
        def send(self) -> None: ...

        def __call__(self) -> None: ...

    mailer, other = Mailer(), Mailer()
    nothing = lambda: None  # noqa: E731
    get(serving((mailer.send,), (mailer,), (nothing,), (fail,)))
    for each in (mailer.send, mailer, nothing, fail):
        background_tasks.assert_added(each)
    for each in (other.send, other, lambda: None):
        background_tasks.assert_not_added(each)


def test_what_assertions_say(background_tasks: TaskRecorder) -> None:
    with pytest.raises(AssertionError, match=r"no job of recorder:note was added; nothing was"):
        background_tasks.assert_added(note)
    background_tasks.assert_nothing_added()
    get(serving((note.using(delay=60, key="k"), "a"), (note, "b" * 1000)))
    with pytest.raises(AssertionError) as caught:
        background_tasks.assert_added(note, "c", times=1)
    text = str(caught.value)
    assert text.startswith("no job of recorder:note('c', times=1) was added; 2 job(s) were added:")
    assert "\n  recorder:note.using(delay=60, key='k')('a')" in text
    assert "bbb..." in text
    assert len(text) < 500
    with pytest.raises(AssertionError, match=r"a job of recorder:note\('a'\) was added"):
        background_tasks.assert_not_added(note, "a")
    with pytest.raises(AssertionError, match="no job was to be added"):
        background_tasks.assert_nothing_added()


def test_options_of_using_are_seen(background_tasks: TaskRecorder) -> None:
    get(serving((note.using(delay=60, key="k", priority=3, retries=7), "a")))
    options = background_tasks.assert_added(note).options
    assert (options.delay, options.key, options.priority, options.retries) == (60, "k", 3, 7)


def test_a_key_adds_one_job(background_tasks: TaskRecorder) -> None:
    """J6."""
    app = serving((note.using(key="k"), "a"), (note.using(key="k"), "b"))
    get(app)
    assert [job.args for job in background_tasks.added()] == [("a",)]
    background_tasks.drain()
    get(app)
    assert len(background_tasks.added()) == 1
    background_tasks.clear()
    get(app)
    assert len(background_tasks.added()) == 1, "it was forgotten, and its key with it"


def test_dropped_jobs_do_not_count(background_tasks: TaskRecorder) -> None:
    """M5."""
    get(serving((note.using(run_on="success"), "a"), (note, "b"), status=404))
    background_tasks.assert_added(note, "b")
    with pytest.raises(AssertionError, match="but dropped with its response"):
        background_tasks.assert_added(note, "a")
    background_tasks.drain()
    assert seen == ["b"]


def test_an_app_that_fails(background_tasks: TaskRecorder) -> None:
    """M5: its jobs are dropped, but for those that run always."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(note, "a")
        add_task(note.using(run_on="always"), "b")
        raise OverflowError

    with pytest.raises(OverflowError):
        get(BackgroundTaskMiddleware(app))
    assert [job.args for job in background_tasks.added()] == [("b",)]


def test_without_the_middleware(background_tasks: TaskRecorder) -> None:
    """M8: a recording does not hide that it is missing."""
    with pytest.raises(MiddlewareNotInstalled):
        get(responding(START, BODY, before=lambda: add_task(note, "a")))
    background_tasks.assert_nothing_added()


def test_arguments_are_checked_as_ever(background_tasks: TaskRecorder) -> None:
    with pytest.raises(TypeError, match="cannot be called with these arguments"):
        get(serving((note,)))


# Running on demand.


def test_drain_runs_what_waits_in_order(background_tasks: TaskRecorder) -> None:
    get(serving((note, "a"), (note_in_thread, "b"), (note, "c", 2)))
    ran = background_tasks.drain()
    assert seen == ["a", ("b", False), "c"]
    assert ran == background_tasks.added()
    assert ran[2].result() == "cc"
    assert ran[0].status is JobStatus.succeeded
    assert background_tasks.drain() == []


def test_drain_runs_what_jobs_add(background_tasks: TaskRecorder) -> None:
    """M8."""
    get(serving((chain, 3), (note, "b")))
    background_tasks.drain()
    assert seen == [3, "b", 2, 1, 0]
    background_tasks.assert_added(chain, 0)


def test_jobs_run_in_the_context_of_their_add_task(background_tasks: TaskRecorder) -> None:
    """R4."""
    user = contextvars.ContextVar("user", default="nobody")

    async def tell() -> None:
        seen.append(user.get())

    def add() -> None:
        user.set("ada")
        add_task(tell)

    get(BackgroundTaskMiddleware(responding(START, BODY, before=add)))
    background_tasks.drain()
    assert seen == ["ada"]


def test_drain_raises_what_a_job_failed_with_once(background_tasks: TaskRecorder) -> None:
    """R3: and the other jobs have run."""
    get(serving((fail,), (note, "b")))
    with pytest.raises(JobFailed, match="no such user") as caught:
        background_tasks.drain()
    assert isinstance(caught.value.__cause__, ValueError)
    assert seen == ["b"]
    job = background_tasks.added(fail)[0]
    assert job.status is JobStatus.failed
    assert isinstance(job.error, ValueError)
    background_tasks.drain()


def test_a_drain_that_takes_too_long(background_tasks: TaskRecorder) -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    get(serving((endless,), (note, "b")))
    with pytest.raises(TimeoutError, match=r"more than 0.05 seconds.*endless\(\)"):
        background_tasks.drain(timeout=0.05)
    background_tasks.drain()
    assert seen == ["b"]


def test_jobs_that_add_one_another_for_ever(background_tasks: TaskRecorder) -> None:
    async def again() -> None:
        add_task(again)

    get(serving((again,)))
    with pytest.raises(TimeoutError, match="do they add one another"):
        background_tasks.drain(timeout=0.1)


@pytest.mark.anyio
async def test_drain_is_awaited_in_async_tests(background_tasks: TaskRecorder) -> None:
    await Connection().call(serving((note, "a"), (note_in_thread, "b")))
    ran = await background_tasks.drain()
    assert [job.args for job in ran] == [("a",), ("b",)]
    assert seen == ["a", ("b", False)]


@pytest.mark.anyio
async def test_a_drain_that_is_not_awaited_fails_its_test() -> None:
    with pytest.raises(AssertionError, match="await background_tasks.drain()"):
        with record_tasks() as background_tasks:
            background_tasks.drain()


# The clock.


def test_what_is_put_off_waits_for_the_clock(background_tasks: TaskRecorder) -> None:
    late = datetime.now(timezone.utc) + timedelta(hours=2)
    get(serving((note.using(delay=3600), "a"), (note.using(run_at=late), "b"), (note, "c")))
    background_tasks.drain()
    background_tasks.clock.advance(3599)
    background_tasks.drain()
    assert seen == ["c"]
    background_tasks.clock.advance(1)
    background_tasks.drain()
    assert seen == ["c", "a"]
    background_tasks.clock.advance(3600)
    background_tasks.drain()
    assert seen == ["c", "a", "b"]


def test_retries_wait_for_the_clock(background_tasks: TaskRecorder) -> None:
    """The longest wait that may come, so that it is the same every time."""
    get(serving((flaky,)))
    [job] = background_tasks.drain()
    assert (job.status, job.attempt, seen) == (JobStatus.queued, 1, [1])
    assert isinstance(job.error, ValueError)
    background_tasks.clock.advance(9.9)
    assert background_tasks.drain() == []
    background_tasks.clock.advance(0.1)
    background_tasks.drain()
    assert seen == [1, 2]
    background_tasks.clock.advance(10)
    assert background_tasks.drain() == [], "it doubles"
    background_tasks.clock.advance(10)
    background_tasks.drain()
    assert (job.result(), seen) == (3, [1, 2, 3])
    assert job.error is None


def test_a_clock_does_not_go_back(background_tasks: TaskRecorder) -> None:
    for wrong in (-1, float("nan"), "1"):
        with pytest.raises((TypeError, ValueError), match="seconds"):
            background_tasks.clock.advance(wrong)  # type: ignore[arg-type]
    for _ in range(10):
        background_tasks.clock.advance(0.1)
    assert background_tasks.clock.has_come_to(1.0), "whatever floats make of it"


# At once.


def test_at_once_is_after_the_response(background_tasks: TaskRecorder) -> None:
    """M4."""
    log: list[Any] = []

    async def tell() -> None:
        await asyncio.sleep(0.01)
        log.append("job")

    app = BackgroundTaskMiddleware(responding(START, BODY, before=lambda: add_task(tell)))
    background_tasks.run_at_once()
    asyncio.run(Connection(log=log).call(app))
    assert log == ["http.response.start", "http.response.body", "job"]
    background_tasks.assert_added(tell)
    background_tasks.record()
    asyncio.run(Connection(log=log).call(app))
    assert log[3:] == ["http.response.start", "http.response.body"]


def test_at_once_with_retries_delays_and_failures(background_tasks: TaskRecorder) -> None:
    background_tasks.run_at_once()
    get(serving((flaky,), (note.using(delay=5), "a"), (chain, 1), (fail,)))
    assert seen == [1, 1, 0]
    background_tasks.clock.advance(100)
    with pytest.raises(JobFailed, match="no such user"):
        background_tasks.drain()
    background_tasks.clock.advance(100)
    background_tasks.drain()
    assert seen == [1, 1, 0, 2, "a", 3]


# Without a server, and without a request.


def test_code_outside_of_requests(background_tasks: TaskRecorder) -> None:
    def register(name: str) -> None:
        add_task(note, name)
        add_task(note.using(delay=5), "late")

    with background_tasks.request():
        register("ada")
    with pytest.raises(MiddlewareNotInstalled):
        register("eve")
    background_tasks.assert_added(note, "ada")
    background_tasks.drain()
    background_tasks.clock.advance(5)
    background_tasks.drain()
    assert seen == ["ada", "late"]

    with pytest.raises(OverflowError):
        with background_tasks.request():
            register("bob")
            raise OverflowError
    background_tasks.assert_not_added(note, "bob")

    background_tasks.run_at_once()
    with background_tasks.request():
        register("joe")
        assert seen == ["ada", "late"]
    assert seen == ["ada", "late", "joe"]


@pytest.mark.anyio
async def test_jobs_of_a_runner(background_tasks: TaskRecorder) -> None:
    """`Runner.add_task` is recorded too, and the job that it returns tells how it stands."""
    async with Runner() as runner:
        job = await runner.add_task(note, "a")
        assert (await job.info()).status is JobStatus.queued
        assert await runner.drain(1)
        background_tasks.assert_added(note, "a")
        await background_tasks.drain()
        assert await job.result(1) == "a"
        assert (await runner.info(job.id)).status is JobStatus.succeeded


# With a journal or an engine.


def test_a_journal_is_left_alone(background_tasks: TaskRecorder, tmp_path: Path) -> None:
    """Neither made, nor opened; but what it would not take is refused (J7)."""
    path = tmp_path / "jobs.db"
    app = serving((note, "a"), (note.using(key="k"), "b"), journal=path)
    get(app)
    background_tasks.drain()
    assert seen == ["a", "b"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotSerializable, match="word"):
        get(serving((note, object()), journal=path))
    assert app.runner.stats()["succeeded"] == 2
    assert list(tmp_path.iterdir()) == []


def test_jobs_left_in_a_journal_stay_there(tmp_path: Path) -> None:
    """A recording takes up none of them, whether the server starts or not."""
    path = tmp_path / "jobs.db"

    async def leave() -> str:
        async with Runner(journal=path) as runner:
            return (await runner.add_task(note.using(delay=0.3), "left")).id

    async def serve(app: Any, jobs: int) -> None:
        async with app.runner:
            await Connection().call(app)
            await asyncio.sleep(0.4)  # the one that is left is due by now
            await until(lambda: len(seen) >= jobs)

    asyncio.run(leave())
    app = serving((note, "a"), journal=path)
    with record_tasks() as background_tasks:
        asyncio.run(serve(app, 0))
        background_tasks.drain()
        assert seen == ["a"]
    asyncio.run(serve(app, 3))
    assert sorted(seen[1:]) == ["a", "left"], "afterwards, the runner has its journal again"


def test_what_an_engine_lacks_is_refused(background_tasks: TaskRecorder) -> None:
    """E5; and nothing is sent to it."""
    memory = need("tests.engines.memory")
    engine = memory.MemoryEngine(supports=("results",))
    get(serving((note, "a"), engine=engine))
    background_tasks.drain()
    assert seen == ["a"]
    from_engine = need("asgi_bg.exceptions").EngineError
    with pytest.raises(from_engine):
        get(serving((note.using(delay=5), "a"), engine=engine))


# Nothing leaks.


def test_there_is_one_recording_at_a_time(background_tasks: TaskRecorder) -> None:
    with pytest.raises(RuntimeError, match="recorded already"):
        with record_tasks():
            pass
    get(serving((note, "a")))
    background_tasks.assert_added(note)


def test_everything_is_as_it_was_afterwards() -> None:
    """The runner is that of an app that goes on from test to test."""
    app = serving((note.using(key="k"), "a"))
    for _ in range(2):
        with record_tasks() as background_tasks:
            get(app)
            background_tasks.assert_added(note, "a")
        assert app.runner.stats()["queued"] == 0
    assert seen == []
    get(app)
    assert seen == ["a"]


def test_a_server_that_goes_on_from_test_to_test() -> None:
    """As with a client of a whole session: it has started before the recording."""
    app = serving((note, "a"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    run(app.runner.start())
    try:
        for at_once in (False, True):
            with record_tasks() as background_tasks:
                if at_once:
                    background_tasks.run_at_once()
                run(Connection().call(app))
                assert seen == (["a"] if at_once else [])
                background_tasks.drain()
                assert seen == ["a"]
            seen.clear()
        run(Connection().call(app))
        assert run(app.runner.drain(10))
        assert seen == ["a"]
    finally:
        run(app.runner.aclose(1))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_jobs_for_processes(background_tasks: TaskRecorder) -> None:
    """R1: what cannot be sent there is refused when it is added."""
    get(serving((report,)))
    [job] = background_tasks.drain()
    assert job.result()["pid"] != os.getpid()
    local = task(executor="process")(lambda: None)
    with pytest.raises(NotSerializable):
        get(serving((local,)))


def test_a_job_that_is_tried_again_by_hand_is_laid_aside_again(
    background_tasks: TaskRecorder,
) -> None:
    async def use() -> None:
        async with Runner() as runner:
            job = await runner.add_task(fail)
            await background_tasks.drain(raise_errors=False)
            await runner.retry(job.id)
            assert (await job.info()).status is JobStatus.queued
            [ran] = await background_tasks.drain(raise_errors=False)
            assert (ran.status, ran.id) == (JobStatus.failed, job.id)

    asyncio.run(use())


def test_cancelling_a_job_that_is_laid_aside(background_tasks: TaskRecorder) -> None:
    async def use() -> None:
        async with Runner() as runner:
            job = await runner.add_task(note, "a")
            assert (await runner.cancel(job.id)).status is JobStatus.cancelled
            assert await background_tasks.drain() == []
            background_tasks.assert_added(note, "a")

    asyncio.run(use())
    assert seen == []


def test_timeouts_are_kept_in_a_drain(background_tasks: TaskRecorder) -> None:
    """R5."""

    async def endless() -> None:
        await asyncio.Event().wait()

    get(serving((task(timeout=0.05)(endless),)))
    with pytest.raises(JobFailed, match="took longer than 0.05 seconds"):
        background_tasks.drain()


def test_what_goes_on_for_ever_beside_a_request(background_tasks: TaskRecorder) -> None:
    """At once is when the request's own jobs have ended."""

    async def use() -> None:
        app = serving((note, "a"))
        async with app.runner:
            poller = await app.runner.add_task(asyncio.Event().wait)
            await asyncio.wait_for(Connection().call(app), 20)
            assert seen == ["a"]
            await app.runner.cancel(poller.id)

    background_tasks.run_at_once()
    asyncio.run(use())


def test_jobs_added_from_many_threads(background_tasks: TaskRecorder) -> None:
    """M8: none is lost, and each runs once."""
    with background_tasks.request() as tasks:
        threads = [
            threading.Thread(target=lambda: [tasks.add_task(note, "a") for _ in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(background_tasks.added(note)) == 200
    assert len(background_tasks.drain()) == 200
    assert len(seen) == 200


def test_jobs_of_two_runners(background_tasks: TaskRecorder) -> None:
    """Each runs with what belongs to its own; one is nested in the other (M7)."""
    told: list[tuple[str, str]] = []

    def teller(name: str) -> Any:
        return lambda event: told.append((name, event.name))

    inner = serving((note, "inner"), on_event=teller("inner"))

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        add_task(note, "outer")
        await inner(scope, receive, send)

    app = BackgroundTaskMiddleware(outer, on_event=teller("outer"))
    get(app)
    background_tasks.drain()
    assert sorted(seen) == ["inner", "outer"]
    for name in ("inner", "outer"):
        names = [event.rpartition(".")[2] for who, event in told if who == name]
        assert names == ["queued", "started", "succeeded"], told
    background_tasks.run_at_once()
    get(app)
    assert sorted(seen[2:]) == ["inner", "outer"]


def test_a_drain_leaves_the_current_event_loop_alone(background_tasks: TaskRecorder) -> None:
    """And what a job has started in its own does not outlive it."""

    async def start() -> None:
        seen.append(asyncio.create_task(asyncio.Event().wait()))

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with background_tasks.request():
            add_task(start)
        background_tasks.drain()
        assert asyncio.get_event_loop() is loop
        assert seen[0].cancelled()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_an_app_whose_event_loop_is_blocked(
    background_tasks: TaskRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(need("asgi_bg.testing._draining"), "MARGIN", 0.1)
    gate = threading.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(Connection().call(serving((note, "a"))), loop).result(10)
        loop.call_soon_threadsafe(gate.wait)
        with pytest.raises(TimeoutError, match="does not answer"):
            background_tasks.drain(timeout=0.1)
        gate.set()
        background_tasks.drain()
        assert seen == ["a"]
    finally:
        gate.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
