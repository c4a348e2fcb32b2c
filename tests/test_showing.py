"""What is shown of jobs to people: details, searches, overviews (for W1 to W3)."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgi_bg import BackgroundTaskMiddleware, JobEvent, JobStatus, Runner, add_task, task
from asgi_bg._ids import new_id
from asgi_bg._keeping.elsewhere import elsewhere
from asgi_bg._looking.desk import Desk
from asgi_bg._looking.details import ELSEWHERE, UNKNOWN, attempts_of
from asgi_bg._looking.overview import FULL, percentiles_of
from asgi_bg._origin import Origin, Tracing
from asgi_bg.exceptions import JobNotFound
from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.base import Batch, Change, NewJob
from tests.helpers import Connection, need, until

pytestmark = pytest.mark.anyio

DEADLINE = 20.0
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@task(name="showing:pay")
async def pay(amount: int, card: str = "", *rest: str) -> int:
    return amount


@task(name="showing:charge", redact="card")
async def charge(amount: int, card: str) -> None:
    raise ValueError(f"no money: {amount}")


@task(name="showing:flaky", retries=2, retry_delay=0.01)
async def flaky() -> None:
    raise OSError("still down")


@pytest.fixture(params=["memory", "journal"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The options of a runner that keeps its jobs in memory, or in a journal."""
    return {} if request.param == "memory" else {"journal": tmp_path / "jobs.db"}


