"""Procrastinate, against a real PostgreSQL and its own worker (E1 to E5)."""

from __future__ import annotations

import asyncio
import datetime
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import JobStatus, Runner, task
from asgi_bg._ids import new_id
from asgi_bg._options import Options
from asgi_bg.engines import Message
from asgi_bg.exceptions import EngineError, JobFailed, NotSerializable
from tests.helpers import need, until
from tests.services.postgres import PostgresServer
from tests.services.service import free_port

procrastinate = need("procrastinate")
psycopg = need("psycopg")

from asgi_bg.engines.procrastinate import ProcrastinateEngine  # noqa: E402
from tests.engines import procrastinate_site as site  # noqa: E402

pytestmark = pytest.mark.anyio

DEADLINE = 40.0
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One event loop suffices here: what differs between them is tested with the core."""
    return "asyncio", {}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        assert isinstance(server, PostgresServer)
        app = app_at(server.url)
        with app.open():
            app.schema_manager.apply_schema()
        yield server


def app_at(url: str) -> Any:
    connector = procrastinate.SyncPsycopgConnector(conninfo=url)
    return procrastinate.App(connector=connector)


def async_app(url: str) -> Any:
    """An app with the tests' tasks."""
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, timeout=2.0)
    )
    app.tasks.update(site.app.tasks)
    return app


@pytest.fixture
async def engine(postgres: PostgresServer) -> AsyncIterator[ProcrastinateEngine]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers"
        )
    engine = ProcrastinateEngine(async_app(postgres.url))
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
def rows(postgres: PostgresServer) -> Callable[[str], list[Any]]:
    """Ask the database."""

    def asked(query: str) -> list[Any]:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            return list(connection.execute(query).fetchall())

    return asked


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the tasks have written, in this process and in others."""
    path = tmp_path / "lines"
    path.touch()
    monkeypatch.setenv("ENGINE_LINES", str(path))
    return lambda: path.read_text().splitlines()


@pytest.fixture
def start(postgres: PostgresServer, lines: Any) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start commands that use the tests' database and lines; they are killed in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def starting(*command: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            (sys.executable, "-m", *command),
            cwd=ROOT,
            env={**os.environ, "ENGINE_URL": postgres.url, **environment},
        )
        started.append(process)
        return process

    yield starting
    for process in started:
        process.kill()
        process.wait()


WORKER = (
    *("procrastinate", "--app=tests.engines.procrastinate_site.app", "worker"),
    *("--concurrency", "10", "--fetch-job-polling-interval", "0.2"),
)


def message(name: str = "pro:double", call: str = "[[1]]", **fields: Any) -> Message:
    now = time.time()
    values: dict[str, Any] = {
        "id": new_id(now),
        "task": name,
        "call": call,
        "changes": None,
        "native": None,
        "options": Options(),
        "queued_at": now,
        "run_after": None,
        "priority": 0,
    }
    return Message(**{**values, **fields})


async def test_a_batch_is_there_once(engine: ProcrastinateEngine, rows: Any) -> None:
    """E2: sent again, jobs that wait are acknowledged again, and are not there twice."""
    messages = [message(call=f"[[{number}]]") for number in range(300)]
    assert await engine.send(messages[:200]) == [None] * 200
    assert await engine.send(messages) == [None] * 300
    found = rows("SELECT queueing_lock FROM procrastinate_jobs ORDER BY id")
    assert [lock for (lock,) in found] == [sent.id for sent in messages]


async def test_options_are_columns(
    engine: ProcrastinateEngine, make_runner: Any, rows: Any
) -> None:
    """E3: Procrastinate's own, with the defaults that a task declares."""
    runner: Runner = await make_runner(engine=engine)
    changed = site.double.using(delay=60, priority=7, queue="special", concurrency=1)
    await runner.add_task(changed, 1)
    [(queue, priority, lock, wait)] = rows(
        "SELECT queue_name, priority, lock, extract(epoch FROM scheduled_at - now())::float "
        "FROM procrastinate_jobs"
    )
    assert (queue, priority, lock) == ("special", 7, "pro:double")
    assert 30 < wait < 61


async def test_what_it_lacks_is_refused(engine: ProcrastinateEngine, make_runner: Any) -> None:
    """E5."""
    runner: Runner = await make_runner(engine=engine)
    with pytest.raises(EngineError, match="one at a time"):
        await runner.add_task(site.double.using(concurrency=2), 1)
    with pytest.raises(EngineError, match="32 bits"):
        await runner.add_task(site.double.using(priority=2**40), 1)


