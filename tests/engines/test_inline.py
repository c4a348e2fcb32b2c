"""Jobs that run in the very thread of a worker: what is called, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from asgi_bg import _telemetry as telemetry
from asgi_bg import add_task, current_job, task
from asgi_bg._ids import new_id
from asgi_bg._logs import keep_logs
from asgi_bg._origin import Origin
from asgi_bg.engines import Again
from asgi_bg.engines import _inline as module
from asgi_bg.engines._inline import Inline
from asgi_bg.engines._subscribers import Subscribers
from asgi_bg.events import JobEvent
from asgi_bg.exceptions import JobNotFound
from asgi_bg.journal.codec import UndecodableCall

seen: list[Any] = []
variable: ContextVar[int] = ContextVar("variable", default=0)


class Overtime(Exception):
    """What a worker raises into a call."""


class Over(BaseException):
    """What ends a worker."""


class Queue:
    """Takes what tasks add."""

    def __init__(self) -> None:
        self.added: list[Any] = []
        self.sources: list[Any] = []
        self.task_of: Callable[[Any], Any] = lambda func: func

    def admit(self, task: Any, args: Any, kwargs: Any, source: Any) -> Any:
        self.added.append((task.name, args, kwargs))
        self.sources.append(source)
        return object(), None

    def withdraw(self, record: Any, reason: str) -> None:
        raise AssertionError


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    seen.clear()
    yield
    module._here.own = None  # closes the loop of this thread


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def inline(queue: Queue) -> Inline:
    return Inline(queue, (Overtime,), lambda exc: isinstance(exc, Over))


def perform(
    inline: Inline,
    name: str,
    call: str = "[[]]",
    *,
    attempt: int = 1,
    options: str | None = None,
    **more: str,
) -> Any:
    envelope = {"id": "0" * 32, "call": call, "options": options, **more}
    return inline.perform(name, envelope, attempt, lambda *told: seen.append(told))


@task(name="inline:plain")
def plain(number: int) -> tuple[int, str]:
    job = current_job()
    job.progress(0.5, "half")
    logging.getLogger("inline").warning("kept by nobody")
    assert not job.cancelled
    seen.append(threading.get_ident())
    variable.set(1)
    add_task(wordy, number)
    return number, f"{job.id[:1]} {job.task_name} {job.attempt}"


@task(name="inline:wordy")
async def wordy(number: int) -> Any:
    await asyncio.sleep(0)
    seen.append(asyncio.get_running_loop())
    return {number}


@task(name="inline:unserializable")
def unserializable() -> Any:
    return object()


@task(name="inline:late")
def late() -> Any:
    """A plain function that returns what is to be awaited."""
    return wordy.func(1)


@task(
    name="inline:raises", retries=1, retry_delay=5, retry_on=(ValueError, SystemExit, TimeoutError)
)
def raises(kind: str) -> None:
    if kind == "exit":
        sys.exit(3)
    raise {"value": ValueError, "key": KeyError, "over": Over, "time": Overtime}[kind](kind)


@task(name="inline:slow", timeout=0.05)
async def slow(is_stubborn: bool = False) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        seen.append("cleaned up")
        if is_stubborn:
            await asyncio.sleep(60)


@task(name="inline:untimed")
async def untimed() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        seen.append("cleaned up")


@task(name="inline:exits-async", timeout=5)
async def exits_async() -> None:
    sys.exit(3)


def test_plain_function_is_called_here(inline: Inline, queue: Queue) -> None:
    """In this thread, with a current job and a collector, in a context of its own."""
    keep_logs()
    assert perform(inline, "inline:plain", "[[7]]", attempt=2) == [7, "0 inline:plain 2"]
    assert seen == [(0.5, "half"), threading.get_ident()]
    assert queue.added == [("inline:wordy", (7,), {})]
    assert variable.get() == 0
    with pytest.raises(JobNotFound):
        current_job()


def test_outer_context_is_seen(inline: Inline) -> None:
    """Such as the span of a worker's tracing."""
    name = "inline:context"
    task(name=name)(functools.partial(variable.get))
    token = variable.set(5)
    try:
        assert perform(inline, name) == 5
    finally:
        variable.reset(token)


def test_async_functions_share_the_loop_of_their_thread(inline: Inline) -> None:
    """So what they keep there, as connections, goes on working; each thread has its own."""
    assert perform(inline, "inline:wordy", "[[7]]") == [7]
    assert perform(inline, "inline:late") == [1]
    first, second = seen
    assert first is second
    other = threading.Thread(target=perform, args=(inline, "inline:wordy", "[[1]]"))
    other.start()
    other.join()
    assert seen[2] is not first
    gc.collect()
    assert seen[2].is_closed()  # with its thread
    assert not first.is_closed()


