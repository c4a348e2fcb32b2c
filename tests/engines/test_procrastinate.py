"""Procrastinate, against a real PostgreSQL and its own worker (E1 to E5)."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
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
psycopg_pool = need("psycopg_pool")

from asgi_bg.engines import _procrastinate_worker as worker_side  # noqa: E402
from asgi_bg.engines._procrastinate_line import Opening  # noqa: E402
from asgi_bg.engines._procrastinate_notes import Notes, Outcome  # noqa: E402
from asgi_bg.engines._procrastinate_rescue import patience_of, revive  # noqa: E402
from asgi_bg.engines.procrastinate import ProcrastinateEngine  # noqa: E402
from tests.engines import procrastinate_site as site  # noqa: E402

pytestmark = pytest.mark.anyio

DEADLINE = 60.0
ROOT = Path(__file__).parent.parent.parent
IN_2100 = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)
BOTH_LOOPS = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]
)

Rows = Callable[..., list[Any]]
Lines = Callable[[], list[str]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One event loop suffices for most: what differs between them is tested with the core."""
    return "asyncio", {}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        assert isinstance(server, PostgresServer)
        make_tables(server.url)
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """One that may be broken."""
    with PostgresServer(tmp_path / "postgres") as server:
        assert isinstance(server, PostgresServer)
        make_tables(server.url)
        yield server


def make_tables(url: str) -> None:
    connector = procrastinate.SyncPsycopgConnector(conninfo=url)
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()


def connector_to(url: str, **options: Any) -> Any:
    return procrastinate.PsycopgConnector(conninfo=url, min_size=1, timeout=2.0, **options)


def app_at(url: str, **options: Any) -> Any:
    return procrastinate.App(connector=connector_to(url, **options))


@pytest.fixture
def app(postgres: PostgresServer) -> Iterator[Any]:
    """The app of the site, and no jobs."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers"
        )
    with site.app.replace_connector(connector_to(postgres.url)) as replaced:
        yield replaced


@pytest.fixture
async def engine(app: Any) -> AsyncIterator[ProcrastinateEngine]:
    engine = ProcrastinateEngine(app)
    yield engine
    await engine.close()


@pytest.fixture
def rows(postgres: PostgresServer) -> Rows:
    """Ask the database."""

    def asked(query: str, *values: Any) -> list[Any]:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            cursor = connection.execute(query, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    return asked


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What the tasks have written, in this process and in others."""
    path = tmp_path / "lines"
    path.touch()
    monkeypatch.setenv("ENGINE_LINES", str(path))
    return lambda: path.read_text().splitlines()


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(postgres: PostgresServer, lines: Lines, tmp_path: Path) -> Iterator[Start]:
    """Start commands that use the tests' database and lines; they are killed in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def starting(*command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                (sys.executable, *command),
                cwd=ROOT,
                env={**os.environ, "ENGINE_URL": postgres.url, **environment},
                stderr=log,
            )
        started.append(process)
        return process

    yield starting
    for process in started:
        process.kill()
        process.wait()


WORKER = (
    *("-m", "procrastinate", "--app=tests.engines.procrastinate_site.app", "worker"),
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


def native_message(engine: ProcrastinateEngine, func: Any, **kwargs: Any) -> Message:
    native = engine.native(func)
    assert native is not None
    call = engine.encode_native(native.name, (), kwargs)
    return message(native.name, call, native=json.loads(json.dumps(native.options)))


COLUMNS = "queue_name, task_name, priority, lock, args, status::text, scheduled_at, attempts"

# Sending.


async def test_a_batch_arrives_in_its_order(engine: ProcrastinateEngine, rows: Rows) -> None:
    """E2: each job under its own id, and with one argument."""
    messages = [message(call=f"[[{number}]]") for number in range(500)]
    assert await engine.send([]) == []
    assert await engine.send(messages) == [None] * 500
    assert rows("SELECT queueing_lock, args FROM procrastinate_jobs ORDER BY id") == [
        (sent.id, {"envelope": sent.envelope}) for sent in messages
    ]
    assert rows(f"SELECT DISTINCT {COLUMNS.replace('args, ', '')} FROM procrastinate_jobs") == [
        ("default", "pro:double", 0, None, "todo", None, 0)
    ]


async def test_jobs_sent_again_are_there_once(engine: ProcrastinateEngine, rows: Rows) -> None:
    """E2: whether they wait, run or have just ended; all are acknowledged again."""
    messages = [message(call=f"[[{number}]]") for number in range(100)]
    assert await engine.send(messages[:80]) == [None] * 80
    assert await engine.send([*messages[:90], messages[85]]) == [None] * 91  # as they wait
    rows("UPDATE procrastinate_jobs SET status = 'doing' WHERE id % 3 = 0")
    rows("UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id % 3 = 1")
    await engine.close()  # so it was not sure that they had arrived
    assert await engine.send(messages) == [None] * 100
    found = rows("SELECT queueing_lock FROM procrastinate_jobs ORDER BY id")
    assert [lock for (lock,) in found] == [sent.id for sent in messages]


async def test_jobs_of_a_process_that_died_are_there_once(app: Any, rows: Rows) -> None:
    """E2: another one does not know what was sent; it sees by its age that a job may have been."""
    old = message(queued_at=time.time() - 1)
    for _ in range(2):
        engine = ProcrastinateEngine(app)
        engine._sender.broken_at = 0.0
        assert await engine.send([old]) == [None]
        await engine.close()
        rows("UPDATE procrastinate_jobs SET status = 'succeeded'")
    assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 1


async def test_options_are_columns(
    engine: ProcrastinateEngine, make_runner: Any, rows: Rows
) -> None:
    """E3."""
    runner: Runner = await make_runner(engine=engine)
    await runner.add_task(site.double.using(delay=60, priority=-7, queue="special"), 1)
    await runner.add_task(site.double.using(run_at=IN_2100), 1)
    await runner.add_task(site.one_at_a_time, 1)
    found = rows(
        "SELECT queue_name, priority, lock, extract(epoch FROM scheduled_at - now())::float "
        "FROM procrastinate_jobs ORDER BY id"
    )
    (queue, priority, lock, wait), (_, _, _, long), (*_, one, never) = found
    assert (queue, priority, lock) == ("special", -7, None)
    assert 30 < wait < 61
    assert abs(time.time() + long - IN_2100.timestamp()) < 30
    assert (one, never) == ("pro:one-at-a-time", None)


async def test_one_that_postgresql_cannot_keep_is_refused_alone(
    engine: ProcrastinateEngine, rows: Rows
) -> None:
    """Ours can hold a NUL, as their arguments travel as text; JSON of PostgreSQL's cannot."""
    fine = [message(call='[["\\u0000"]]') for _ in range(9)]
    bad = native_message(engine, site.theirs, number=1, words=["\0"])
    answers = await engine.send([*fine[:4], bad, *fine[4:]])
    assert str(answers[4]).startswith("PostgreSQL cannot keep it: unsupported Unicode escape")
    assert [*answers[:4], *answers[5:]] == [None] * 9
    assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 9