async def test_details_of_a_job_of_a_request(where: Any) -> None:
    """Its arguments by name, its attempts, and the request that added it."""
    jobs: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        jobs.append(add_task(pay.using(priority=3, tags=("money",), key="k1"), 12, "4242", "a"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    runner = Runner(**where)
    async with runner:
        connection = Connection()
        headers = [(b"x-request-id", b"r-1"), (b"traceparent", TRACE.encode())]
        connection.scope |= {"method": "POST", "path": "/orders", "headers": headers}
        await connection.call(BackgroundTaskMiddleware(app, runner=runner))
        await jobs[0].result(DEADLINE)
        details = await runner.details(jobs[0].id)
    assert details.origin == Origin("POST", "/orders", "r-1", TRACE)
    assert (details.key, details.priority, details.tags) == ("k1", 3, ("money",))
    [attempt] = details.attempts
    assert attempt.number == 1
    assert attempt.error is None
    assert attempt.started_at is not None
    assert attempt.finished_at is not None
    if where:
        named = [(argument.name, argument.value) for argument in details.arguments or ()]
        assert named == [("amount", "12"), ("card", '"4242"'), ("*rest[0]", '"a"')]
    else:
        assert details.arguments is None  # memory lets go of them


async def test_details_hide_what_redact_names(where: Any) -> None:
    """J10: by position and by name; also where the task is not declared."""
    runner = Runner(**where)
    async with runner:
        job = await runner.add_task(charge, 12, "4242")
        other = await runner.add_task(charge, 12, card="4242")
        await runner.drain(DEADLINE)
        for each in (job, other):
            details = await runner.details(each.id)
            amount, card = details.arguments or ()
            assert amount.value == "12"
            assert (card.name, card.value, card.is_redacted) == ("card", "", True)
            assert "4242" not in str(details)
        assert (await runner.search(text="4242")).jobs == ()
        assert len((await runner.search(text="NO MONEY")).jobs) == 2


async def test_details_of_a_task_that_is_not_declared_here(tmp_path: Path) -> None:
    """Arguments have their places for names; where some are redacted, all are hidden."""
    journal = SQLiteJournal(tmp_path / "jobs.db")
    journal.open()
    plain, hidden = new_id(1.0), new_id(2.0)
    job = NewJob(plain, "gone:task", '[["a"],{"b":1}]', None, 1.0, None, 0, None, None, False)
    redacted = NewJob(
        hidden,
        "gone:task",
        '[["a"],{"b":1,"c":2}]',
        '{"redact":["c"]}',
        2.0,
        None,
        0,
        None,
        None,
        False,
    )
    journal.commit(Batch(added=[job, redacted]))
    desk = Desk(journal)
    shown = [(one.name, one.value) for one in desk.details(plain).arguments or ()]
    assert shown == [("1", '"a"'), ("b", "1")]
    one, two, three = desk.details(hidden).arguments or ()
    assert (one.is_redacted, two.is_redacted, three.is_redacted) == (True, False, True)
    with pytest.raises(JobNotFound):
        desk.details("nothing")
    journal.close()


async def test_every_attempt_is_kept(where: Any) -> None:
    """With its times and errors; those before a retry by hand, too."""
    runner = Runner(**where)
    async with runner:
        job = await runner.add_task(flaky)
        await runner.drain(DEADLINE)
        details = await runner.details(job.id)
        assert [attempt.number for attempt in details.attempts] == [1, 2, 3]
        for attempt in details.attempts:
            assert attempt.error == "OSError: still down"
            assert "still down" in (attempt.traceback or "")
            assert attempt.started_at is not None
            assert attempt.finished_at is not None
            assert attempt.started_at <= attempt.finished_at
        assert await runner.retry_failed("showing:other") == 0
        assert await runner.retry_failed("showing:flaky") == 1
        await runner.drain(DEADLINE)
        details = await runner.details(job.id)
        assert [attempt.number for attempt in details.attempts] == [1, 2, 3, 1, 2, 3]


async def test_attempts_of_processes_that_died(tmp_path: Path) -> None:
    """Nobody has told of their end, but their numbers are missing."""
    journal = SQLiteJournal(tmp_path / "jobs.db")
    journal.open()
    job = new_id(1.0)
    journal.commit(
        Batch(added=[NewJob(job, "gone:task", "[[]]", None, 1.0, None, 0, None, None, True)])
    )
    journal.commit(
        Batch(
            marks=[
                Change(
                    job, "failed", 3, 2, None, 5.0, 6.0, None, "", None, "E: x", None, None, False
                )
            ]
        )
    )
    attempts = Desk(journal).details(job).attempts
    assert [(one.number, one.error) for one in attempts] == [
        (1, UNKNOWN),
        (2, UNKNOWN),
        (3, "E: x"),
    ]
    journal.close()


async def test_a_search_goes_on_where_it_ended(where: Any) -> None:
    """Page by page nothing is missed and nothing comes twice, also while new jobs come."""
    runner = Runner(**where)
    async with runner:
        jobs = [await runner.add_task(pay, number) for number in range(23)]
        await runner.drain(DEADLINE)
        seen: list[str] = []
        after = None
        while True:
            page = await runner.search(status="succeeded", limit=5, after=after)
            assert len(page.jobs) <= 5
            seen += [job.id for job in page.jobs]
            after = page.next
            if after is None:
                break
            await runner.add_task(pay, 99)
        assert seen == [job.id for job in reversed(jobs)]
        assert (await runner.search(status="failed")).jobs == ()
        with pytest.raises(ValueError, match="limit"):
            await runner.search(limit=0)
        with pytest.raises(ValueError, match="nonsense"):
            await runner.search(status="nonsense")


async def test_a_search_that_runs_out_of_time_says_where_to_go_on(tmp_path: Path) -> None:
    """And finds all in the end."""
    journal = SQLiteJournal(tmp_path / "jobs.db")
    journal.open()
    now = time.time()
    for start in range(0, 12_000, 1000):
        added = [
            NewJob(
                new_id(now + number / 100),
                "rare:task" if number % 3000 == 0 else "other:task",
                f"[[{number}]]",
                None,
                now,
                None,
                0,
                None,
                None,
                False,
            )
            for number in range(start, start + 1000)
        ]
        journal.commit(Batch(added=added))
    desk = Desk(journal)
    found: list[str] = []
    pages, after = 0, None
    while True:
        page = desk.search(task="rare:task", after=after, seconds=0.0)
        pages += 1
        found += [job.id for job in page.jobs]
        after = page.next
        assert page.is_cut == (after is not None)
        if after is None:
            break
    assert len(found) == 4
    assert pages > 1
    assert len(desk.search(text="[[11999").jobs) == 1
    assert desk.search(text="100%_").jobs == ()
    assert desk.search(text="caf\udce9").jobs == ()  # from a command line that is no UTF-8
    assert len(desk.infos([*found, "nothing"])) == 4
    journal.close()


async def test_overview(where: Any) -> None:
    """How many stand how, since when, and what has come of the last while."""
    runner = Runner(max_jobs=1, **where)
    async with runner:
        empty = await runner.overview()
        assert empty.oldest is None
        assert empty.tasks == ()
        await runner.add_task(pay, 1)
        await runner.add_task(charge, 1, "x")
        await runner.drain(DEADLINE)
        gate = asyncio.Event()

        @task(name="showing:wait")
        async def wait() -> None:
            await gate.wait()

        running = await runner.add_task(wait)
        await until(lambda: runner.stats()["running"] == 1)
        waiting = await runner.add_task(wait)
        later = await runner.add_task(pay.using(delay=100.0), 1)
        overview = await runner.overview(60.0, 6)
        counts = overview.counts
        assert (counts.succeeded, counts.failed, counts.cancelled) == (1, 1, 0)
        assert (counts.queued, counts.running, counts.retrying) == (2, 1, 0)
        assert overview.oldest == (await waiting.info()).queued_at
        assert [process.is_alive for process in overview.processes] == [True]
        assert len(overview.buckets) == 6
        assert sum(bucket.added for bucket in overview.buckets) == 5
        by_task = {each.task: each for each in overview.tasks}
        assert by_task["showing:charge"].failed == 1
        assert by_task["showing:pay"].succeeded == 1
        assert by_task["showing:pay"].durations is not None
        assert not overview.is_estimate
        gate.set()
        await running.result(DEADLINE)
        await waiting.result(DEADLINE)
        await runner.cancel(later.id)


async def test_overview_of_many_is_near_the_truth(tmp_path: Path) -> None:
    """A sample tells how many there are, also where they came in bursts."""
    journal = SQLiteJournal(tmp_path / "jobs.db")
    journal.open()
    now = time.time()
    # 10,000 in four minutes: a steady flow, and a burst that is half of them.
    instants = [now - 240 + number * 0.048 for number in range(5_000)]
    instants += [now - 100 + number * 0.002 for number in range(5_000)]
    assert len(instants) > 4 * FULL
    for start in range(0, len(instants), 1000):
        added = [
            NewJob(new_id(at), "many:task", "[[]]", None, at, None, 0, None, None, False)
            for at in instants[start : start + 1000]
        ]
        journal.commit(Batch(added=added))
    overview = Desk(journal).overview(240.0, 4)
    total = sum(bucket.added for bucket in overview.buckets)
    assert overview.is_estimate
    assert total == pytest.approx(10_000, rel=0.25)
    [many] = overview.tasks
    assert many.queued == pytest.approx(total, rel=0.01)
    journal.close()


async def test_infos_of_many_jobs_at_once(where: Any) -> None:
    """With one question; those that there are not are left out."""
    runner = Runner(**where)
    async with runner:
        jobs = [await runner.add_task(pay, number) for number in range(10)]
        await runner.drain(DEADLINE)
        infos = await runner.infos([*(job.id for job in jobs), "nothing", new_id(1.0)])
        assert infos.keys() == {job.id for job in jobs}
        assert {info.status for info in infos.values()} == {JobStatus.succeeded}


async def test_the_trace_of_add_task_goes_with_the_job(
    where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once somebody traces, outside of requests as well."""
    monkeypatch.setattr(Tracing, "current", staticmethod(lambda: TRACE))
    runner = Runner(**where)
    async with runner:
        job = await runner.add_task(pay, 1)
        await runner.drain(DEADLINE)
        assert (await runner.details(job.id)).origin == Origin(trace=TRACE)


async def test_a_job_that_a_job_adds_is_of_the_same_request(where: Any) -> None:
    """Its origin is the request's."""
    added: list[Any] = []

    @task(name="showing:parent")
    async def parent() -> None:
        added.append(add_task(pay, 1))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        add_task(parent)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    runner = Runner(**where)
    async with runner:
        connection = Connection()
        connection.scope["path"] = "/parent"
        await connection.call(BackgroundTaskMiddleware(app, runner=runner))
        await runner.drain(DEADLINE)
        origin = (await runner.details(added[0].id)).origin
        assert origin is not None
        assert origin.path == "/parent"


async def test_an_attempt_is_told_once_when_its_job_is_cancelled_before_the_next(
    where: Any,
) -> None:
    """Also after a retry by hand, with the times that it had."""
    runner = Runner(**where)
    async with runner:
        job = await runner.add_task(flaky.using(retry_delay=1000.0))
        await until_told(runner, job.id)
        await runner.cancel(job.id)
        [attempt] = (await runner.details(job.id)).attempts
        assert attempt.error == "OSError: still down"
        await runner.retry(job.id)
        await until_told(runner, job.id, 2)
        attempts = (await runner.details(job.id)).attempts
        assert attempts[0] == attempt
        assert [one.number for one in attempts] == [1, 1]
        await runner.cancel(job.id)


async def until_told(runner: Runner, id: str, number: int = 1) -> None:
    """Wait until so many attempts have failed, of a job that waits for the next one."""
    deadline = time.monotonic() + DEADLINE
    while True:
        details = await runner.details(id)
        errors = [attempt.error for attempt in details.attempts]
        if details.job.status == "queued" and len(errors) == number and errors[-1] is not None:
            return
        assert time.monotonic() < deadline, details
        await asyncio.sleep(0.01)


async def test_a_retry_by_hand_keeps_when_the_last_attempt_ended() -> None:
    """And not when the retry was asked for."""
    runner = Runner()
    async with runner:
        job = await runner.add_task(charge, 1, "4242")
        await runner.drain(DEADLINE)
        ended = (await runner.info(job.id)).finished_at
        await runner.retry(job.id)
        assert (await runner.details(job.id)).attempts[0].finished_at == ended


async def test_of_many_attempts_the_first_are_left_out(where: Any) -> None:
    """They are not told as ones whose process died."""
    runner = Runner(**where)
    async with runner:
        job = await runner.add_task(flaky.using(retries=24, retry_delay=0.0))
        await runner.drain(DEADLINE)
        attempts = (await runner.details(job.id)).attempts
        assert [one.number for one in attempts] == list(range(5, 26))
        assert {one.error for one in attempts} == {"OSError: still down"}


async def test_what_failed_before_a_success_is_kept_if_both_are_written_at_once(
    tmp_path: Path,
) -> None:
    """The attempts are in the journal, however soon the retry follows."""
    is_held, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    @task(name="showing:second", retries=1, retry_delay=0.0)
    async def second() -> None:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.to_thread(is_held.wait, DEADLINE)
            raise OSError("not yet")

    class Slow(SQLiteJournal):
        """Takes its time for the first mark, so that those of the other job are one commit."""

        def commit(self, batch: Batch) -> dict[str, str]:
            if batch.marks and not is_held.is_set():
                is_held.set()
                assert go_on.wait(DEADLINE)
            return super().commit(batch)

    def note_end(event: JobEvent) -> None:
        if (event.name, event.job.task) == ("succeeded", "showing:second"):
            go_on.set()

    async with Runner(journal=Slow(tmp_path / "jobs.db"), on_event=note_end) as runner:
        job = await runner.add_task(second)
        await runner.add_task(pay, 1)
        await runner.drain(DEADLINE)
    journal = SQLiteJournal(tmp_path / "jobs.db")
    attempts = Desk(journal).details(job.id).attempts
    assert [(one.number, one.error) for one in attempts] == [(1, "OSError: not yet"), (2, None)]
    journal.close()


def test_attempts_at_an_engine_are_not_told_as_crashes() -> None:
    """Nobody here knows how they ended."""
    info = elsewhere(new_id(1.0), "a:b", 1.0, "arq")
    attempts = attempts_of(msgspec.structs.replace(info, attempt=2), [])
    assert [(one.number, one.error) for one in attempts] == [(1, ELSEWHERE), (2, None)]


async def test_what_a_task_hides_now_or_hid_then_is_hidden(tmp_path: Path) -> None:
    """Whichever version of it has added the job (J10)."""

    @task(name="showing:renamed", redact=("card", "pin"))
    async def renamed(card: str, pin: str, note: str) -> None:
        """Was declared with redact=("number", "note"), and a card called number."""

    journal = SQLiteJournal(tmp_path / "jobs.db")
    journal.open()
    job = new_id(1.0)
    options = '{"redact":["number","note"]}'
    call = '[["4242","99","secret"]]'
    journal.commit(
        Batch(added=[NewJob(job, renamed.name, call, options, 1.0, None, 0, None, None, False)])
    )
    desk = Desk(journal)
    assert [one.value for one in desk.details(job).arguments or ()] == ["", "", ""]
    assert desk.search(text="4242").jobs == ()
    journal.close()


async def test_a_job_that_is_claimed_during_a_search_is_found(tmp_path: Path) -> None:
    """The journal's answer is from before, and the memory's from before that."""
    looked, go_on = threading.Event(), threading.Event()
    gate = asyncio.Event()

    class Slow(SQLiteJournal):
        """Answers a search only when it may."""

        def search(self, *args: Any, **kwargs: Any) -> Any:
            found = super().search(*args, **kwargs)
            looked.set()
            assert go_on.wait(DEADLINE)
            return found

    @task(name="showing:again")
    async def again() -> None:
        if not gate.is_set():
            gate.set()
            raise ValueError("once")
        await asyncio.Event().wait()

    async with Runner(journal=Slow(tmp_path / "jobs.db"), drain_timeout=0.1) as runner:
        job = await runner.add_task(again)
        await runner.drain(DEADLINE)
        searching = asyncio.create_task(runner.search())
        await asyncio.to_thread(looked.wait, DEADLINE)
        await runner.retry(job.id)
        await until(lambda: runner.stats()["running"] == 1)
        go_on.set()
        page = await searching
        assert [found.id for found in page.jobs] == [job.id]


async def test_tracing_that_fails_loses_no_job(
    where: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its trace is left out, and the log says why."""

    def current() -> str:
        raise RuntimeError("no tracer")

    monkeypatch.setattr(Tracing, "current", staticmethod(current))
    runner = Runner(**where)
    async with runner:
        job = await runner.add_task(pay, 1)
        assert await job.result(DEADLINE) == 1
        assert (await runner.details(job.id)).origin is None
    assert "no tracer" in caplog.text


async def test_an_odd_scope_fails_no_response(where: Any) -> None:
    """What is only shown is left out, or shown as it can be."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        jobs.append(add_task(pay, 1))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    jobs: list[Any] = []
    runner = Runner(**where)
    async with runner:
        connection = Connection()
        connection.scope |= {
            "method": None,
            "path": "/caf\udce9",
            "headers": [(b"x-request-id", "r-1"), (b"traceparent", None)],
        }
        await connection.call(BackgroundTaskMiddleware(app, runner=runner))
        await jobs[0].result(DEADLINE)
        origin = (await runner.details(jobs[0].id)).origin
        assert origin == Origin(None, "/caf\\udce9", "r-1", None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None], None),
        ([1.0], (1.0, 1.0, 1.0)),
        ([float(number) for number in range(1, 101)], (50.0, 95.0, 99.0)),
        ([3.0, None, 1.0, 2.0], (2.0, 3.0, 3.0)),
    ],
)
def test_percentiles(values: Any, expected: Any) -> None:
    """By the nearest rank."""
    found = percentiles_of(values)
    assert found == expected or found is not None
    if expected is not None:
        assert found is not None
        assert (found.p50, found.p95, found.p99) == expected


async def test_odd_questions_are_answered(tmp_path: Path) -> None:
    """A text that is too long finds nothing, and an overview has a longest time."""
    async with Runner(journal=tmp_path / "jobs.db") as runner:
        assert (await runner.search(text="x" * 100_000)).jobs == ()
        with pytest.raises(ValueError, match="ten years"):
            await runner.overview(1e13)


async def test_a_sealed_job_is_listed_and_retried_without_its_key(tmp_path: Path) -> None:
    """J10: it spoils no listing and no retry of others, and is whole when the key is back."""
    need("cryptography")
    journal = SQLiteJournal(tmp_path / "jobs.db", keys=[b"k" * 32])
    async with Runner(journal=journal) as runner:
        job = await runner.add_task(flaky)
        await runner.drain(DEADLINE)
    without_key = SQLiteJournal(tmp_path / "jobs.db")
    desk = Desk(without_key)
    [shown] = desk.search().jobs
    assert (shown.id, shown.error) == (job.id, None)
    assert list(desk.retry_failed()) == [1]
    without_key.close()
    async with Runner(journal=journal) as runner:
        await runner.drain(DEADLINE)
        attempts = (await runner.details(job.id)).attempts
        assert [attempt.number for attempt in attempts][-3:] == [1, 2, 3]


async def test_a_look_does_not_wait_for_a_lock(tmp_path: Path) -> None:
    """Another program holds the file for longer than anybody would look."""
    path = tmp_path / "jobs.db"
    async with Runner(journal=SQLiteJournal(path, busy_timeout=60.0)) as runner:
        job = await runner.add_task(pay, 1)
        await job.result(DEADLINE)
        while (await runner.info(job.id)).status is not JobStatus.succeeded:
            await asyncio.sleep(0.01)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(runner.add_task(pay, 2))
        try:
            listed = await asyncio.wait_for(runner.jobs(), DEADLINE)
            found = await asyncio.wait_for(runner.search(text="showing:pay"), DEADLINE)
            seen = await asyncio.wait_for(runner.overview(), DEADLINE)
            assert job.id in {each.id for each in listed}
            assert job.id in {each.id for each in found.jobs}
            assert seen.counts.succeeded == 1
            assert not adding.done()
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert await (await adding).result(DEADLINE) == 2
