"""Spans of OpenTelemetry: W4."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg._origin import Tracing
from tests import process_tasks
from tests.engines.memory import MemoryEngine
from tests.helpers import BODY, START, Connection, need, responding, until

sdk = need("tests.telemetry.sdk")
pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent


@task(retries=1, retry_delay=0, redact=("card",))
async def pay(card: str, fail: int = 0) -> None:
    with tracer.start_as_current_span("charge"):
        if current_job().attempt <= fail:
            raise PermissionError("the bank says no")


@task(retries=1, retry_delay=0)
def paint(fail: int = 0) -> None:
    with tracer.start_as_current_span("brush"):
        if current_job().attempt <= fail:
            raise PermissionError("wet")


@task
async def endless() -> None:
    await asyncio.sleep(60)


@task(timeout=0.05)
async def hurry() -> None:
    await asyncio.sleep(60)


@task(timeout=0.05)
def stuck() -> None:
    while not current_job().cancelled:
        time.sleep(0.01)


tracer: Any = None


@pytest.fixture(autouse=True)
def use_tracer(telemetry: Any) -> None:
    global tracer
    tracer = telemetry.tracer


async def request_with(telemetry: Any, before: Any, **options: Any) -> Any:
    """Serve a request inside of a span, and return that span's context."""
    app = BackgroundTaskMiddleware(responding(START, BODY, before=before), **options)
    with telemetry.tracer.start_as_current_span("request") as span:
        await Connection().call(app)
        return span.get_span_context()


@pytest.mark.parametrize("declared", [pay, paint])
async def test_each_attempt_has_a_span_that_links_to_the_request(
    telemetry: Any, declared: Any
) -> None:
    """W4: on the loop and in threads; what the task does in spans of its own is inside."""
    events = telemetry.events()
    arguments = ("4000-1234",) if declared is pay else ()
    source = await request_with(
        telemetry, lambda: add_task(declared, *arguments, fail=1), on_event=events
    )
    await until(lambda: len(telemetry.spans()) == 2)
    first, second = telemetry.spans()
    for number, span in enumerate((first, second), 1):
        assert span.name == f"process {declared.name}"
        assert span.parent is None
        assert span.context.trace_id != source.trace_id
        (link,) = span.links
        assert (link.context.trace_id, link.context.span_id) == (source.trace_id, source.span_id)
        assert span.attributes["messaging.system"] == "asgi_bg"
        assert span.attributes["messaging.operation.name"] == "process"
        assert span.attributes["messaging.operation.type"] == "process"
        assert span.attributes["messaging.destination.name"] == declared.name
        assert len(span.attributes["messaging.message.id"]) == 32
        assert span.attributes["asgi_bg.attempt"] == number
    assert first.context.trace_id != second.context.trace_id
    inner = [span for span in telemetry.spans("INTERNAL") if span.name != "request"]
    assert [span.parent.span_id for span in inner] == [
        first.context.span_id,
        second.context.span_id,
    ]


async def test_a_failed_attempts_span_says_why(make_runner: Any, telemetry: Any) -> None:
    """W4: on a retry and at last, with the error as an event; a good one says nothing."""
    runner = await make_runner(on_event=telemetry.events())
    await runner.add_task(pay, "4000-1234", fail=2)
    await runner.add_task(paint)
    assert await runner.drain(30)
    *bad, good = sorted(telemetry.spans(), key=lambda span: len(span.events) == 0)
    assert [span.attributes["asgi_bg.status"] for span in bad] == ["retrying", "failed"]
    for span in bad:
        assert span.status.status_code.name == "ERROR"
        assert span.status.description == "PermissionError: the bank says no"
        assert span.attributes["error.type"] == "PermissionError"
        (event,) = span.events
        assert event.name == "exception"
        assert event.attributes["exception.type"] == "PermissionError"
        assert event.attributes["exception.message"] == "the bank says no"
        assert "in pay" in event.attributes["exception.stacktrace"]
    assert good.status.status_code.name == "UNSET"
    assert good.attributes["asgi_bg.status"] == "succeeded"
    assert "error.type" not in good.attributes
    assert not good.events