async def test_what_may_be_better_next_time_is_raised(
    engine: ProcrastinateEngine, rows: Rows
) -> None:
    """A constraint of the user's own is no reason to give a job up; those before it are there."""
    rows("ALTER TABLE procrastinate_jobs ADD CONSTRAINT own CHECK (task_name <> 'forbidden')")
    try:
        with pytest.raises(psycopg.errors.CheckViolation):
            await engine.send([message(), message("forbidden"), message()])
    finally:
        rows("ALTER TABLE procrastinate_jobs DROP CONSTRAINT own")
    assert rows("SELECT task_name FROM procrastinate_jobs") == [("pro:double",)]
    assert await engine.send([message()]) == [None]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"concurrency": 2}, "one at a time or without a bound"),
        ({"concurrency": 1, "delay": 5.0}, "all others would wait for that one"),
        ({"concurrency": 1, "run_at": IN_2100}, "all others would wait for that one"),
        ({"priority": 2**31}, "asks for priority=2147483648, and Procrastinate takes"),
        ({"priority": -(2**31) - 1}, "asks for priority=-2147483649"),
        ({"queue": ""}, "asks for queue=''"),
        ({"queue": "q" * 41}, "have 1 to 40 bytes"),
        ({"queue": "\0"}, "no NUL characters"),
        ({"delay": 1e12}, "after the year 9999"),
        ({"name": "pro:" + "n" * 125}, "128 characters at most"),
    ],
)
async def test_what_it_lacks_is_refused(
    engine: ProcrastinateEngine, make_runner: Any, options: Any, error: str
) -> None:
    """E5."""
    runner: Runner = await make_runner(engine=engine)
    engine.check(site.double)
    with pytest.raises(EngineError, match=error):
        await runner.add_task(site.double.using(**options), 1)


async def test_longest_names_and_largest_numbers_are_taken(
    engine: ProcrastinateEngine, rows: Rows
) -> None:
    """What `check` lets through, PostgreSQL keeps; a longer queue's name it does not announce."""
    longest = site.double.using(queue="q" * 40, priority=2**31 - 1, name="n" * 128)
    engine.check(longest)
    sent = message(longest.name, options=longest.options, priority=2**31 - 1)
    assert await engine.send([sent]) == [None]
    longer = message(options=Options(queue="q" * 41))
    assert "channel name too long" in str((await engine.send([longer]))[0])
    assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 1


# Tasks of its own.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queue": "q", "lock": "l", "priority": -2},
        {"schedule_at": IN_2100},
        {"task_kwargs": {"number": 7, "words": ["of the task"]}},
    ],
)
async def test_own_task_arrives_as_it_defers_itself(
    app: Any, engine: ProcrastinateEngine, make_runner: Any, rows: Rows, options: Any
) -> None:
    """E4: the same row, but for the lock that holds the job's id."""
    runner: Runner = await make_runner(engine=engine)
    kwargs: Any = {"words": ["x", "ü"], **({} if "task_kwargs" in options else {"number": 1})}
    func: Any = site.theirs.configure(**options) if options else site.theirs
    async with app.open_async():
        await func.defer_async(**kwargs)
    job = await runner.add_task(func, **kwargs)
    theirs, ours = rows(f"SELECT {COLUMNS} FROM procrastinate_jobs ORDER BY id")
    assert ours == theirs
    assert rows("SELECT queueing_lock FROM procrastinate_jobs ORDER BY id") == [(None,), (job.id,)]