def test_forked_process_makes_its_own_loop(inline: Inline) -> None:
    """The one that it inherited shares a selector with its parent's, and is left alone."""
    perform(inline, "inline:wordy", "[[1]]")
    own = module._here.own
    assert own is not None
    own.process = 0
    perform(inline, "inline:wordy", "[[1]]")
    assert seen[0] is not seen[1]
    assert not seen[0].is_closed()
    module._inherited.clear()


def test_result_that_cannot_be_written_is_no_failure(inline: Inline) -> None:
    """The work is done, and must not be done again for this."""
    assert perform(inline, "inline:unserializable") is None


@pytest.mark.parametrize("kind", ["value", "exit", "time"])
def test_failure_is_tried_again_and_then_final(inline: Inline, kind: str) -> None:
    """By the task's own options, and those of the call."""
    expected = {
        "value": (ValueError, "value"),
        "exit": (RuntimeError, "SystemExit: 3"),  # an exception that worker and store can take
        "time": (TimeoutError, "task inline:raises took longer than None seconds"),
    }[kind]
    with pytest.raises(Again) as found:
        perform(inline, "inline:raises", f'[["{kind}"]]')
    assert 0 <= found.value.delay <= 5
    assert isinstance(found.value.error, expected[0])
    with pytest.raises(expected[0], match=expected[1]) as final:
        perform(inline, "inline:raises", f'[["{kind}"]]', attempt=2)
    if kind == "value":
        assert final.value.__context__ is None
    with pytest.raises(Again):
        perform(inline, "inline:raises", f'[["{kind}"]]', attempt=2, options='{"retries":2}')


def test_other_failure_is_final(inline: Inline) -> None:
    """As retry_on says."""
    with pytest.raises(KeyError):
        perform(inline, "inline:raises", '[["key"]]')


def test_what_ends_the_worker_passes(inline: Inline, queue: Queue) -> None:
    """It is not the task's."""
    with pytest.raises(Over):
        perform(inline, "inline:raises", '[["over"]]')
    with pytest.raises(Again):
        perform(Inline(queue), "inline:raises", '[["exit"]]')
    name = "inline:interrupted"

    @task(name=name)
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(Inline(queue), name)


def test_what_does_not_fit_any_more(inline: Inline) -> None:
    """J8: the reason is the job's error."""
    with pytest.raises(LookupError, match="no task 'inline:gone' is declared in this worker"):
        perform(inline, "inline:gone")
    with pytest.raises(UndecodableCall):
        perform(inline, "inline:plain", '[["x"]]')
    with pytest.raises(ValueError, match="unknown option"):
        perform(inline, "inline:plain", "[[1]]", options='{"nonsense":1}')


def test_async_timeout(inline: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is cancelled, and not waited for without end."""
    with pytest.raises(TimeoutError, match=r"inline:slow took longer than 0\.05 seconds"):
        perform(inline, "inline:slow")
    assert seen == ["cleaned up"]
    monkeypatch.setattr(module, "CANCEL_GRACE", 0.05)
    with pytest.raises(TimeoutError):
        perform(inline, "inline:slow", "[[true]]")
    assert module._here.own is not None
    left = asyncio.all_tasks(module._here.own.loop)
    for call in left:
        call.cancel()
    module.run_here(asyncio.wait(left))


@pytest.mark.parametrize("name", ["inline:untimed", "inline:slow"])
def test_signal_ends_an_async_call(inline: Inline, name: str) -> None:
    """What the worker's signal raises within the event loop; the coroutine is cancelled."""

    def ring(*_: Any) -> None:
        raise Overtime

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="took longer"):
            perform(inline, name)
        assert time.monotonic() - began < 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert seen == ["cleaned up"]