async def test_own_tasks_are_native(
    engine: ProcrastinateEngine, make_runner: Any, rows: Any
) -> None:
    """E4: as deferred with its own call, its defaults and what it is configured with."""
    runner: Runner = await make_runner(engine=engine)
    await runner.add_task(site.theirs, number=1, words=["x"])
    at = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)
    configured: Any = site.theirs.configure(queue="q", lock="l", schedule_at=at)
    await runner.add_task(configured, number=2, words=[])
    assert rows(
        "SELECT task_name, queue_name, priority, lock, args, scheduled_at "
        "FROM procrastinate_jobs ORDER BY id"
    ) == [
        ("theirs", "own", 3, None, {"number": 1, "words": ["x"]}, None),
        ("theirs", "q", 3, "l", {"number": 2, "words": []}, at),
    ]
    with pytest.raises(NotSerializable, match="keyword arguments only"):
        await runner.add_task(site.theirs, 1, [])
    with pytest.raises(NotSerializable):
        await runner.add_task(site.theirs, number=at, words=[])  # type: ignore[arg-type]
    locked: Any = site.theirs.configure(queueing_lock="once")
    await runner.add_task(locked, number=3, words=[])
    with pytest.raises(EngineError, match="queueing lock 'once' waits already"):
        await runner.add_task(locked, number=4, words=[])


async def test_refused_among_others(engine: ProcrastinateEngine, rows: Any) -> None:
    """What PostgreSQL cannot keep fails alone, with its reason."""
    messages = [message(), message(call='[["\\u0000"]]', native=None), message()]
    bad = message(
        call='[[],{"words":"\\u0000"}]',
        native={
            "queue": "q",
            "priority": 0,
            "lock": None,
            "queueing_lock": None,
            "scheduled_at": None,
            "task_kwargs": {},
        },
    )
    answers = await engine.send([*messages, bad, message()])
    assert answers[:3] == [None, None, None]
    assert answers[3] is not None
    assert answers[4] is None
    assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 4


async def test_missing_tables_and_servers_are_told(postgres: PostgresServer, rows: Any) -> None:
    """What is wrong is said, and in time."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty")
    engine = ProcrastinateEngine(async_app(postgres.url.removesuffix("postgres") + "empty"))
    with pytest.raises(EngineError, match="schema --apply"):
        await engine.open()
    await engine.close()
    away = ProcrastinateEngine(async_app(f"postgresql://127.0.0.1:{free_port()}/none"))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(away.open(), 1)
    await away.close()
    with pytest.raises(TypeError, match=r"procrastinate\.App"):
        ProcrastinateEngine("app")  # type: ignore[arg-type]


async def test_app_that_its_owner_has_opened_stays_open(postgres: PostgresServer) -> None:
    """It is closed by whoever opened it."""
    app = async_app(postgres.url)
    async with app.open_async():
        engine = ProcrastinateEngine(app)
        await engine.open()
        await engine.close()
        assert await app.check_connection_async()


async def test_tasks_declared_later_are_registered(postgres: PostgresServer) -> None:
    """And one that is declared anew takes its place."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=postgres.url))
    ProcrastinateEngine(app).register()

    for _ in range(2):

        @task(name="pro:later")
        async def later() -> None: ...

    assert "pro:later" in app.tasks
    assert "asgi_bg:retry_stalled" in app.tasks


async def ended(runner: Runner, job: Any) -> JobStatus:
    """Wait for the end of a job, and return how it ended."""
    deadline = time.monotonic() + DEADLINE
    while True:
        info = await runner.info(job.id)
        if info.status.is_final:
            return info.status
        assert time.monotonic() < deadline, info
        await asyncio.sleep(0.05)


