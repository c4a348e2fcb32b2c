"""Jobs of declared tasks through a runner with a journal (J1 to J8), in one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import (
    BackgroundTaskMiddleware,
    Job,
    JobEvent,
    JobStatus,
    Runner,
    add_task,
    current_job,
    task,
)
from asgi_bg._ids import new_id
from asgi_bg.exceptions import JobFailed, JobNotFound, JournalError, NotSerializable
from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.base import Batch, NewJob
from tests.helpers import BODY, START, Connection, until
from tests.journal.helpers import crash

pytestmark = pytest.mark.anyio

seen: list[Any] = []
hooks: dict[str, Callable[[], Any]] = {}


@pytest.fixture(autouse=True)
def _clean() -> None:
    seen.clear()
    hooks.clear()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "jobs.db")


@task
async def note(value: int) -> int:
    seen.append(value)
    return 2 * value


@task
def note_in_thread(value: int) -> int:
    seen.append(value)
    return 2 * value


@task(retries=3, retry_delay=0.0)
async def flaky(times: int) -> int:
    seen.append(current_job().attempt)
    if current_job().attempt <= times:
        raise OSError("not yet")
    return current_job().attempt


@task
async def broken() -> None:
    raise ValueError("no")


@task
async def wait() -> None:
    seen.append("begun")
    await asyncio.sleep(3600)


@task
async def slow_parent() -> None:
    add_task(note, 7)
    seen.append("parent")


@task
async def report() -> str:
    logging.getLogger("tests").warning("half way")
    current_job().progress(0.5, "half")
    await asyncio.sleep(0)
    hook = hooks.get("report")
    if hook is not None:
        await hook()
    return "done"


def rows(path: str, what: str = "id, status") -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {what} FROM jobs ORDER BY id").fetchall()


class Slow(SQLiteJournal):
    """A journal whose commits wait until they are let."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.asked = threading.Event()
        self.may_commit = threading.Event()
        self.commits = 0
        self.error: Exception | None = None

    def commit(self, batch: Batch) -> dict[str, str]:
        self.asked.set()
        assert self.may_commit.wait(20)
        if self.error is not None and batch.added:
            raise self.error
        self.commits += 1
        return super().commit(batch)


@asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[tuple[Any, Runner]]:
    wrapped = BackgroundTaskMiddleware(app, **options)
    async with wrapped.runner:
        yield wrapped, wrapped.runner