async def test_own_queueing_lock_that_is_taken_is_a_reason(
    engine: ProcrastinateEngine, make_runner: Any, rows: Rows
) -> None:
    """Unless it is the job itself that has it, sent before and not acknowledged."""
    runner: Runner = await make_runner(engine=engine)
    locked: Any = site.theirs.configure(queueing_lock="once")
    await runner.add_task(locked, number=3, words=[])
    with pytest.raises(EngineError, match="queueing lock 'once' waits already"):
        await runner.add_task(locked, number=3, words=[])
    same = native_message(engine, locked, number=3, words=[])
    other = native_message(engine, locked, number=4, words=[])
    await engine.close()
    reason = "a job with the queueing lock 'once' waits already"
    assert await engine.send([same, other]) == [None, reason]
    assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 1


async def test_own_tasks_that_cannot_be_deferred_here_are_refused(
    app: Any, engine: ProcrastinateEngine, make_runner: Any
) -> None:
    """E4: when they are added, with the reason."""
    runner: Runner = await make_runner(engine=engine)
    blueprint = procrastinate.Blueprint()

    @blueprint.task(name="loose")
    async def loose() -> None: ...

    other = app_at("postgresql://127.0.0.1:1/other")

    @other.task(name="elsewhere")
    async def elsewhere() -> None: ...

    refused: list[tuple[Any, str]] = [
        (loose, "of a blueprint that no app has"),
        (elsewhere, "of another app than the engine's"),
        (elsewhere.configure(queue="q"), "of another app than the engine's"),
        (site.theirs.configure(queue="q" * 41), "have 1 to 40 bytes"),
        (site.theirs.configure(priority=2**31), "asks for priority=2147483648"),
        (site.theirs.configure(lock="l" * 2001), "2000 bytes at most"),
        (site.theirs.configure(queueing_lock="\0"), "without NUL characters"),
        (app.configure_task("n" * 129), "128 characters at most"),
    ]
    if hasattr(site.theirs.configure(), "connection"):
        refused.append((site.theirs.configure(connection=object()), "leave connection= out"))
    for func, error in refused:
        with pytest.raises(EngineError, match=error):
            await runner.add_task(func)
    with pytest.raises(NotSerializable, match="keyword arguments only"):
        await runner.add_task(site.theirs, 1, [])
    with pytest.raises(NotSerializable, match="are not plain JSON|come back changed"):
        await runner.add_task(site.theirs, number=IN_2100, words=[])  # type: ignore[arg-type]
    with pytest.raises(NotSerializable):
        await runner.add_task(site.theirs.configure(task_kwargs={"number": {1, 2}}))
    assert engine.native(site.double) is None
    assert engine.native(print) is None


# Where it connects to.


async def test_app_stays_as_it_is(app: Any, engine: ProcrastinateEngine) -> None:
    """It is neither opened nor closed; one that is open stays so, whatever becomes of ours."""
    await engine.open()
    assert await engine.send([message()]) == [None]
    await engine.close()
    assert app.connector._async_pool is None
    async with app.open_async():
        await engine.open()
        assert await engine.send([message()]) == [None]
        await engine.close()
        assert await app.check_connection_async()


async def test_settings_of_the_connector_count(app: Any, rows: Rows, postgres: Any) -> None:
    """How connections are made and set up, and how values become JSON."""
    told: list[str] = []

    async def configure(connection: Any) -> None:
        told.append("configured")
        await connection.execute("SET application_name = 'of the connector'")

    def dumps(value: Any) -> str:
        told.append("dumped")
        return json.dumps(value)

    where = {"host": "127.0.0.1", "port": postgres.port, "user": "postgres", "dbname": "postgres"}
    connector = connector_to("", json_dumps=dumps, configure=configure, kwargs=where)
    with app.replace_connector(connector):
        engine = ProcrastinateEngine(app)
        assert await engine.send([message()]) == [None]
        names = rows("SELECT application_name FROM pg_stat_activity WHERE application_name <> ''")
        await engine.close()
    assert told == ["configured", "dumped"]
    assert names == [("of the connector",)]
    assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 1


async def test_pool_of_the_user_lends_its_address(app: Any, postgres: PostgresServer) -> None:
    """The app may have been opened with a pool, and its own connector know nothing."""
    pool = psycopg_pool.AsyncConnectionPool(postgres.url, open=False, min_size=1)
    with app.replace_connector(procrastinate.PsycopgConnector()):
        async with pool:
            async with app.open_async(pool):
                engine = ProcrastinateEngine(app)
                assert await engine.send([message()]) == [None]
                await engine.close()


async def test_address_may_be_a_function(app: Any, postgres: PostgresServer) -> None:
    """Such as one that asks for a fresh password."""

    async def address() -> str:
        return postgres.url

    with app.replace_connector(connector_to(address)):  # type: ignore[arg-type]
        engine = ProcrastinateEngine(app)
        assert await engine.send([message()]) == [None]
        await engine.close()