async def test_given_up_and_cancelled_attempts_end_their_spans(
    make_runner: Any, telemetry: Any
) -> None:
    """W4, R5: by their time or by somebody; a job that waits has no span to end."""
    runner = await make_runner(on_event=telemetry.events())
    await runner.add_task(hurry)
    await runner.add_task(stuck)
    stopped = await runner.add_task(endless)
    await until(lambda: runner.stats()["failed"] == 2, 30)
    await runner.cancel(stopped.id)
    waiting = await runner.add_task(endless.using(delay=60))
    await runner.cancel(waiting.id)
    assert await runner.drain(30)
    found = {span.name: span for span in telemetry.spans()}
    assert len(telemetry.spans()) == 3
    for name in (f"process {hurry.name}", f"process {stuck.name}"):
        assert found[name].attributes["error.type"] == "TimeoutError"
        assert found[name].status.status_code.name == "ERROR"
    cancelled = found[f"process {endless.name}"]
    assert cancelled.attributes["asgi_bg.status"] == "cancelled"
    assert cancelled.status.status_code.name == "UNSET"


async def test_an_attempt_in_another_process_has_its_span_here(
    make_runner: Any, telemetry: Any
) -> None:
    """W4: it begins and ends with the call."""
    runner = await make_runner(on_event=telemetry.events(), max_processes=1)
    await runner.add_task(process_tasks.report)
    await runner.add_task(process_tasks.die)
    assert await runner.drain(60)
    good, bad = sorted(telemetry.spans(), key=lambda span: len(span.events))
    assert good.attributes["asgi_bg.status"] == "succeeded"
    assert bad.status.status_code.name == "ERROR"


async def test_what_runs_beside_a_job_is_not_inside_its_span(
    make_runner: Any, telemetry: Any
) -> None:
    """W4: jobs do not leak their spans into each other, nor into their request."""
    runner = await make_runner(on_event=telemetry.events(), ordered=False)
    with telemetry.tracer.start_as_current_span("outer") as outer:
        for _ in range(20):
            await runner.add_task(pay, "1")
            await runner.add_task(paint)
        assert await runner.drain(30)
        with telemetry.tracer.start_as_current_span("after"):
            pass
    spans = telemetry.spans()
    ids = {span.context.span_id for span in spans}
    inner = telemetry.spans("INTERNAL")
    parents = [span.parent.span_id for span in inner if span.name in ("charge", "brush")]
    assert sorted(parents) == sorted(ids)
    assert len(spans) == 40
    (after,) = [span for span in inner if span.name == "after"]
    assert after.parent.span_id == outer.get_span_context().span_id


async def test_a_plain_function_that_returns_a_coroutine_is_one_attempt(
    make_runner: Any, telemetry: Any
) -> None:
    """W4, R1: it has one span, which ends with the coroutine."""
    seen: list[Any] = []

    async def second() -> None:
        await asyncio.sleep(0.01)
        seen.append(len(telemetry.spans()))

    def first() -> Any:
        seen.append(sdk.get_current_span().get_span_context().span_id)
        return second()

    runner = await make_runner(on_event=telemetry.events())
    await runner.add_task(first)
    assert await runner.drain(30)
    (span,) = telemetry.spans()
    assert seen == [span.context.span_id, 0]


async def test_a_job_of_a_job_links_to_that_jobs_span(make_runner: Any, telemetry: Any) -> None:
    """W4: `add_task` inside a task is traced as that in a request."""

    async def parent() -> None:
        add_task(paint)

    runner = await make_runner(on_event=telemetry.events())
    await runner.add_task(parent)
    assert await runner.drain(30)
    first, second = telemetry.spans()
    assert second.name == f"process {paint.name}"
    assert second.links[0].context.span_id == first.context.span_id
    assert not first.links