def adding(*calls: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for func, *args in calls:
            add_task(func, *args)
        await send(START)
        await send(BODY)

    return app


class TestCommitBeforeBytes:
    """J1, J2."""

    async def test_no_message_is_sent_before_the_job_is_on_disk(self, path: str) -> None:
        """The start of the response waits, and the row is there when it goes."""
        journal = Slow(path)
        async with served(adding((note, 1)), journal=journal) as (app, _):
            connection = Connection()
            serving = asyncio.create_task(connection.call(app))
            await until(journal.asked.is_set)
            await asyncio.sleep(0.1)  # for what must not happen
            assert connection.sent == []
            journal.may_commit.set()
            await serving
            assert [message["type"] for message in connection.sent] == [START["type"], BODY["type"]]
        assert [status for _, status in rows(path)] == ["succeeded"]

    async def test_waiting_requests_share_a_commit(self, path: str) -> None:
        """Fifty requests that wait while one commit is under way need one more."""
        journal = Slow(path)
        added: list[Job] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            added.append(add_task(note, 1))
            await send(START)
            await send(BODY)

        async with served(app, journal=journal) as (wrapped, runner):
            serving = [asyncio.create_task(Connection().call(wrapped)) for _ in range(50)]
            await until(lambda: len(added) == 50)
            journal.may_commit.set()
            await asyncio.gather(*serving)
            await runner.drain(5)
            assert journal.commits < 10
        assert len(rows(path)) == len(seen) == 50

    async def test_job_added_in_the_middle_holds_the_next_message(self, path: str) -> None:
        """From its add_task on, also where the response has begun."""
        journal = Slow(path)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            add_task(note, 1)
            await send({"type": "http.response.body", "body": b"b"})

        async with served(app, journal=journal) as (wrapped, _):
            connection = Connection()
            serving = asyncio.create_task(connection.call(wrapped))
            await until(journal.asked.is_set)
            await asyncio.sleep(0.1)  # for what must not happen
            assert len(connection.sent) == 2
            journal.may_commit.set()
            await serving
            assert len(connection.sent) == 3

    async def test_second_sender_does_not_overtake(self, path: str) -> None:
        """A message of another asyncio task of the app waits as well."""
        journal = Slow(path)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            add_task(note, 1)
            more = {"type": "http.response.body", "body": b"a", "more_body": True}
            await asyncio.gather(send(more), send(more))
            await send(BODY)

        async with served(app, journal=journal) as (wrapped, _):
            connection = Connection()
            serving = asyncio.create_task(connection.call(wrapped))
            await until(journal.asked.is_set)
            await asyncio.sleep(0.1)  # for what must not happen
            assert len(connection.sent) == 1
            journal.may_commit.set()
            await serving
            assert len(connection.sent) == 4

    async def test_undeclared_task_costs_no_commit(self, path: str) -> None:
        """A plain function given to add_task runs in memory as ever."""
        journal = Slow(path)

        async def plain() -> None:
            seen.append("plain")

        async with served(adding((plain,)), journal=journal) as (app, _):
            await Connection().call(app)
            await until(lambda: seen == ["plain"])
            journal.may_commit.set()
        assert rows(path) == []

    async def test_refused_write_fails_the_response_and_drops_the_job(self, path: str) -> None:
        """Nothing is promised that was not written, and the server goes on."""
        journal = Slow(path)
        journal.may_commit.set()
        async with served(adding((note, 1)), journal=journal) as (app, runner):
            journal.error = JournalError("disk full")
            connection = Connection()
            with pytest.raises(JournalError, match="disk full"):
                await connection.call(app)
            assert connection.sent == []
            journal.error = None
            await Connection().call(app)
            await runner.drain(5)
        assert seen == [1]
        assert len(rows(path)) == 1

    async def test_app_that_catches_the_error_can_answer(self, path: str) -> None:
        """As an error middleware inside does: its 500 goes out, and the job does not run."""
        journal = Slow(path)
        journal.may_commit.set()
        journal.error = JournalError("disk full")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            add_task(note, 1)
            try:
                await send(START)
            except JournalError:
                await send({"type": "http.response.start", "status": 500})
                await send(BODY)

        async with served(app, journal=journal) as (wrapped, runner):
            connection = Connection()
            await connection.call(wrapped)
            assert connection.sent[0]["status"] == 500
            await runner.drain(5)
        assert seen == []

    async def test_add_task_outside_of_requests_is_durable_once_it_returns(self, path: str) -> None:
        """`Runner.add_task` waits for the commit."""
        async with Runner(journal=path, drain_timeout=0) as runner:
            job = await runner.add_task(wait)
            assert rows(path)[0][0] == job.id

    async def test_dropped_job_leaves_no_row(self, path: str) -> None:
        """M5."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            add_task(note.using(run_on="success"), 1)
            await send({"type": "http.response.start", "status": 404})
            await send(BODY)

        async with served(app, journal=path) as (wrapped, runner):
            await Connection().call(wrapped)
            await runner.drain(5)
        assert seen == []
        assert rows(path) == []

    async def test_journal_that_cannot_be_opened_stops_the_start(self, tmp_path: Path) -> None:
        """With a message that says what is wrong."""
        with pytest.raises(JournalError, match="does not exist"):
            await Runner(journal=tmp_path / "missing" / "jobs.db").start()


class TestSurvival:
    """J3, J6, J8: what another start finds."""

    async def test_unfinished_jobs_wait_for_the_next_start(self, path: str) -> None:
        """What a shutdown cuts off stays queued, under its id, and is another attempt."""
        async with Runner(journal=path, drain_timeout=0) as runner:
            job = await runner.add_task(wait)
            await until(lambda: seen == ["begun"])
        assert rows(path) == [(job.id, "queued")]
        async with Runner(journal=path, drain_timeout=0) as runner:
            await until(lambda: seen == ["begun", "begun"])
            info = await runner.info(job.id)
            assert (info.status, info.attempt) == (JobStatus.running, 2)
            assert info.durable

    async def test_put_off_job_waits_across_a_restart(self, path: str) -> None:
        """`delay=` is an instant in the journal."""
        async with Runner(journal=path) as runner:
            job = await runner.add_task(note.using(delay=0.6), 3)
            began = time.time()
        assert seen == []
        async with Runner(journal=path) as runner:
            assert await runner.result(job.id, 5) == 6
            assert time.time() - began >= 0.5

    async def test_retries_are_counted_in_the_journal(self, path: str) -> None:
        """An attempt that failed before the restart is not made again."""
        slow = flaky.using(retry_delay=1000.0, retries=1)
        async with Runner(journal=path, drain_timeout=0) as runner:
            job = await runner.add_task(slow, 1)
            await until(lambda: seen == [1])
            await until(lambda: rows(path, "attempt, run_after IS NOT NULL") == [(1, 1)])
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE jobs SET run_after = 1.0")
        async with Runner(journal=path) as runner:
            assert await runner.result(job.id, 5) == 2
        assert seen == [1, 2]

    async def test_failed_job_keeps_its_error(self, path: str) -> None:
        """Error and traceback are there after a restart, and it can be retried."""
        async with Runner(journal=path) as runner:
            job = await runner.add_task(flaky.using(retries=0), 1)
            with pytest.raises(JobFailed, match="not yet"):
                await job.result(5)
        async with Runner(journal=path) as runner:
            info = await runner.info(job.id)
            assert info.status is JobStatus.failed
            assert info.error == "OSError: not yet"
            assert info.traceback is not None
            assert "in flaky" in info.traceback
            with pytest.raises(JobFailed, match="not yet"):
                await runner.result(job.id, 1)
            await runner.retry(job.id)
            await until(lambda: seen == [1, 1])

    async def test_unknown_task_fails_and_can_be_retried_when_it_is_back(
        self, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """J8."""
        async with Runner(journal=path, drain_timeout=0) as runner:
            job = await runner.add_task(note.using(delay=0.3), 4)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE jobs SET task = 'gone:task'")
        async with Runner(journal=path) as runner:
            with pytest.raises(JobFailed, match="no task 'gone:task' is declared"):
                await runner.result(job.id, 5)
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("UPDATE jobs SET task = ?", (note.name,))
            await runner.retry(job.id)
            assert await runner.result(job.id, 5) == 8

    async def test_arguments_that_no_longer_fit_fail_the_job(
        self, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """J8: it is kept, with the reason, and nothing else suffers."""
        async with Runner(journal=path, drain_timeout=0) as runner:
            job = await runner.add_task(note.using(delay=0.2), 4)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("""UPDATE jobs SET call = '[["four"]]'""")
        async with Runner(journal=path) as runner:
            with pytest.raises(JobFailed, match="value"):
                await runner.result(job.id, 5)

    async def test_only_declared_tasks_run_by_name(
        self, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A name in the file is looked up among tasks, and never imported."""
        async with Runner(journal=path, drain_timeout=0) as runner:
            job = await runner.add_task(note.using(delay=0.2), 4)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("""UPDATE jobs SET task = 'os:getpid', call = '[[]]'""")
        async with Runner(journal=path) as runner:
            with pytest.raises(JobFailed, match="os:getpid"):
                await runner.result(job.id, 5)

    async def test_options_of_the_call_survive(self, path: str) -> None:
        """`using(retries=…)` counts after the restart too."""
        async with Runner(journal=path) as runner:
            job = await runner.add_task(note.using(delay=0.3, retries=5, priority=2), 4)
        async with Runner(journal=path) as runner:
            assert (await runner.info(job.id)).max_attempts == 6
            await job.result(5)

    async def test_children_of_a_job_are_kept(self, path: str) -> None:
        """What a job adds to its request is written too."""
        async with Runner(journal=path) as runner:
            await runner.add_task(slow_parent)
            await runner.drain(5)
        assert [status for _, status in rows(path)] == ["succeeded", "succeeded"]
        assert seen == ["parent", 7]

    async def test_recovered_job_may_add_more(self, path: str) -> None:
        """A job that comes from the journal has a collector, too."""
        async with Runner(journal=path) as runner:
            await runner.add_task(slow_parent.using(delay=0.2))
        async with Runner(journal=path) as runner:
            await until(lambda: seen == ["parent", 7])
            await runner.drain(5)

    async def test_claimed_job_that_fails_can_be_retried(self, path: str) -> None:
        """One that somebody has kept a hold of, and that has failed once."""
        async with Runner(journal=path) as runner:
            job = await runner.add_task(broken.using(delay=1.1))
            with pytest.raises(JobFailed):
                await job.result(20)
            assert (await runner.retry(job.id)).status is JobStatus.queued

    def test_claim_for_a_loop_that_ends_meanwhile_is_not_lost(self, path: str) -> None:
        """The next loop is there already when the rows come."""
        is_claiming, may_claim = threading.Event(), threading.Event()

        class Slow(SQLiteJournal):
            def claim(self, limit: int, now: float) -> Any:
                is_claiming.set()
                assert may_claim.wait(20)
                return super().claim(limit, now)

        async def put_off() -> None:
            async with Runner(journal=path) as runner:
                for number in range(5):
                    await runner.add_task(note.using(delay=1.1), number)

        runner = Runner(journal=Slow(path))

        async def attach() -> None:
            runner.scheduler()
            assert await asyncio.to_thread(is_claiming.wait, 20)

        async def go_on() -> None:
            runner.scheduler()
            may_claim.set()
            await until(lambda: sorted(seen) == list(range(5)), 20)
            await runner.aclose()

        asyncio.run(put_off())
        asyncio.run(attach())
        asyncio.run(go_on())

    def test_loops_that_have_ended_are_forgotten(self, path: str) -> None:
        """Test clients make one for each request."""
        runner = Runner(journal=path)

        async def use() -> None:
            await runner.add_task(note, 1)
            await runner.drain(20)

        for _ in range(5):
            asyncio.run(use())
        keeper = runner._parts.keeper
        assert keeper is not None
        assert len(keeper.claims._hosts) <= 1

        async def end() -> None:
            await runner.start()
            await runner.aclose()

        asyncio.run(end())

    async def test_recovered_is_told_first(self, path: str) -> None:
        """R9: of a job that another process left, before anything else of it."""
        dead = SQLiteJournal(path)
        dead.open()
        ids = [new_id(time.time()) for _ in range(50)]
        call = (note.name, "[[1]]", None, time.time(), None, 0, None, None, True)
        dead.commit(Batch(added=[NewJob(each, *call) for each in ids]))
        crash(dead)
        told: list[JobEvent] = []
        async with Runner(journal=path, on_event=told.append) as runner:
            await runner.drain(20)
            await until(lambda: sum(event.name == "recovered" for event in told) == 50)
        of_each = [tuple(event.name for event in told if event.id == each) for each in ids]
        assert set(of_each) == {("recovered", "started", "succeeded")}

    async def test_order_of_a_request_survives(self, path: str) -> None:
        """R2: the jobs of one request run one after another, also from the journal."""
        order = [(note, n) for n in range(20)]
        blocked = asyncio.Event()
        hooks["report"] = blocked.wait
        async with served(adding((report,), *order), journal=path, drain_timeout=0) as (app, _):
            await Connection().call(app)
        assert seen == []
        hooks.clear()
        async with Runner(journal=path) as runner:
            await runner.drain(5)
        assert seen == list(range(20))


class TestBacklog:
    """R8: what does not fit into memory waits in the journal."""

    async def test_jobs_beyond_the_window_wait_in_the_journal(self, path: str) -> None:
        """No QueueFull, and every one of them runs once."""
        runner = Runner(journal=path, max_jobs=2, max_queued=4)
        async with served(adding(*((note_in_thread, n) for n in range(100))), runner=runner) as (
            app,
            _,
        ):
            await Connection().call(app)
            assert await runner.drain(20)
            assert runner.stats()["queued"] == 0
        assert sorted(seen) == list(range(100))
        assert {status for _, status in rows(path)} == {"succeeded"}

    async def test_result_of_a_job_that_was_given_back(self, path: str) -> None:
        """Its handle finds the end, whoever runs it."""
        async with Runner(journal=path, max_jobs=1, max_queued=2) as runner:
            jobs = [await runner.add_task(note, n) for n in range(20)]
            assert [await job.result(10) for job in jobs] == [2 * n for n in range(20)]

    async def test_higher_priority_first(self, path: str) -> None:
        """J10, among those that wait in the journal."""
        async with Runner(journal=path) as runner:
            for n in range(3):
                await runner.add_task(note.using(delay=0.2, priority=n), n)
        await asyncio.sleep(0.3)  # until all are due, so that only their priority counts
        async with Runner(journal=path, max_jobs=1, max_queued=2) as runner:
            await runner.drain(5)
        assert seen == [2, 1, 0]


class TestKeys:
    """J6."""

    async def test_same_key_same_job(self, path: str) -> None:
        """While it is unfinished, when it has ended, and after a restart."""
        once = note.using(key="order-1")
        async with Runner(journal=path) as runner:
            first = await runner.add_task(once, 1)
            await first.result(5)
            assert (await runner.add_task(once, 2)).id == first.id
        async with Runner(journal=path) as runner:
            again = await runner.add_task(once, 3)
            assert again.id == first.id
            assert await again.result(5) == 2
        assert seen == [1]

    async def test_lost_race_for_a_key_leads_to_the_winner(self, path: str) -> None:
        """Two processes that add it at one moment: one job, and both ids lead to it."""
        slow, other = Slow(path), Runner(journal=path)
        once = note.using(key="order-2")
        async with Runner(journal=slow) as runner:
            losing = asyncio.create_task(runner.add_task(once, 1))
            await until(slow.asked.is_set)
            async with other:
                winner = await other.add_task(once, 2)
                slow.may_commit.set()
                loser = await losing
                assert await loser.result(5) == 4
                assert loser.id == winner.id
        assert seen == [2]


class TestLookingAfter:
    """`info`, `jobs`, `cancel`, `retry`, `purge`, `stats`, from another runner."""

    async def test_running_job_is_seen_by_others(self, path: str) -> None:
        """Status, progress and owner get into the journal while it runs."""
        gate = asyncio.Event()
        hooks["report"] = gate.wait
        async with Runner(journal=path) as runner, Runner(journal=path) as other:
            job = await runner.add_task(report)

            async def is_seen() -> bool:
                info = await other.info(job.id)
                return (info.status, info.progress, info.message) == ("running", 0.5, "half")

            deadline = time.monotonic() + 10
            while not await is_seen():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            info = await other.info(job.id)
            assert info.owner == f"pid:{os.getpid()}"
            assert [job.id for job in await other.jobs(status="running")] == [job.id]
            gate.set()
            assert await other.result(job.id, 10) == "done"
            info = await other.info(job.id)
            assert [line.message for line in info.logs] == ["half way"]

    async def test_running_job_is_cancelled_from_another_process(self, path: str) -> None:
        """Its owner hears of it."""
        async with Runner(journal=path) as runner, Runner(journal=path) as other:
            job = await runner.add_task(wait)
            await until(lambda: seen == ["begun"])
            await other.cancel(job.id)
            with pytest.raises(JobFailed, match="cancelled by request"):
                await job.result(10)
            with pytest.raises(JobFailed, match="cancelled by request"):
                await other.result(job.id, 10)

    async def test_waiting_job_is_cancelled(self, path: str) -> None:
        """One that nobody holds ends at once."""
        async with Runner(journal=path) as runner:
            job = await runner.add_task(note.using(delay=1000), 1)
        async with Runner(journal=path) as runner:
            assert (await runner.cancel(job.id)).status is JobStatus.cancelled

    async def test_pages_of_jobs(self, path: str) -> None:
        """Newest first, with those in memory among them."""

        async def plain() -> None:
            pass

        async with Runner(journal=path) as runner:
            ids = [
                (await runner.add_task(note if n % 2 else plain, *([n] if n % 2 else []))).id
                for n in range(10)
            ]
            await runner.drain(5)
            page = await runner.jobs(limit=4)
            rest = await runner.jobs(limit=100, after=page[-1].id)
            assert [job.id for job in (*page, *rest)] == ids[::-1]
            assert len(await runner.jobs(task=note.name)) == 5
            assert len(await runner.jobs(status="succeeded", task=note.name, limit=2)) == 2

    async def test_purged_jobs_are_forgotten(self, path: str) -> None:
        """And their rows are gone."""
        async with Runner(journal=path) as runner:
            job = await runner.add_task(note, 1)
            await job.result(5)
            assert await runner.purge() == 1
            with pytest.raises(JobNotFound):
                await runner.info(job.id)
        assert rows(path) == []

    async def test_stats_count_the_journal(self, path: str) -> None:
        """What waits in the file is queued."""
        async with Runner(journal=path) as runner:
            for n in range(5):
                await runner.add_task(note.using(delay=1000), n)
            assert runner.stats()["queued"] == 5
        async with Runner(journal=path) as runner:
            assert runner.stats()["queued"] == 5

    async def test_events_of_a_kept_job(self, path: str) -> None:
        """R9: those of any other job."""
        heard: list[JobEvent] = []
        async with Runner(journal=path, on_event=heard.append) as runner:
            await runner.add_task(flaky, 1)
            await runner.drain(5)
        assert [event.name for event in heard] == [
            "queued",
            "started",
            "retrying",
            "started",
            "succeeded",
        ]
        assert all(event.job.durable for event in heard)


class TestArguments:
    """J7; the rest is in `journal/test_codec.py`."""

    async def test_argument_that_cannot_be_kept_is_refused_in_the_endpoint(self, path: str) -> None:
        """Task, argument and type are named, and nothing is left behind."""
        async with Runner(journal=path) as runner:
            with pytest.raises(NotSerializable, match=r"note.*value.*object"):
                await runner.add_task(note, object())  # type: ignore[arg-type]
            assert runner.stats()["queued"] == 0
        assert rows(path) == []

    async def test_too_much_of_it_is_refused(self, path: str) -> None:
        """The limit is the journal's."""

        @task
        async def take(text: str) -> None:
            seen.append(len(text))

        async with Runner(journal=SQLiteJournal(path, max_payload=2_000_000)) as runner:
            await runner.add_task(take, "x" * 1_000_000)
            with pytest.raises(NotSerializable, match="max_payload"):
                await runner.add_task(take, "x" * 3_000_000)
            await runner.drain(5)
        assert seen == [1_000_000]

    async def test_later_changes_of_an_argument_change_nothing(self, path: str) -> None:
        """The job runs with what was journaled."""

        @task
        async def take(items: list[int]) -> None:
            seen.append(items)

        items = [1]
        async with Runner(journal=path) as runner:
            job = await runner.add_task(take.using(delay=0.1), items)
            items.append(2)
            await job.result(5)
        assert seen == [[1]]

    async def test_context_reaches_attempts_in_this_process(self, path: str) -> None:
        """R4."""
        request: ContextVar[str] = ContextVar("request")

        @task
        async def look() -> None:
            seen.append(request.get())

        request.set("r1")
        async with Runner(journal=path) as runner:
            await (await runner.add_task(look)).result(5)
        assert seen == ["r1"]


async def test_request_bound_jobs_are_kept_too(path: str) -> None:
    """R7: without lifespan the journal is opened by the first request."""
    app = BackgroundTaskMiddleware(adding((note, 1)), journal=path)
    await Connection().call(app)
    assert seen == [1]
    await app.runner.aclose()
    assert [status for _, status in rows(path)] == ["succeeded"]


async def test_journal_option_must_be_one() -> None:
    """A slip is told at once."""
    with pytest.raises(TypeError, match="journal must be"):
        Runner(journal=3)  # type: ignore[arg-type]


async def test_a_short_life_runs_what_waits(tmp_path: Path) -> None:
    """J3, R7: a process that ends right after its start, as on AWS Lambda, does its share."""
    ran: list[int] = []

    @task(name="journal:share")
    async def share(number: int) -> None:
        ran.append(number)

    journal = SQLiteJournal(tmp_path / "jobs.db")
    journal.open()
    jobs = [
        NewJob(new_id(number), share.name, f"[[{number}]]", None, 1.0, None, 0, None, None, False)
        for number in (1, 2, 3)
    ]
    journal.commit(Batch(added=jobs))
    journal.close()
    async with Runner(journal=tmp_path / "jobs.db"):
        pass
    assert ran == [1, 2, 3]