async def test_setup_that_fails_leaves_no_connection(app: Any, postgres: PostgresServer) -> None:
    async def configure(connection: Any) -> None:
        raise RuntimeError("no such setting")

    with app.replace_connector(connector_to(postgres.url, configure=configure)):
        engine = ProcrastinateEngine(app)
        with pytest.raises(RuntimeError, match="no such setting"):
            await engine.send([message()])
        await engine.close()


async def test_missing_tables_and_servers_are_told(postgres: PostgresServer) -> None:
    """What is wrong is said, and in time."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty")
    url = postgres.url.removesuffix("postgres") + "empty"
    engine = ProcrastinateEngine(app_at(url))
    with pytest.raises(EngineError, match="schema --apply"):
        await engine.open()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE procrastinate_jobs ()")
    with pytest.raises(EngineError, match="tables of an older Procrastinate"):
        await engine.open()
    await engine.close()
    away = ProcrastinateEngine(app_at(f"postgresql://127.0.0.1:{free_port()}/none"))
    with pytest.raises(psycopg.OperationalError, match="onnection refused"):
        await away.open()
    await away.close()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"app": "app"}, "app must be a procrastinate.App"),
        ({"consume": 1}, "consume must be True or False"),
        ({"timeout": 0}, "timeout must be more than 0"),
    ],
)
def test_constructor_says_what_does_not_fit(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        ProcrastinateEngine(**{"app": site.app, **options})


def test_connector_without_asyncio_does_not_fit() -> None:
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())
    with pytest.raises(TypeError, match="must be a procrastinate.PsycopgConnector"):
        ProcrastinateEngine(app)


# When PostgreSQL is away.


@BOTH_LOOPS
async def test_frozen_server_holds_nobody_up(own_postgres: PostgresServer) -> None:
    """E1: a send ends with its time limit, and leaves nothing behind that would disturb."""
    engine = ProcrastinateEngine(app_at(own_postgres.url))
    await engine.open()
    assert await engine.fetch(new_id(time.time())) is None
    first = [message() for _ in range(100)]
    own_postgres.freeze()
    try:
        for call in (engine.send(first), engine.fetch(first[0].id), engine.open()):
            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call, 0.3)
            await engine.close()
            assert time.monotonic() - began < 2.0
    finally:
        own_postgres.thaw()
    await engine.open()
    assert await engine.send([*first, message()]) == [None] * 101
    assert await engine.fetch(first[0].id) is not None
    await engine.close()
    with psycopg.connect(own_postgres.url) as connection:
        found = connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone()
        assert found == (101,)


@BOTH_LOOPS
async def test_connection_that_was_cut_is_made_anew(
    engine: ProcrastinateEngine, rows: Rows
) -> None:
    """Nobody has to wait for a failure to find it out."""
    assert await engine.send([message()]) == [None]
    assert await engine.fetch(new_id(time.time())) is None
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    assert len(rows(f"{cut} AND backend_type = 'client backend'")) == 2
    await asyncio.sleep(0.1)  # until the network has told
    assert await engine.fetch(new_id(time.time())) is None
    assert await engine.send([message()]) == [None]


async def test_connection_that_breaks_under_way_is_told(
    engine: ProcrastinateEngine, rows: Rows, postgres: PostgresServer
) -> None:
    """And the next call makes another one."""
    with psycopg.connect(postgres.url) as connection:
        connection.execute("LOCK TABLE procrastinate_jobs")
        sending = asyncio.ensure_future(engine.send([message()]))
        blocked = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = %s"
        await until(lambda: rows(blocked, "relation"), DEADLINE)
        with pytest.raises(psycopg.OperationalError):
            await sending
    assert await engine.send([message()]) == [None]


@BOTH_LOOPS
async def test_closing_ends_calls_under_way(
    engine: ProcrastinateEngine, rows: Rows, postgres: PostgresServer
) -> None:
    """They do not wait for an answer that nobody wants."""
    assert await engine.send([message()]) == [None]
    with psycopg.connect(postgres.url) as connection:
        connection.execute("LOCK TABLE procrastinate_jobs")
        sending = [asyncio.ensure_future(engine.send([message()])) for _ in range(2)]
        blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'relation'"
        await until(lambda: rows(blocked), DEADLINE)
        await engine.close()
        for call in sending:
            with pytest.raises(psycopg.OperationalError):
                await asyncio.wait_for(call, DEADLINE)
    assert await engine.send([message()]) == [None]


async def test_calls_at_the_same_time_share_a_connection(
    engine: ProcrastinateEngine, rows: Rows
) -> None:
    sent = [message() for _ in range(10)]
    assert await asyncio.gather(*(engine.send([each]) for each in sent)) == [[None]] * 10
    reports = await asyncio.gather(*(engine.fetch(each.id) for each in sent))
    assert [report is not None for report in reports] == [True] * 10
    others = (
        "SELECT 1 FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    await until(lambda: len(rows(others)) == 2, DEADLINE)


def test_engine_goes_from_one_loop_to_the_next(app: Any, rows: Rows) -> None:
    """As with test clients; what the first one has left open is closed."""
    engine = ProcrastinateEngine(app)
    for _ in range(2):
        assert asyncio.run(_send_one(engine)) == [None]
    asyncio.run(engine.close())
    assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 2


async def _send_one(engine: ProcrastinateEngine) -> Any:
    await engine.open()
    return await engine.send([message()])


# Following up.


async def ended(runner: Runner, job: Any) -> JobStatus:
    """Wait for the end of a job, and return how it ended."""
    deadline = time.monotonic() + DEADLINE
    while True:
        info = await runner.info(job.id)
        if info.status.is_final:
            return info.status
        assert time.monotonic() < deadline, info
        await asyncio.sleep(0.05)


async def test_report_says_how_a_job_stands(engine: ProcrastinateEngine, rows: Rows) -> None:
    """E5: by Procrastinate's words, also where another process had handed it over."""
    sent = message()
    await engine.send([sent])
    own = native_message(engine, site.theirs, number=1, words=[])
    await engine.send([own])
    for word, status, error in (
        ("todo", JobStatus.queued, None),
        ("doing", JobStatus.running, None),
        ("failed", JobStatus.failed, "it failed in a worker, and the worker's log says why"),
        ("succeeded", JobStatus.succeeded, None),
        ("aborted", JobStatus.cancelled, "aborted in a worker"),
        ("cancelled", JobStatus.cancelled, "cancelled"),
    ):
        rows("UPDATE procrastinate_jobs SET status = %s::procrastinate_job_status", word)
        for job in (sent, own):
            engine._numbers.known.clear()
            report = await engine.fetch(job.id)
            assert report is not None
            assert (report.status, report.error, report.task) == (status, error, job.task)
            assert (report.started_at is None) == (word == "todo")
            assert (report.finished_at is None) == (word in ("todo", "doing"))
    rows("DELETE FROM procrastinate_jobs")  # as with --delete-jobs
    assert await engine.fetch(sent.id) is None
    engine._numbers.known.clear()
    assert await engine.fetch(sent.id) is None
    assert await engine.fetch("no id of ours") is None