async def test_without_a_span_the_requests_own_header_is_linked_to(telemetry: Any) -> None:
    """W4: an app that does not trace its requests still has the caller's context."""
    app = BackgroundTaskMiddleware(
        responding(START, BODY, before=lambda: add_task(paint)), on_event=telemetry.events()
    )
    for header in (f"00-{'ab' * 16}-{'cd' * 8}-01", "nonsense", f"00-{'0' * 32}-{'0' * 16}-01"):
        connection = Connection()
        connection.scope["headers"] = [(b"traceparent", header.encode())]
        await connection.call(app)
    await until(lambda: len(telemetry.spans()) == 3)
    first, *others = telemetry.spans()
    assert f"{first.links[0].context.trace_id:x}" == "ab" * 16
    assert first.links[0].context.is_remote
    assert [span.links for span in others] == [(), ()]


async def test_redacted_arguments_are_nowhere(make_runner: Any, telemetry: Any) -> None:
    """J10, W4: nor is any other argument."""
    runner = await make_runner(on_event=telemetry.events())
    await runner.add_task(pay, "4000-1234", fail=2)
    assert await runner.drain(30)
    text = " ".join(span.to_json() for span in telemetry.spans()) + str(telemetry.metrics())
    assert "4000-1234" not in text


async def test_what_is_cut_off_is_ended_by_close(telemetry: Any, tmp_path: Path) -> None:
    """W4: a job that goes back to the journal has no end here, but its attempt has."""
    events = telemetry.events()
    async with Runner(on_event=events, journal=tmp_path / "jobs.db", drain_timeout=0) as runner:
        await runner.add_task(endless)
        await until(lambda: runner.stats()["running"] == 1, 30)
        await runner.aclose(0)
    events.close()
    (span,) = telemetry.spans()
    assert span.attributes["asgi_bg.status"] == "interrupted"
    assert Tracing.current is None


async def test_the_newest_subscriber_keeps_the_trace(telemetry: Any) -> None:
    """W4: closing an older one does not end tracing while another is open."""
    first, second = telemetry.events(), telemetry.events()
    first.close()
    assert Tracing.current is not None
    second.close()
    assert Tracing.current is None


async def test_a_failing_exporter_or_sampler_harms_no_job(
    make_runner: Any, telemetry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """R9, W4: the jobs run, and the log tells."""

    class Broken(sdk.SpanExporter):
        def export(self, spans: Any) -> Any:
            raise ConnectionError("no collector")

        def shutdown(self) -> None:
            pass

    class Odd(sdk.Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no decision")

        def get_description(self) -> str:
            return "odd"

    broken = sdk.TracerProvider()
    broken.add_span_processor(sdk.SimpleSpanProcessor(Broken()))
    odd = sdk.TracerProvider(sampler=Odd())
    for provider in (broken, odd):
        runner = await make_runner(on_event=telemetry.events(tracer_provider=provider))
        for job in (await runner.add_task(paint), await runner.add_task(pay, "1")):
            await job.result(30)
    broken.shutdown()
    odd.shutdown()
    assert "no collector" in caplog.text
    assert "no decision" in caplog.text


async def test_a_job_that_an_engine_brings_links_to_its_request(
    make_runner: Any, telemetry: Any, tmp_path: Path
) -> None:
    """W4, E1: the trace goes with the job, through the outbox and the broker."""
    events = telemetry.events()
    engine = MemoryEngine(consume=True, supports=("retries",))
    runner = await make_runner(on_event=events, engine=engine, journal=tmp_path / "jobs.db")
    source = await request_with(telemetry, lambda: add_task(paint, 1), runner=runner)
    await until(lambda: len(telemetry.spans()) == 2, 60)
    for span in telemetry.spans():
        (link,) = span.links
        assert link.context.span_id == source.span_id
    assert [span.attributes["asgi_bg.attempt"] for span in telemetry.spans()] == [1, 2]


def test_a_restart_keeps_the_link(tmp_path: Path) -> None:
    """W4, J3: a process that is killed leaves the trace in the journal, for the next one."""

    def run(role: str) -> tuple[int, list[Any]]:
        process = subprocess.run(
            [sys.executable, "-m", "tests.telemetry.crash_site", role, str(tmp_path / "jobs.db")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        return process.returncode, [json.loads(line) for line in process.stdout.splitlines()]

    status, ((trace, span),) = run("die")
    assert status == -signal.SIGKILL
    status, (told,) = run("recover")
    assert status == 0
    assert told == {"attempt": 2, "links": [[trace, span]], "traces": 1}