class TestWorker:
    """Jobs that Procrastinate's own worker runs."""

    async def test_jobs_of_all_kinds(
        self, engine: ProcrastinateEngine, make_runner: Any, start: Any, lines: Any, rows: Any
    ) -> None:
        """E3, J7: rich arguments, retries, time limits, jobs that add others, unknown tasks."""
        start(*WORKER)
        runner: Runner = await make_runner(engine=engine)
        order = site.Order(1, datetime.datetime.now(datetime.timezone.utc), uuid.uuid4())
        unknown = message("nobody")
        await engine.send([unknown])
        job = await runner.add_task(site.double, 21)
        rich = await runner.add_task(site.in_thread, order)
        retried = await runner.add_task(site.flaky, 2)
        failed = await runner.add_task(site.flaky, 5)
        slow = await runner.add_task(site.slow)
        child = await runner.add_task(site.parent, 77)
        assert await ended(runner, job) is JobStatus.succeeded
        assert await ended(runner, rich) is JobStatus.succeeded
        assert await ended(runner, retried) is JobStatus.succeeded
        assert await ended(runner, failed) is JobStatus.failed
        assert await ended(runner, slow) is JobStatus.failed
        assert await ended(runner, child) is JobStatus.succeeded
        await until(lambda: any("double 77" in line for line in lines()), DEADLINE)
        assert f"double 21 {job.id} 1" in lines()
        assert "in-thread 1 datetime UUID" in lines()
        info = await runner.info(retried.id)
        assert info.attempt == 3
        assert info.started_at is not None
        assert info.finished_at is not None
        with pytest.raises(JobFailed, match="worker's log says why"):
            await failed.result(DEADLINE)
        # It is kept as failed, and has stopped nobody.
        [(status,)] = rows("SELECT status::text FROM procrastinate_jobs WHERE task_name = 'nobody'")
        assert status == "failed"

    async def test_a_killed_worker_s_job_runs_again(
        self,
        engine: ProcrastinateEngine,
        make_runner: Any,
        start: Any,
        lines: Any,
        tmp_path: Path,
    ) -> None:
        """Procrastinate leaves it; the task that `register` adds has it run again."""
        worker = start(*WORKER)
        runner: Runner = await make_runner(engine=engine)
        job = await runner.add_task(site.held, str(tmp_path / "go"))
        await until(lambda: len(lines()) == 1, DEADLINE)
        assert (await runner.info(job.id)).status is JobStatus.running
        assert await engine.retry_stalled() == 0  # it lives
        worker.kill()
        worker.wait()
        (tmp_path / "go").touch()
        assert await engine.retry_stalled(0) == 1
        start(*WORKER)
        assert await ended(runner, job) is JobStatus.succeeded
        assert lines() == [f"held {job.id}", f"held {job.id}", "released"]

    async def test_cancel(
        self, engine: ProcrastinateEngine, make_runner: Any, start: Any, lines: Any
    ) -> None:
        """One that waits never runs; also where another process had handed it over."""
        runner: Runner = await make_runner(engine=engine)
        job = await runner.add_task(site.double, 1)
        engine._numbers.clear()
        assert (await runner.cancel(job.id)).status is JobStatus.cancelled
        assert await engine.cancel("0" * 32) is False
        assert await engine.fetch("0" * 32) is None
        other = await runner.add_task(site.double, 2)
        start(*WORKER)
        assert await ended(runner, other) is JobStatus.succeeded
        assert [line.split()[1] for line in lines()] == ["2"]
        assert await engine.cancel(other.id) is False


@pytest.mark.parametrize("journal", ["jobs.db", ""])
async def test_from_a_request_to_the_worker(
    engine: ProcrastinateEngine, start: Any, lines: Any, tmp_path: Path, journal: str
) -> None:
    """E1: an app and a worker, two commands; with a journal and without."""
    httpx = need("httpx")
    port = free_port()
    start(
        "uvicorn",
        "tests.engines.procrastinate_site:asgi",
        *("--port", str(port), "--log-level", "error"),
        ENGINE_JOURNAL=str(tmp_path / journal) if journal else "",
    )
    start(*WORKER)
    ids: list[str] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as client:

        async def request(number: int) -> str:
            response = await client.get(f"/{number}")
            assert response.status_code == 202
            return str(response.text)

        deadline = time.monotonic() + DEADLINE
        while not ids:
            try:
                ids.append(await request(0))
            except httpx.TransportError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        ids += await asyncio.gather(*(request(number) for number in range(1, 10)))
    await until(lambda: len(lines()) == 20, DEADLINE)
    assert sorted(line.split()[2] for line in lines() if line.startswith("double")) == sorted(ids)
    assert sum(line.startswith("theirs") for line in lines()) == 10


async def test_consume(postgres: PostgresServer, engine: Any, make_runner: Any, lines: Any) -> None:
    """The app's own process works the queue."""
    both = ProcrastinateEngine(async_app(postgres.url), consume=True)
    runner: Runner = await make_runner(engine=both)
    jobs = [await runner.add_task(site.double, number) for number in range(5)]
    retried = await runner.add_task(site.flaky, 1)
    for job in (*jobs, retried):
        assert await ended(runner, job) is JobStatus.succeeded
    assert sorted(line.split()[1] for line in lines()) == ["0", "1", "1", "2", "2", "3", "4"]


async def test_consume_drains_at_shutdown(
    postgres: PostgresServer, engine: ProcrastinateEngine, lines: Any, tmp_path: Path
) -> None:
    """R6: what was begun ends."""
    both = ProcrastinateEngine(async_app(postgres.url), consume=True)
    runner = Runner(engine=both, drain_timeout=20)
    await runner.start()
    job = await runner.add_task(site.held, str(tmp_path / "go"))
    await until(lambda: len(lines()) == 1, DEADLINE)
    closing = asyncio.ensure_future(runner.aclose())
    await asyncio.sleep(0.3)
    assert not closing.done()
    (tmp_path / "go").touch()
    await closing
    assert lines()[-1] == "released"
    report = await engine.fetch(job.id)
    assert report is not None
    assert report.status is JobStatus.succeeded