async def test_notes_that_are_none_are_not_read(engine: ProcrastinateEngine, rows: Rows) -> None:
    """An argument of somebody's may have any name."""
    sent = message()
    await engine.send([sent])
    for notes in ({"interruptions": "many"}, {"interruptions": 0, "outcome": "not JSON"}):
        rows(
            "UPDATE procrastinate_jobs SET status = 'succeeded', args = args || %s::jsonb",
            json.dumps(notes),
        )
        report = await engine.fetch(sent.id)
        assert report is not None
        assert (report.status, report.result) == (JobStatus.succeeded, None)


async def test_numbers_of_jobs_are_not_remembered_for_ever(
    engine: ProcrastinateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_bg.engines._procrastinate_numbers.KNOWN", 3)
    await engine.send([message() for _ in range(5)])
    assert len(engine._numbers.known) == 3


async def test_job_that_waits_is_cancelled(engine: ProcrastinateEngine, rows: Rows) -> None:
    """E5: and one that runs, or is unknown, is not."""
    waits, runs = message(), message()
    await engine.send([waits, runs])
    rows("UPDATE procrastinate_jobs SET status = 'doing' WHERE queueing_lock = %s", runs.id)
    engine._numbers.known.clear()
    assert await engine.cancel(waits.id) is True
    assert await engine.cancel(runs.id) is False
    assert await engine.cancel(new_id(time.time())) is False
    assert rows("SELECT status::text FROM procrastinate_jobs ORDER BY id") == [
        ("cancelled",),
        ("doing",),
    ]


# Registering.


def test_tasks_declared_later_are_registered() -> None:
    """And one that is declared anew takes its place."""
    app = app_at("postgresql://127.0.0.1:1/none")
    engine = ProcrastinateEngine(app)
    engine.register()
    engine.register()

    for _ in range(2):

        @task(name="pro:later", queue="q", priority=5, concurrency=1)
        async def later() -> None: ...

    made = app.tasks["pro:later"]
    assert (made.queue, made.priority, made.lock) == ("q", 5, "pro:later")
    assert app.tasks["asgi_bg:retry_stalled"].queue == "default"


def test_some_tasks_are_registered() -> None:
    app = app_at("postgresql://127.0.0.1:1/none")
    ProcrastinateEngine(app).register(site.double, retry_stalled="worked")
    assert {name for name in app.tasks if name.startswith("pro:")} == {"pro:double"}
    assert app.tasks["asgi_bg:retry_stalled"].queue == "worked"
    other = app_at("postgresql://127.0.0.1:1/none")
    ProcrastinateEngine(other).register(site.double, retry_stalled=False)
    assert "asgi_bg:retry_stalled" not in other.tasks
    with pytest.raises(TypeError, match="declared with @task, got <built-in"):
        ProcrastinateEngine(other).register(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="plain functions of one event"):
        ProcrastinateEngine(other).register(on_event=asyncio.sleep)
    assert "pro:echo" not in other.tasks


def test_own_task_of_the_same_name_is_not_replaced() -> None:
    app = app_at("postgresql://127.0.0.1:1/none")

    @app.task(name="pro:double")
    async def own() -> None: ...

    with pytest.raises(EngineError, match="a task of Procrastinate's own called 'pro:double'"):
        ProcrastinateEngine(app).register(site.double)
    assert app.tasks["pro:double"] is own


@pytest.mark.parametrize(
    ("defaults", "seconds"),
    [
        ({}, 30.0),
        ({"stalled_worker_timeout": 50.0}, 50.0),
        ({"update_heartbeat_interval": 20.0}, 60.0),
    ],
)
def test_workers_that_rarely_show_life_are_given_time(
    defaults: dict[str, Any], seconds: float
) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(), worker_defaults=defaults)
    assert patience_of(app) == seconds