def test_exit_of_an_async_task_is_its_failure(
    inline: Inline, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio lets it through at once, and would speak of an exception that nobody saw."""
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        perform(inline, "inline:exits-async")
    gc.collect()
    assert not caplog.records


class Heard:
    """Subscribers of both kinds, and what they have heard."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.measured: list[Any] = []

    def hear(self, name: str, record: Any) -> None:
        had = telemetry.had_attempt(record)
        wait = telemetry.wait_of(name, record) if had else None
        error = telemetry.error_type_of(name, record) if name in telemetry.ENDS else None
        self.measured.append((name, record.attempt, had, wait is not None, error))

    def __call__(self, event: JobEvent) -> None:
        raise AssertionError

    def of(self, inline: Inline, *args: Any, **more: Any) -> list[str]:
        """Run an attempt, whatever becomes of it; return the names of what was told."""
        self.events.clear()
        self.measured.clear()
        try:
            perform(inline, *args, **more)
        except Exception as exc:
            seen.append(exc)
        assert [name for name, *_ in self.measured] == [event.name for event in self.events]
        return [event.name for event in self.events]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watched(queue: Queue, heard: Heard) -> Inline:
    subscribers = Subscribers()
    inline = Inline(queue, (Overtime,), lambda exc: isinstance(exc, Over), subscribers)
    subscribers.add([heard, heard.events.append])
    subscribers.add(heard)  # hears once nevertheless
    return inline


def test_events_of_a_job_that_succeeds(watched: Inline, heard: Heard) -> None:
    """R9: with what a runner would say of it."""
    made = new_id(time.time() - 60)
    names = heard.of(watched, "inline:plain", "[[7]]", id=made)
    assert names == ["started", "progressed", "succeeded"]
    assert {(event.id, event.task) for event in heard.events} == {(made, "inline:plain")}
    began, half, end = (event.job for event in heard.events)
    assert (began.status, began.attempt, began.max_attempts) == ("running", 1, 1)
    assert 59 < (began.started_at - began.queued_at).total_seconds() < 70  # type: ignore[operator]
    assert (half.progress, half.message) == (0.5, "half")
    assert (end.status, end.error, end.owner) == ("succeeded", None, f"pid:{os.getpid()}")
    assert end.result[0] == 7
    assert end.finished_at is not None
    assert heard.measured[-1] == ("succeeded", 1, True, True, None)


@pytest.mark.parametrize(
    ("kind", "attempt", "end", "error"),
    [
        ("value", 1, "retrying", "ValueError: value"),
        ("value", 2, "failed", "ValueError: value"),
        ("key", 1, "failed", "KeyError: 'key'"),
        ("exit", 1, "retrying", "SystemExit: 3"),
        ("time", 2, "failed", "TimeoutError: task inline:raises took longer than None seconds"),
    ],
)
def test_events_of_a_job_that_fails(
    watched: Inline, heard: Heard, kind: str, attempt: int, end: str, error: str
) -> None:
    """R9: each attempt has one end; the wait is that of the first."""
    names = heard.of(watched, "inline:raises", f'[["{kind}"]]', attempt=attempt)
    assert names == ["started", end]
    job = heard.events[-1].job
    assert (job.status, job.error) == ("queued" if end == "retrying" else "failed", error)
    assert error in (job.traceback or "")
    assert (job.run_after is not None) == (end == "retrying")
    kind_of_error = error.partition(":")[0]
    assert heard.measured[-1] == (end, attempt, True, attempt == 1, kind_of_error)
    assert isinstance(seen[-1], Again) == (end == "retrying")


def test_attempt_that_ends_its_worker_has_no_end(watched: Inline, heard: Heard) -> None:
    """The job is run again by another worker, and has not failed."""
    with pytest.raises(Over):
        heard.of(watched, "inline:raises", '[["over"]]')
    assert [event.name for event in heard.events] == ["started"]


def test_subscriber_that_fails_harms_no_job(
    queue: Queue, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """R9: it is logged, and the others still hear."""

    def broken(event: JobEvent) -> None:
        raise SystemExit(event.name)

    subscribers = Subscribers()
    subscribers.add((broken, heard.events.append))
    assert perform(Inline(queue, subscribers=subscribers), "inline:wordy", "[[7]]") == [7]
    assert [event.name for event in heard.events] == ["started", "succeeded"]
    logged = [record.getMessage() for record in caplog.records]
    assert len([text for text in logged if "a subscriber of job events failed" in text]) == 2


def test_subscriber_is_called_in_the_context_of_the_attempt(queue: Queue) -> None:
    """So that it can make a span the current one; an async task's, too."""
    name = "inline:inside"

    @task(name=name)
    async def inside() -> int:
        return variable.get()

    subscribers = Subscribers()
    subscribers.add(lambda event: variable.set(9) if event.name == "started" else None)
    assert perform(Inline(queue, subscribers=subscribers), name) == 9
    assert variable.get() == 0


@pytest.mark.parametrize("handler", [None, 7, [print, 7], asyncio.sleep])
def test_subscribers_are_checked(handler: Any) -> None:
    """When they are given, and not in the worker's first job."""
    with pytest.raises(TypeError):
        Subscribers().add(handler)


def test_what_a_task_adds_goes_on_with_the_trace(inline: Inline, queue: Queue) -> None:
    """W4: with the one that the envelope brings, where nobody makes spans."""
    perform(inline, "inline:plain", "[[7]]", trace="00-1-2-01")
    perform(inline, "inline:plain", "[[7]]")
    assert queue.sources == [Origin(trace="00-1-2-01"), None]


def test_failed_job_is_let_go_of_at_once(inline: Inline) -> None:
    """With its arguments: nothing that is left of it holds itself."""
    found: list[weakref.ref[Any]] = []
    name = "inline:holding"

    class Heavy:
        """An argument of a job may be large."""

    @task(name=name)
    def holding() -> None:
        heavy = Heavy()
        found.append(weakref.ref(heavy))
        raise ValueError

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            perform(inline, name)
        assert found[0]() is None
    finally:
        gc.enable()