# Procrastinate's own worker.


async def test_jobs_of_all_kinds(
    engine: ProcrastinateEngine, make_runner: Any, start: Start, lines: Lines, rows: Rows
) -> None:
    """E3, J7: rich arguments, retries, time limits, jobs that add others, unknown tasks."""
    start(*WORKER)
    runner: Runner = await make_runner(engine=engine)
    order = site.Order(1, datetime.datetime.now(datetime.timezone.utc), uuid.uuid4())
    await engine.send([message("nobody"), message("pro:declared-later", "[[]]")])
    job = await runner.add_task(site.double, 21)
    rich = await runner.add_task(site.in_thread, order)
    text = await runner.add_task(site.echo, "\0 ü \\u0000")
    retried = await runner.add_task(site.flaky, 2)
    failed = await runner.add_task(site.flaky, 5)
    slow = await runner.add_task(site.slow)
    child = await runner.add_task(site.parent, 77)
    for good in (job, rich, text, retried, child):
        assert await ended(runner, good) is JobStatus.succeeded
    for bad in (failed, slow):
        assert await ended(runner, bad) is JobStatus.failed
    await until(lambda: any("double 77" in line for line in lines()), DEADLINE)
    assert "declared-later" in lines()
    assert f"double 21 {job.id} 1" in lines()
    assert "in-thread 1 datetime UUID" in lines()
    info = await runner.info(retried.id)
    assert info.attempt == 3
    assert info.started_at is not None
    assert info.finished_at is not None
    assert info.finished_at >= info.started_at
    # What has ended is told whole.
    assert await job.result(DEADLINE) == 42
    assert await rich.result(DEADLINE) == order
    assert await text.result(DEADLINE) == "\0 ü \\u0000"
    with pytest.raises(JobFailed, match="ValueError: attempt 3: \0"):
        await failed.result(DEADLINE)
    report = await engine.fetch(failed.id)
    assert report is not None
    assert report.traceback is not None
    assert report.traceback.rstrip().endswith("\\udcff")
    with pytest.raises(JobFailed, match="took longer than 0.3 seconds"):
        await slow.result(DEADLINE)
    # An unknown one is kept as failed, and has stopped nobody.
    [(status,)] = rows("SELECT status::text FROM procrastinate_jobs WHERE task_name = 'nobody'")
    assert status == "failed"


async def test_job_that_somebody_else_defers_by_its_name(
    app: Any, start: Start, lines: Lines, rows: Rows
) -> None:
    """As with Procrastinate's command, or from another language."""
    start(*WORKER)
    async with app.open_async():
        await app.configure_task("pro:double").defer_async(number=4)
    await until(lambda: len(lines()) == 1, DEADLINE)
    [(number,)] = rows("SELECT id FROM procrastinate_jobs WHERE task_name = 'pro:double'")
    assert lines() == [f"double 4 {number} 1"]


async def test_jobs_one_at_a_time(
    engine: ProcrastinateEngine, make_runner: Any, start: Start, lines: Lines
) -> None:
    """E5: ``concurrency=1`` holds over all workers."""
    start(*WORKER)
    start(*WORKER)
    runner: Runner = await make_runner(engine=engine)
    for number in range(5):
        await runner.add_task(site.one_at_a_time, number)
    await until(lambda: len(lines()) == 10, DEADLINE)
    assert lines() == [f"{word} {number}" for number in range(5) for word in ("begin", "end")]


async def test_a_killed_worker_s_job_runs_again(
    engine: ProcrastinateEngine,
    make_runner: Any,
    start: Start,
    lines: Lines,
    rows: Rows,
    tmp_path: Path,
) -> None:
    """Procrastinate leaves it; ours see to it, and that costs the task no attempt."""
    worker = start(*WORKER)
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(site.waiting, str(tmp_path / "go"))
    await until(lambda: len(lines()) == 1, DEADLINE)
    assert (await runner.info(job.id)).status is JobStatus.running
    later: Any = site.theirs.configure(schedule_at=IN_2100)
    await engine.send([native_message(engine, later, number=1, words=[])])
    assert await engine.retry_stalled() == 0  # it lives
    worker.kill()
    worker.wait()
    # Not ours to repeat, whatever became of it.
    rows("UPDATE procrastinate_jobs SET status = 'doing' WHERE task_name = 'theirs'")
    assert await engine.retry_stalled(0) == 1
    assert await engine.retry_stalled(0) == 0
    (tmp_path / "go").touch()
    start(*WORKER)
    assert await job.result(DEADLINE) == "done"
    assert lines() == [f"waiting {job.id} {attempt}" for attempt in (1, 1, 2)]
    assert (await runner.info(job.id)).attempt == 2


async def test_job_that_kills_its_workers_is_given_up(
    engine: ProcrastinateEngine, make_runner: Any, start: Start, lines: Lines
) -> None:
    """J5: after the third one."""
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(site.deadly)
    for number in range(3):
        assert start(*WORKER).wait(DEADLINE) == 7
        assert await engine.retry_stalled(0) == (number < 2)
    with pytest.raises(JobFailed, match="the workers that ran it died 3 times"):
        await job.result(DEADLINE)
    assert lines() == ["deadly 1"] * 3


async def test_job_that_another_worker_has_already_is_left_alone(
    engine: ProcrastinateEngine, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """Who looks at the same time, or noted something late, comes to nothing."""
    app = engine._app
    await engine.send([message()])
    rows("UPDATE procrastinate_jobs SET status = 'doing'")
    async with app.open_async():
        manager = app.job_manager
        [stalled] = await manager.get_stalled_jobs()
        assert await revive(manager, stalled) is True
        assert await revive(manager, stalled) is False
        rows("UPDATE procrastinate_jobs SET status = 'doing'")
        assert await revive(manager, stalled) is False
        # One that was sent twice after all waits in its place.
        [again] = await manager.get_stalled_jobs()
        await engine.send([message(id=again.queueing_lock)])
        assert len(rows("SELECT 1 FROM procrastinate_jobs")) == 2
        assert await revive(manager, again) is False
    assert "is left as it is" in caplog.text


async def test_look_for_stalled_jobs_leaves_no_rows_behind(
    app: Any, engine: ProcrastinateEngine, make_runner: Any, rows: Rows, lines: Lines
) -> None:
    """It is a job itself, every minute; only the last one of a worker stays."""
    engine._worker.performer = await make_runner(engine=engine)
    app.tasks.pop("asgi_bg:retry_stalled")
    app.periodic_registry.periodic_tasks.clear()
    engine.register()
    app.periodic_registry.periodic_tasks.clear()  # the minutes pass by hand
    stalled = message()
    await engine.send([stalled])
    rows("UPDATE procrastinate_jobs SET status = 'doing'")
    look = app.tasks["asgi_bg:retry_stalled"]
    async with app.open_async():
        for _ in range(3):
            await look.defer_async(timestamp=1)
            await app.run_worker_async(wait=False, listen_notify=False)
    assert lines() == [f"double 1 {stalled.id} 1"]
    assert rows("SELECT task_name, status::text FROM procrastinate_jobs ORDER BY id") == [
        ("pro:double", "succeeded"),
        ("asgi_bg:retry_stalled", "succeeded"),
    ]


@pytest.mark.parametrize("name", ["waiting", "held"])
async def test_worker_that_is_shut_down_gives_its_jobs_back(
    engine: ProcrastinateEngine,
    make_runner: Any,
    start: Start,
    lines: Lines,
    tmp_path: Path,
    name: str,
) -> None:
    """In good order, which costs the task no attempt either, and leaves nothing open."""
    worker = start("-X", "dev", *WORKER, "--shutdown-graceful-timeout", "0.2")
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(getattr(site, name), str(tmp_path / "go"))
    await until(lambda: len(lines()) == 1, DEADLINE)
    worker.send_signal(signal.SIGTERM)
    if name == "held":  # a thread cannot be stopped
        await until(lambda: "may go on" in (tmp_path / "log").read_text(), DEADLINE)
        (tmp_path / "go").touch()
    assert worker.wait(DEADLINE) == 0
    log = (tmp_path / "log").read_text()
    for word in ("ResourceWarning", "was never", "was destroyed", "unhandled"):
        assert word not in log, log
    (tmp_path / "go").touch()
    assert (await runner.info(job.id)).status is JobStatus.queued
    start(*WORKER)
    assert await ended(runner, job) is JobStatus.succeeded
    assert f"{name} {job.id} 1" in lines()[1:]


async def test_job_that_is_aborted_is_not_run_again(
    app: Any,
    engine: ProcrastinateEngine,
    make_runner: Any,
    start: Start,
    lines: Lines,
    tmp_path: Path,
) -> None:
    """With Procrastinate's own means."""
    start(*WORKER)
    runner: Runner = await make_runner(engine=engine)
    job = await runner.add_task(site.waiting, str(tmp_path / "go"))
    await until(lambda: len(lines()) == 1, DEADLINE)
    async with app.open_async():
        number = engine._numbers.known[job.id]
        assert await app.job_manager.cancel_job_by_id_async(number, abort=True)
    assert await ended(runner, job) is JobStatus.cancelled
    assert len(lines()) == 1


async def test_outcome_that_cannot_be_noted_stops_nobody(
    engine: ProcrastinateEngine, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    """It is too large, or PostgreSQL is away."""
    monkeypatch.setattr(worker_side, "OUTCOME_LIMIT", 10)
    roster = worker_side.Roster(engine._app, engine._worker, engine.encode_native)
    job = SimpleNamespace(id=1, attempts=0, queueing_lock="job", task_name="site:note")
    context: Any = SimpleNamespace(job=job, app=engine._app)
    notes = Notes()
    await roster._keep(context, notes, Outcome(result="far too long for that"))
    await roster._keep(context, notes, Outcome())  # the app is not open


# From a request to the worker.


async def wait_for_answer(client: Any, path: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return await client.get(path)
        except need("httpx").TransportError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["journal", "direct", "consume"])
async def test_from_a_request_to_the_worker(
    engine: ProcrastinateEngine, start: Start, lines: Lines, tmp_path: Path, kind: str
) -> None:
    """E1, E3: an app and a worker, two commands; or one."""
    httpx = need("httpx")
    port = free_port()
    server = start(
        *("-X", "dev", "-m", "uvicorn", "tests.engines.procrastinate_site:asgi"),
        *("--port", str(port), "--log-level", "error"),
        ENGINE_JOURNAL=str(tmp_path / "jobs.db") if kind != "direct" else "",
        ENGINE_CONSUME="yes" if kind == "consume" else "no",
    )
    if kind != "consume":
        start(*WORKER)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
        answers = [await wait_for_answer(client, "/0")]
        answers += await asyncio.gather(*(client.get(f"/{number}") for number in range(1, 10)))
    ids = [answer.text for answer in answers if answer.status_code == 202]
    await until(lambda: len(lines()) == 20, DEADLINE)
    assert sorted(line.split()[2] for line in lines() if line.startswith("double")) == sorted(ids)
    assert sum(line.startswith("theirs") for line in lines()) == 10
    server.send_signal(signal.SIGTERM)
    assert server.wait(DEADLINE) in (0, -signal.SIGTERM)
    log = (tmp_path / "log").read_text()
    for word in ("ResourceWarning", "was never", "was destroyed", "asgi_bg:ERROR"):
        assert word not in log, log


# The app's own process works the queue.


async def test_consume(app: Any, make_runner: Any, lines: Lines) -> None:
    both = ProcrastinateEngine(app, consume=True)
    runner: Runner = await make_runner(engine=both)
    jobs = [await runner.add_task(site.double, number) for number in range(5)]
    retried = await runner.add_task(site.flaky, 1)
    for job in (*jobs, retried):
        assert await ended(runner, job) is JobStatus.succeeded
    assert sorted(line.split()[1] for line in lines()) == ["0", "1", "1", "2", "2", "3", "4"]
    await runner.aclose()
    assert app.connector._async_pool is None


async def test_consume_drains_at_shutdown(
    engine: ProcrastinateEngine, app: Any, lines: Lines, tmp_path: Path
) -> None:
    """R6: what was begun ends; an app that its owner has opened stays open."""
    both = ProcrastinateEngine(app, consume=True)
    async with app.open_async():
        runner = Runner(engine=both, drain_timeout=20)
        await runner.start()
        job = await runner.add_task(site.held, str(tmp_path / "go"))
        await until(lambda: len(lines()) == 1, DEADLINE)
        closing = asyncio.ensure_future(runner.aclose())
        await asyncio.sleep(0.3)  # in which it would end, if it did not wait for the job
        assert not closing.done()
        (tmp_path / "go").touch()
        await closing
        assert await app.check_connection_async()
    assert lines()[-1] == "released"
    report = await engine.fetch(job.id)
    assert report is not None
    assert report.status is JobStatus.succeeded


def test_consume_goes_from_one_loop_to_the_next(app: Any) -> None:
    """Also where the first one ended before the app was closed."""
    opening = Opening(app)
    connector = app.connector

    async def work() -> bool:
        async with opening.opened():
            is_there: bool = await app.check_connection_async()
            return is_there

    assert asyncio.run(work())
    assert connector._async_pool is None
    assert asyncio.run(work())
    connector._async_pool = opening._pool
    assert asyncio.run(work())
    assert connector._async_pool is None


async def test_consume_outlasts_its_server(own_postgres: PostgresServer, lines: Lines) -> None:
    """E1: it works again once PostgreSQL is back, and ends while that is away."""
    with site.app.replace_connector(connector_to(own_postgres.url)) as app:
        both = ProcrastinateEngine(app, consume=True, timeout=1.0)
        runner = Runner(engine=both, drain_timeout=0.5)
        await runner.start()
        await runner.add_task(site.double, 1)
        await until(lambda: len(lines()) == 1, DEADLINE)
        own_postgres.kill()
        await asyncio.sleep(0.5)  # an outage that lasts, so that some tries fail
        own_postgres.start()
        await runner.add_task(site.double, 2)
        await until(lambda: len(lines()) == 2, DEADLINE)
        own_postgres.freeze()
        began = time.monotonic()
        await runner.aclose()
        assert time.monotonic() - began < 15
        own_postgres.thaw()
