"""ARQ: what arrives in its queues, what its workers make of it, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import JobEvent, JobStatus, Runner, Task
from asgi_bg._ids import new_id
from asgi_bg._options import Options
from asgi_bg.engines import Message
from asgi_bg.exceptions import EngineError, JobFailed, NotSerializable
from asgi_bg.journal.codec import codec_of
from tests.helpers import need, until
from tests.services.redis import RedisServer
from tests.services.service import Service, free_port, need_program

need("arq")

from arq import cron  # noqa: E402
from arq.connections import ArqRedis, RedisSettings, create_pool  # noqa: E402
from arq.jobs import DeserializationError, Job  # noqa: E402
from arq.jobs import JobStatus as ArqStatus  # noqa: E402
from arq.worker import Worker, create_worker, func  # noqa: E402
from redis.asyncio import ConnectionPool  # noqa: E402
from redis.exceptions import RedisError  # noqa: E402

from asgi_bg.engines import _arq_json, _arq_line  # noqa: E402
from asgi_bg.engines._arq_roster import NO_LIMIT  # noqa: E402
from asgi_bg.engines.arq import ArqEngine  # noqa: E402
from tests.engines import arq_site as site  # noqa: E402

pytestmark = pytest.mark.anyio

DEADLINE = 60.0
"""How long anything may take that a process is waited for; far more than it needs."""

ROOT = Path(__file__).parents[2]

DAY = 86400.0
NEXT_YEAR = datetime.now(timezone.utc) + timedelta(days=365)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that all tests share."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started  # type: ignore[misc]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that may be broken."""
    with RedisServer(tmp_path / "redis") as started:
        yield started  # type: ignore[misc]


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Any]:
    """ARQ's own client, with the serializer of the engine."""
    client = client_of(server.url)
    yield client
    await client.connection_pool.disconnect()


def client_of(url: str, **options: Any) -> Any:
    json_ = {"job_serializer": _arq_json.serialize, "job_deserializer": _arq_json.deserialize}
    return ArqRedis(ConnectionPool.from_url(url), **{**json_, **options})


EngineOf = Callable[..., ArqEngine]


@pytest.fixture
async def engine_of(server: RedisServer) -> AsyncIterator[EngineOf]:
    """Make engines with a queue of their own each, and close them in the end."""
    made: list[ArqEngine] = []

    def make(**options: Any) -> ArqEngine:
        values = {"redis": server.url, "queue": f"queue-{uuid.uuid4().hex}", **options}
        made.append(ArqEngine(**values))
        return made[-1]

    yield make
    for engine in made:
        await engine.close()


def message(declared: Task[..., Any], *args: Any, **changes: Any) -> Message:
    """Return a job of a declared task, as the core hands it over."""
    values: dict[str, Any] = {
        "id": new_id(time.time()),
        "task": declared.name,
        "call": codec_of(declared).encode(args, {})[0],
        "changes": None,
        "native": None,
        "options": declared.options,
        "queued_at": time.time(),
        "run_after": None,
        "priority": 0,
    }
    return Message(**{**values, **changes})


def native_message(engine: ArqEngine, name: Any, *args: Any, **kwargs: Any) -> Message:
    """Return a job of a function of ARQ's own, as the core hands it over."""
    native = engine.native(name)
    assert native is not None
    return message(
        site.note,
        "",
        task=native.name,
        native=native.options,
        call=engine.encode_native(native.name, args, kwargs),
        options=Options(),
    )


def queue_of(engine: ArqEngine) -> str:
    return engine._keeping.queue


async def ids_in(redis: Any, queue: str) -> list[str]:
    return [found.decode() for found in await redis.zrange(queue, 0, -1)]


# Sending.


async def test_jobs_of_ours_arrive_in_their_order_with_one_argument(
    engine_of: EngineOf, redis: Any
) -> None:
    """E2: a batch is acknowledged as a whole, each job under its own id and task's name."""
    engine = engine_of()
    jobs = [message(site.note, f"word {number}", queued_at=1e9 + number) for number in range(500)]
    assert await engine.send(jobs) == [None] * 500
    assert await ids_in(redis, queue_of(engine)) == [job.id for job in jobs]
    for job in jobs[::100]:
        text = json.loads(await redis.get(f"arq:job:{job.id}"))
        assert text == {
            "t": None,
            "f": "arq-site:note",
            "a": [job.envelope],
            "k": {},
            "et": int(job.queued_at * 1000),
        }
        assert await redis.zscore(queue_of(engine), job.id) == job.queued_at * 1000
        assert 29 * DAY < await redis.ttl(f"arq:job:{job.id}") <= 30 * DAY


async def test_nothing_is_nothing(engine_of: EngineOf) -> None:
    assert await engine_of().send([]) == []


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, "two", None, [3.5, {"four": True}]), {"five": 5, "_six": 6}),
        ((1,), {"_queue_name": "queue-of-another"}),
        ((1,), {"_defer_by": 100}),
        ((1,), {"_defer_by": timedelta(seconds=100.5), "_expires": None}),
        ((1,), {"_defer_until": NEXT_YEAR, "_queue_name": None}),
        ((1,), {"_expires": 50, "_job_try": 3}),
        ((1,), {"_expires": timedelta(seconds=50), "_defer_by": 10.25}),
    ],
)
async def test_own_function_arrives_exactly_as_enqueue_job_sends_it(
    engine_of: EngineOf,
    server: RedisServer,
    serializer: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """E4: the same bytes, in the same queue, for the same instant, kept for as long."""
    write: Any = pickle.dumps if serializer == "pickle" else None
    read: Any = pickle.loads if serializer == "pickle" else None
    engine = engine_of(job_serializer=write, job_deserializer=read, expires=DAY)
    queue = kwargs.get("_queue_name") or queue_of(engine)
    redis = client_of(
        server.url,
        job_serializer=write or _arq_json.serialize,
        default_queue_name=queue_of(engine),
    )
    job = native_message(engine, "own", *args, **kwargs)
    theirs = await redis.enqueue_job("own", *args, **kwargs)
    assert await engine.send([job]) == [None]

    async def found(id: str) -> Any:
        data = (read or json.loads)(await redis.get(f"arq:job:{id}"))
        score = await redis.zscore(queue, id)
        keep = await redis.pttl(f"arq:job:{id}")
        return data, data.pop("et"), score, keep

    ours, ours_et, ours_score, ours_keep = await found(job.id)
    data, et, score, keep = await found(theirs.job_id)
    assert ours == data
    assert abs(ours_et - et) < 5000
    until_start = "_defer_until" not in kwargs
    assert ours_score - (ours_et if until_start else 0) == score - (et if until_start else 0)
    assert abs(ours_keep - keep) < 5000
    await redis.connection_pool.disconnect()


async def test_job_that_arq_knows_is_not_queued_again(engine_of: EngineOf, redis: Any) -> None:
    """E2: neither while it waits or runs, nor while it has a result; each is acknowledged."""
    engine = engine_of()
    queue = queue_of(engine)
    waits, ended, fresh = (message(site.note, word) for word in ("waits", "ended", "fresh"))
    assert await engine.send([waits, waits]) == [None, None]
    first = await redis.get(f"arq:job:{waits.id}")
    await redis.set(f"arq:result:{ended.id}", b"a result", px=10_000)
    again = message(site.note, "changed", id=waits.id)
    assert await engine.send([again, ended, fresh]) == [None, None, None]
    assert await ids_in(redis, queue) == [waits.id, fresh.id]
    assert await redis.get(f"arq:job:{waits.id}") == first
    assert not await redis.exists(f"arq:job:{ended.id}")


async def test_put_off_job_waits_for_its_instant(engine_of: EngineOf, redis: Any) -> None:
    """It is kept until then and 30 days more; ARQ's own one day would drop it silently."""
    engine = engine_of(expires=10.0)
    soon, late = (message(site.note, "", run_after=time.time() + wait) for wait in (0.5, 1000.25))
    assert await engine.send([late, soon]) == [None, None]
    assert await ids_in(redis, queue_of(engine)) == [soon.id, late.id]
    assert late.run_after is not None
    score = await redis.zscore(queue_of(engine), late.id)
    assert 0 <= score - late.run_after * 1000 < 1
    assert 1000 < await redis.ttl(f"arq:job:{late.id}") <= 1011
    assert 5 < await redis.ttl(f"arq:job:{soon.id}") <= 11


async def test_queue_of_a_task_is_another_key(engine_of: EngineOf, redis: Any) -> None:
    engine = engine_of()
    other = f"{queue_of(engine)}-other"
    elsewhere = site.note.using(queue=other)
    jobs = [message(site.note, "here"), message(elsewhere, "there")]
    assert await engine.send(jobs) == [None, None]
    assert await ids_in(redis, queue_of(engine)) == [jobs[0].id]
    assert await ids_in(redis, other) == [jobs[1].id]


async def test_scripts_that_redis_has_forgotten_are_sent_again(
    engine_of: EngineOf, redis: Any
) -> None:
    """As after a restart."""
    engine = engine_of()
    for word in ("one", "two"):
        assert await engine.send([message(site.note, word)]) == [None]
        await redis.script_flush()
    assert len(await ids_in(redis, queue_of(engine))) == 2


async def test_client_of_the_user_lends_its_address_only(
    engine_of: EngineOf, server: RedisServer
) -> None:
    """Its connections stay its own: none is used, none is closed."""
    client: Any = client_of(server.url)
    engine = engine_of(redis=client)
    assert await engine.send([message(site.note, "word")]) == [None]
    assert await engine._line.client() is not client
    assert not client.connection_pool._available_connections
    await client.ping()
    await engine.close()
    assert len(await ids_in(client, queue_of(engine))) == 1
    settings: Any = engine.worker_settings()
    assert settings.redis_pool.connection_pool.connection_kwargs["port"] == server.port
    assert settings.redis_pool is not client
    await client.connection_pool.disconnect()


# What is refused, and what is not acknowledged.


async def test_full_or_read_only_redis_is_no_refusal(
    engine_of: EngineOf, own_server: RedisServer
) -> None:
    """Another time it takes the job, so all of these are raised."""
    engine = engine_of(redis=own_server.url)
    redis = client_of(own_server.url)
    job = message(site.note, "word")
    await redis.config_set("maxmemory", "1")
    with pytest.raises(Exception, match="command not allowed when used memory > 'maxmemory'"):
        await engine.send([job])
    await redis.config_set("maxmemory", "0")
    await redis.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
    with pytest.raises(Exception, match="can't write against a read only replica"):
        await engine.send([job])
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    await redis.set(queue_of(engine), "no queue")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await engine.send([job])
    # It must not look as if it were queued.
    assert await redis.keys("*") == [queue_of(engine).encode()]
    await redis.delete(queue_of(engine))
    assert await engine.send([job]) == [None]
    assert await ids_in(redis, queue_of(engine)) == [job.id]
    await redis.connection_pool.disconnect()


async def test_too_large_a_job_is_no_acknowledgement(
    engine_of: EngineOf, own_server: RedisServer
) -> None:
    """Redis closes the connection; the next one works, and takes what is small enough."""
    engine = engine_of(redis=own_server.url)
    redis = client_of(own_server.url)
    await redis.config_set("proto-max-bulk-len", str(1024 * 1024))
    # Sometimes the reason arrives, sometimes only the end of the connection.
    with pytest.raises((RedisError, OSError)):
        await engine.send([message(site.note, "small"), message(site.note, "x" * 2**21)])
    await engine.close()
    await engine.open()
    assert await engine.send([message(site.note, "small")]) == [None]
    assert len(await ids_in(redis, queue_of(engine))) == 1
    await redis.connection_pool.disconnect()


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"delay": 1, "retries": 2, "timeout": 1, "queue": "other"}, None),
        ({"run_at": NEXT_YEAR}, None),
        ({"priority": 1}, "asks for priority="),
        ({"concurrency": 1}, "asks for concurrency="),
        ({"queue": ""}, "asks for a queue without a name"),
        ({"delay": 1e12}, "asks for a delay of 1e.12 seconds"),
    ],
)
def test_options_that_arq_lacks_are_refused(option: dict[str, Any], error: str | None) -> None:
    """E5, when the task is added."""
    engine = ArqEngine()
    asked = site.note.using(**option)
    if error is None:
        engine.check(asked)
        return
    with pytest.raises(EngineError, match=error):
        engine.check(asked)


def test_own_functions_are_known_by_their_names() -> None:
    engine = ArqEngine()
    named = engine.native("send_mail")
    assert named is not None
    assert named.name == "send_mail"
    made = engine.native(func(site.own, name="named"))
    assert made is not None
    assert made.name == "named"
    assert engine.native(site.own) is None
    assert engine.native(site.note) is None
    with pytest.raises(EngineError, match="has a name"):
        engine.native("")


@pytest.mark.parametrize(
    ("args", "kwargs", "error"),
    [
        ((object(),), {}, "the arguments of arq's own task own are not plain JSON"),
        ((NEXT_YEAR,), {}, "would come back changed"),
        ((float("nan"),), {}, "would come back changed"),
        ((), {"_job_id": "mine"}, "leave _job_id out"),
        ((), {"_defer_by": 1, "_defer_until": NEXT_YEAR}, "exclude each other"),
        ((), {"_defer_until": 5}, "_defer_until must be of type datetime, got 5"),
        ((), {"_expires": "soon"}, "_expires must be of type int or float or timedelta"),
        ((), {"_queue_name": 7}, "_queue_name must be of type str, got 7"),
    ],
)
def test_own_functions_calls_that_cannot_be_sent_are_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], error: str
) -> None:
    with pytest.raises((EngineError, NotSerializable, TypeError), match=error):
        ArqEngine().encode_native("own", args, kwargs)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"redis": 5}, "redis must be RedisSettings, a URL or an ArqRedis"),
        ({"redis": "amqp://"}, "redis must be a URL such as redis://"),
        ({"redis": "redis://host:port"}, "redis must be a URL such as redis://"),
        ({"queue": ""}, "queue must be a string that is not empty"),
        ({"consume": 1}, "consume must be True or False"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"expires": 0}, "expires must be more than 0"),
        ({"lease": -1}, "lease must be more than 0"),
        ({"job_serializer": pickle.dumps}, "belong together"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        ArqEngine(**options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pol_delay": 1}, "takes no 'pol_delay'; it takes .*poll_delay"),
        ({"redis_settings": RedisSettings()}, "redis_settings is the engine's to give"),
        ({"job_serializer": pickle.dumps}, "job_serializer is the engine's to give"),
        ({"retry_jobs": False}, "retry_jobs is the engine's to give"),
        ({"max_jobs": 0}, "max_jobs must be 1 or more"),
        ({"on_event": asyncio.sleep}, "plain functions of one event"),
    ],
)
def test_worker_options_are_checked(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        ArqEngine().worker_settings(**options)


def test_tasks_of_workers_are_declared() -> None:
    with pytest.raises(TypeError, match="declared with @task, got <built-in"):
        ArqEngine().worker_settings(print)  # type: ignore[arg-type]


def test_worker_has_one_function_for_a_name() -> None:
    """A declared task must not take the place of a function of ARQ's own, nor the reverse."""
    clash = func(site.own, name="arq-site:note")
    with pytest.raises(EngineError, match="an ARQ function called 'arq-site:note' already"):
        ArqEngine().worker_settings(functions=[clash])
    settings: Any = ArqEngine().worker_settings(site.plain, site.about, functions=[clash])
    assert [each.name for each in settings.functions] == [
        "arq-site:note",
        "arq-site:plain",
        "arq-site:about",
    ]
    assert settings.functions[1].name == "arq-site:plain"
    assert len(settings.functions) == 3


# Outages.


async def answer(engine: ArqEngine, limit: float = 3.0) -> str:
    """Send a job as the core does it: with a time limit, and anew after a failure."""
    try:
        await asyncio.wait_for(engine.open(), limit)
        [reason] = await asyncio.wait_for(engine.send([message(site.note, "word")]), limit)
    except Exception as exc:
        began = time.monotonic()
        await engine.close()
        assert time.monotonic() - began < 5
        return type(exc).__name__
    return "taken" if reason is None else reason


async def eventually_taken(engine: ArqEngine) -> None:
    deadline = time.monotonic() + DEADLINE
    while (last := await answer(engine)) != "taken":
        assert time.monotonic() < deadline, last
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", ["settings", "client"])
async def test_engine_survives_outages(
    engine_of: EngineOf, own_server: RedisServer, kind: str
) -> None:
    """A server that is frozen or gone is an error in time, and no connection is left behind."""
    url = own_server.url
    engine = engine_of(redis=url if kind == "settings" else client_of(url))
    assert await answer(engine) == "taken"
    own_server.freeze()
    assert {await answer(engine, 1.0) for _ in range(2)} <= {"TimeoutError", "ConnectionError"}
    own_server.thaw()
    await eventually_taken(engine)
    own_server.kill()
    for _ in range(2):
        began = time.monotonic()
        assert await answer(engine) != "taken"
        assert time.monotonic() - began < 5
    await asyncio.to_thread(own_server.start)
    await eventually_taken(engine)
    redis = client_of(url)
    await engine.close()
    deadline = time.monotonic() + DEADLINE
    while len(connected := await redis.client_list()) > 1:
        assert time.monotonic() < deadline, connected
        await asyncio.sleep(0.02)
    await redis.connection_pool.disconnect()


class Sentinel(Service):
    """Tells clients where the master is."""

    def __init__(self, folder: Path, master: int) -> None:
        super().__init__(folder)
        self._master = master

    @property
    def url(self) -> str:
        return f"sentinel://127.0.0.1:{self.port}"

    def launch(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir()
        settings = self.folder / "sentinel.conf"
        settings.write_text(f"sentinel monitor mymaster 127.0.0.1 {self._master} 1\n")
        program = need_program("redis-server", "redis-server")
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                (program, str(settings), "--sentinel", "--port", str(self.port)),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


@pytest.mark.parametrize("kind", ["settings", "client"])
async def test_master_is_found_through_a_sentinel(
    engine_of: EngineOf, server: RedisServer, redis: Any, tmp_path: Path, kind: str
) -> None:
    """As ARQ itself finds it, and by its client as well."""
    with Sentinel(tmp_path / "sentinel", server.port) as sentinel:
        settings = RedisSettings(host=[("127.0.0.1", sentinel.port)], sentinel=True)
        theirs: Any = None
        if kind == "client":
            theirs = await create_pool(settings)
        engine = engine_of(redis=settings if theirs is None else theirs)
        job = message(site.note, "word")
        assert await engine.send([job]) == [None]
        assert await ids_in(redis, queue_of(engine)) == [job.id]
        await engine.close()
        if theirs is not None:
            await theirs.ping()
            await _arq_line.disconnect(theirs)


def test_engine_works_in_one_event_loop_after_another(server: RedisServer) -> None:
    """`open` in a new loop makes do without what the last one has left behind."""
    engine = ArqEngine(server.url, queue=f"queue-{uuid.uuid4().hex}")

    async def send() -> None:
        await engine.open()
        await engine.open()
        assert await engine.send([message(site.note, "word")]) == [None]
        await engine.close()
        await engine.close()

    for _ in range(3):
        asyncio.run(send())


async def test_concurrent_calls_leave_one_connection(engine_of: EngineOf) -> None:
    engine = engine_of()
    await asyncio.gather(*(engine.open() for _ in range(5)))
    assert await engine.send([message(site.note, "word")]) == [None]


# Asking and cancelling.


async def test_waiting_job_is_known_and_can_be_cancelled(engine_of: EngineOf, redis: Any) -> None:
    """It is gone at once, and has a result as if ARQ itself had aborted it."""
    engine = engine_of()
    jobs = [
        message(site.note, "here"),
        message(site.elsewhere, "declared queue"),
        message(
            site.note.using(queue="queue-of-this-call"),
            "",
            changes='{"queue":"queue-of-this-call"}',
        ),
        message(site.note, "put off", run_after=time.time() + 1000),
        native_message(engine, "own", 1, _queue_name="queue-of-another"),
    ]
    await engine.send(jobs)
    # An engine in another process, or after a restart, knows the queues of our tasks all the same.
    other = engine_of(queue=queue_of(engine))
    assert await other.cancel("unknown") is False
    assert await other.fetch("unknown") is None
    for job in jobs:
        found = await other.fetch(job.id)
        assert found is not None
        assert (found.status, found.task, found.attempt) == (JobStatus.queued, job.task, 0)
        canceller = engine if job.native is not None else other
        assert await canceller.cancel(job.id) is True
        assert await canceller.cancel(job.id) is False
        found = await other.fetch(job.id)
        assert found is not None
        assert (found.status, found.task, found.error) == (
            JobStatus.cancelled,
            job.task,
            "cancelled",
        )
        with pytest.raises(asyncio.CancelledError):
            await Job(job.id, redis, _deserializer=_arq_json.deserialize).result(1)
    assert await engine.send(jobs) == [None] * 5  # as the outbox may do it
    assert await ids_in(redis, queue_of(engine)) == []
    assert not await redis.exists(*(f"arq:job:{job.id}" for job in jobs))


async def test_running_job_is_left_alone(engine_of: EngineOf, redis: Any) -> None:
    """It does not wait, so it is not cancelled."""
    engine = engine_of()
    job = message(site.note, "word")
    await engine.send([job])
    await redis.set(f"arq:in-progress:{job.id}", b"1", px=60_000)
    await redis.set(f"arq:retry:{job.id}", b"2", px=60_000)
    assert await engine.cancel(job.id) is False
    found = await engine.fetch(job.id)
    assert found is not None
    assert (found.status, found.attempt) == (JobStatus.running, 2)
    assert await ids_in(redis, queue_of(engine)) == [job.id]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (3500, 3600)),
        ({"keep_result": timedelta(seconds=5)}, (1, 5)),
        ({"keep_result_forever": True}, (-1, -1)),
    ],
)
async def test_result_of_a_cancelled_job_is_kept_as_long_as_others(
    engine_of: EngineOf, redis: Any, options: dict[str, Any], expected: tuple[int, int]
) -> None:
    engine = engine_of()
    engine.worker_settings(**options)
    job = message(site.note, "word")
    await engine.send([job])
    assert await engine.cancel(job.id) is True
    least, most = expected
    assert least <= await redis.ttl(f"arq:result:{job.id}") <= most


async def test_no_result_of_a_cancelled_job_is_kept_where_none_are(
    engine_of: EngineOf, redis: Any
) -> None:
    engine = engine_of()
    engine.worker_settings(keep_result=0)
    job = message(site.note, "word")
    await engine.send([job])
    assert await engine.cancel(job.id) is True
    assert await engine.fetch(job.id) is None


async def test_what_another_serializer_has_written_is_an_error(
    engine_of: EngineOf, server: RedisServer
) -> None:
    """And nothing is ever unpickled, unless the user has asked for that."""
    engine = engine_of()
    pickled = client_of(server.url, job_serializer=None)
    job = await pickled.enqueue_job("own", _queue_name=queue_of(engine))
    with pytest.raises(DeserializationError):
        await engine.fetch(job.job_id)
    with pytest.raises(DeserializationError):
        await engine.cancel(job.job_id)
    await pickled.connection_pool.disconnect()


# ARQ's own command.


class Processes:
    """Starts processes of the project in `arq_site`, and ends them by their pids."""

    def __init__(self, server: RedisServer, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.record = folder / "record"
        self.record.touch()
        self.queue = f"queue-{uuid.uuid4().hex}"
        self.url = server.url
        self.settings = {
            "SITE_REDIS": server.url,
            "SITE_QUEUE": self.queue,
            "SITE_RECORD": str(self.record),
            **settings,
        }
        self.place = ROOT
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, **settings: str) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.place,
                env={**os.environ, **self.settings, **settings},
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process

    def worker(self, **settings: str) -> subprocess.Popen[bytes]:
        return self.start("arq", "tests.engines.arq_site.WorkerSettings", **settings)

    def app(self, **settings: str) -> tuple[subprocess.Popen[bytes], int]:
        port = free_port()
        target = "tests.engines.arq_site:app"
        process = self.start(
            "uvicorn", target, "--port", str(port), "--log-level", "warning", **settings
        )
        deadline = time.monotonic() + DEADLINE
        while True:
            assert process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            with contextlib.suppress(OSError):
                get(port, "/")
                return process, port
            time.sleep(0.05)

    def engine(self, **options: Any) -> ArqEngine:
        return ArqEngine(self.url, queue=self.queue, **options)

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def lines(self, start: str = "") -> list[str]:
        """What has happened, of the lines that begin so."""
        return [line for line in self.record.read_text().splitlines() if line.startswith(start)]

    def wait(self, start: str, count: int = 1) -> list[str]:
        """Wait until so many lines begin so."""
        deadline = time.monotonic() + DEADLINE
        while len(found := self.lines(start)) < count:
            assert time.monotonic() < deadline, (self.lines(), self.log[-3000:])
            time.sleep(0.02)
        return found

    def end(self, process: subprocess.Popen[bytes], how: signal.Signals) -> int:
        deadline = time.monotonic() + DEADLINE
        while True:
            process.send_signal(how)
            try:
                return process.wait(5)
            except subprocess.TimeoutExpired:
                # With redis-py 4, what ARQ has cancelled may go on as if nothing had happened.
                assert time.monotonic() < deadline, self.log

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                self.end(process, signal.SIGKILL)


def get(port: int, path: str) -> str:
    """Return the body of a response, which is a job's id."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        if path != "/":  # which asks whether there is anybody, or is the example's
            assert response.status == 200, body
        return body
    finally:
        connection.close()


@pytest.fixture(scope="module")
def worked(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A queue that a worker works."""
    processes = Processes(server, tmp_path_factory.mktemp("worked"))
    processes.worker()
    processes.wait("startup")
    yield processes
    processes.close()


@pytest.fixture
def site_of(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Processes]]:
    """Make projects with queues of their own."""
    made: list[Processes] = []

    def make(**settings: str) -> Processes:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Processes(server, folder, **settings))
        return made[-1]

    yield make
    for processes in made:
        processes.close()


@pytest.fixture
async def runner(worked: Processes) -> AsyncIterator[Runner]:
    """Who hands jobs over to that worker."""
    async with Runner(engine=worked.engine()) as started:
        yield started


async def test_tasks_run_in_arqs_own_worker(runner: Runner, worked: Processes) -> None:
    """Async and plain ones, also those declared after the settings were made."""
    job = await runner.add_task(site.note, "word")
    assert await job.result(DEADLINE) == "word"
    info = await job.info()
    assert (info.status, info.attempt, info.owner) == (JobStatus.succeeded, 1, "engine:arq")
    assert info.started_at is not None
    assert info.finished_at is not None
    plain = await runner.add_task(site.plain, 21)
    assert await plain.result(DEADLINE) == [42, False]

    about = await runner.add_task(site.about)
    assert await about.result(DEADLINE) == [about.id, "arq-site:about", 1]
    later = await runner.add_task("arq-site:declared-later")
    assert await later.result(DEADLINE) == "known"
    parent = await runner.add_task(site.parent, "child")
    assert await parent.result(DEADLINE) is None
    await asyncio.to_thread(worked.wait, "note child")


async def test_rich_arguments_and_results_come_back_as_they_were(
    runner: Runner, worked: Processes
) -> None:
    """J7, through JSON both ways."""
    when = datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    job = await runner.add_task(site.rich, when, uuid.uuid4(), site.Item(1, when))
    assert await job.result(DEADLINE) == site.Item(2, when)
    assert worked.lines("rich") == ["rich datetime UUID datetime"] * len(worked.lines("rich"))


async def test_failed_job_is_tried_again_by_its_own_options(
    runner: Runner, worked: Processes
) -> None:
    """ARQ's own ``max_tries`` of 5 has no say in it."""
    job = await runner.add_task(site.flaky, 2)
    assert await job.result(DEADLINE) == 3
    assert (await job.info()).attempt == 3
    lasting = await runner.add_task(site.flaky.using(retries=7, retry_delay=0.01), 7)
    assert await lasting.result(DEADLINE) == 8
    hopeless = await runner.add_task(site.flaky, 5)
    with pytest.raises(JobFailed, match="ValueError: failure 3"):
        await hopeless.result(DEADLINE)
    assert worked.lines(f"flaky {hopeless.id}") == [
        f"flaky {hopeless.id} {attempt}" for attempt in (1, 2, 3)
    ]
    picky = await runner.add_task(site.picky)
    with pytest.raises(JobFailed, match="not to be tried again"):
        await picky.result(DEADLINE)
    assert worked.lines(f"picky {picky.id}") == [f"picky {picky.id}"]
    info = await picky.info()
    assert info.status is JobStatus.failed
    assert info.error == "ValueError: not to be tried again: \\udcff"
    assert "Traceback" in (info.traceback or "")


async def test_time_limits_are_the_tasks_own(runner: Runner) -> None:
    late = await runner.add_task(site.late)
    with pytest.raises(JobFailed, match="TimeoutError: task arq-site:late took longer than 0.2"):
        await late.result(DEADLINE)
    later = await runner.add_task(site.late.using(timeout=0.4))
    with pytest.raises(JobFailed, match="took longer than 0.4"):
        await later.result(DEADLINE)


async def test_put_off_job_starts_no_sooner(runner: Runner) -> None:
    before = time.time()
    job = await runner.add_task(site.note.using(delay=1.0), "word")
    assert (await runner.info(job.id)).status is JobStatus.queued
    assert await job.result(DEADLINE) == "word"
    info = await job.info()
    assert info.started_at is not None
    assert info.started_at.timestamp() >= before + 1.0


async def test_waiting_job_is_cancelled_and_does_not_run(runner: Runner, worked: Processes) -> None:
    job = await runner.add_task(site.note.using(delay=1.0), "cancelled")
    assert (await runner.cancel(job.id)).status is JobStatus.cancelled
    behind = await runner.add_task(site.note.using(delay=1.5), "behind")
    assert await behind.result(DEADLINE) == "behind"
    assert "note cancelled" not in worked.lines()
    assert (await runner.info(job.id)).status is JobStatus.cancelled


async def test_own_functions_see_no_difference(runner: Runner, worked: Processes) -> None:
    """E4: by name, with what the worker's own startup has provided."""
    job = await runner.add_task("own", 1, [2], three={"four": None})
    assert await job.result(DEADLINE) == ["started", 1, [2], {"three": {"four": None}}]
    assert worked.lines(f"own {job.id}") == [f"own {job.id}"]


async def test_unknown_function_fails_in_the_worker(runner: Runner) -> None:
    job = await runner.add_task("nowhere", 1)
    with pytest.raises(JobFailed, match="function 'nowhere' not found"):
        await job.result(DEADLINE)
    info = await job.info()
    assert info.error == "JobExecutionFailed: function 'nowhere' not found"


async def test_declared_tasks_can_be_enqueued_by_others(redis: Any, worked: Processes) -> None:
    """They are functions of the worker like any other, retries included."""
    job = await redis.enqueue_job("arq-site:note", word="by name", _queue_name=worked.queue)
    assert await job.result(DEADLINE, poll_delay=0.05) == "by name"
    flaky = await redis.enqueue_job("arq-site:flaky", 2, _queue_name=worked.queue)
    assert await flaky.result(DEADLINE, poll_delay=0.05) == 3


async def test_arqs_own_tools_can_read_the_jobs(
    runner: Runner, redis: Any, worked: Processes
) -> None:
    """`Job.result` raises an error that says what went wrong, `Job.abort` knows an abortion."""
    failed = await runner.add_task(site.picky)
    there = Job(failed.id, redis, worked.queue, _arq_json.deserialize)
    with pytest.raises(JobFailed, match="ValueError: not to be tried again") as caught:
        await there.result(DEADLINE, poll_delay=0.05)
    assert caught.value.task == "arq-site:picky"
    assert "Traceback" in str(caught.value.__cause__)
    found = await there.result_info()
    assert found is not None
    assert found.function == "arq-site:picky"

    gate = worked.folder / uuid.uuid4().hex
    held = await runner.add_task(site.held, str(gate))
    await asyncio.to_thread(worked.wait, f"start {gate}")
    there = Job(held.id, redis, worked.queue, _arq_json.deserialize)
    assert await there.status() is ArqStatus.in_progress
    assert (await runner.info(held.id)).status is JobStatus.running
    assert await there.abort(timeout=DEADLINE, poll_delay=0.05) is True
    assert (await runner.info(held.id)).status is JobStatus.cancelled


async def test_arguments_stay_out_of_arqs_log(runner: Runner, worked: Processes) -> None:
    """J10: it writes the arguments of every job; ours may be redacted."""
    job = await runner.add_task(site.secret, "4111-1111")
    await job.result(DEADLINE)
    await until(lambda: f"{job.id}:arq-site:secret ●" in worked.log, DEADLINE)
    assert f"{job.id}:arq-site:secret(...)" in worked.log
    assert "4111-1111" not in worked.log


# Workers that end.


async def test_job_of_a_killed_worker_is_run_by_another(
    site_of: Callable[..., Processes],
) -> None:
    """After the lease and no later, though ARQ would wait for 310 seconds; no retry is used up."""
    site_ = site_of(SITE_LEASE="2")
    gate = site_.folder / "gate"
    first = site_.worker()
    async with Runner(engine=site_.engine()) as runner:
        job = await runner.add_task(site.held, str(gate), fails=True)
        await asyncio.to_thread(site_.wait, f"start {gate}")
        await until(lambda: (site_.worker(), True)[1])
        await asyncio.to_thread(site_.wait, "startup", 2)
        # It is held for longer than the lease, and does not start anew meanwhile.
        await asyncio.sleep(3)
        assert len(site_.lines("start ")) == 1
        site_.end(first, signal.SIGKILL)
        began = time.monotonic()
        lines = await asyncio.to_thread(site_.wait, f"start {gate}", 2)
        assert time.monotonic() - began < 20
        assert lines[0].split()[3] == lines[1].split()[3] == "1"
        assert lines[0].split()[2] != lines[1].split()[2]
        gate.touch()
        # Its first attempt fails, and is tried again.
        assert await job.result(DEADLINE) == str(gate)
        assert [line.split()[3] for line in site_.lines("start ")] == ["1", "1", "2"]


async def test_job_that_kills_its_workers_is_given_up(site_of: Callable[..., Processes]) -> None:
    """J5: after three of them; the fourth says so, and goes on with others."""
    site_ = site_of(SITE_LEASE="0.5")
    async with Runner(engine=site_.engine()) as runner:
        job = await runner.add_task(site.deadly, "word")
        for count in (1, 2, 3):
            worker = site_.worker()
            await asyncio.to_thread(site_.wait, "deadly", count)
            assert await asyncio.to_thread(worker.wait, DEADLINE) == 7
        site_.worker()
        with pytest.raises(JobFailed, match="the workers that ran it died 3 times"):
            await job.result(DEADLINE)
        other = await runner.add_task(site.note, "word")
        assert await other.result(DEADLINE) == "word"
    assert len(site_.lines("deadly")) == 3


async def test_job_of_an_ended_worker_is_returned_at_once(
    site_of: Callable[..., Processes],
) -> None:
    """SIGTERM, as by a deploy: that is no crash, and the user's shutdown comes last."""
    site_ = site_of()
    gate = site_.folder / "gate"
    async with Runner(engine=site_.engine()) as runner:
        job = await runner.add_task(site.held, str(gate))
        for count in (1, 2, 3, 4):
            begun = len(site_.lines("start "))
            worker = site_.worker()
            await asyncio.to_thread(site_.wait, f"start {gate}", begun + 1)
            code = await asyncio.to_thread(site_.end, worker, signal.SIGTERM)
            assert code == 0, site_.log
            assert len(site_.lines("shutdown started")) == count
        gate.touch()
        site_.worker()
        assert await job.result(DEADLINE) == str(gate)
    assert {line.split()[3] for line in site_.lines("start ")} == {"1"}


# From a request to a worker.


@pytest.mark.parametrize("journal", [True, False])
def test_request_has_an_effect_in_the_worker(
    site_of: Callable[..., Processes], journal: bool
) -> None:
    """E1, E3: an app under uvicorn, with an outbox or without, and ARQ's own worker."""
    site_ = site_of()
    settings = {"SITE_JOURNAL": str(site_.folder / "jobs.db")} if journal else {}
    app, port = site_.app(**settings)
    ids = [get(port, f"/note/word{number}") for number in range(5)]
    own = get(port, "/own/argument")
    site_.worker()
    site_.wait("note", 5)
    site_.wait(f"own {own}")
    assert len(set(ids)) == 5
    assert sorted(site_.lines("note")) == [f"note word{number}" for number in range(5)]
    assert site_.end(app, signal.SIGTERM) in (0, -signal.SIGTERM), site_.log


def test_outage_delays_jobs_and_loses_none(tmp_path: Path) -> None:
    """E1: Redis is killed under an app that goes on answering; all jobs run when it is back."""
    with RedisServer(tmp_path / "redis") as redis:
        (tmp_path / "site").mkdir()
        site_ = Processes(redis, tmp_path / "site", SITE_JOURNAL=str(tmp_path / "jobs.db"))  # type: ignore[arg-type]
        try:
            _, port = site_.app()
            get(port, "/note/before")
            redis.kill()
            for number in range(20):
                get(port, f"/note/{number}")
            redis.start()
            site_.worker()
            lines = site_.wait("note", 21)
        finally:
            site_.close()
    assert sorted(lines) == sorted(["note before", *(f"note {number}" for number in range(20))])


def test_app_works_the_queue_itself(site_of: Callable[..., Processes]) -> None:
    """E3, consume=True: own functions included; what runs at the end goes to another process."""
    site_ = site_of(SITE_CONSUME="yes")
    app, port = site_.app()
    get(port, "/note/word")
    own = get(port, "/own/argument")
    site_.wait("note word")
    site_.wait(f"own {own}")
    gate = site_.folder / "gate"
    get(port, f"/held/{gate}")
    site_.wait(f"start {gate}")
    assert site_.end(app, signal.SIGTERM) in (0, -signal.SIGTERM), site_.log
    assert site_.lines("shutdown") == ["shutdown started"]
    assert site_.lines("end") == []
    site_.app()
    site_.wait(f"start {gate}", 2)
    gate.touch()
    site_.wait(f"end {gate}")


def test_the_example(site_of: Callable[..., Processes]) -> None:
    """By the two commands at its top, in a folder of its own."""
    site_ = site_of(PYTHONPATH=str(ROOT))
    site_.settings["REDIS_URL"] = site_.url.removesuffix("/0") + "/5"
    site_.place = site_.folder
    port = free_port()
    name = "examples.engines.arq_app"
    app = site_.start("uvicorn", f"{name}:app", "--port", str(port))
    deadline = time.monotonic() + DEADLINE
    body = None
    while body is None:
        assert app.poll() is None, site_.log
        assert time.monotonic() < deadline, site_.log
        with contextlib.suppress(OSError):
            body = get(port, "/")
        time.sleep(0.05)
    job = body.removeprefix("accepted, job ").strip()
    site_.start("arq", f"{name}.WorkerSettings")
    wanted = (f"invoice for order 7, job {job}", "order 7 is the 1. one")
    while not all(line in site_.log for line in wanted):
        assert time.monotonic() < deadline, site_.log
        time.sleep(0.05)


# The worker in the app's own process.


class Reporting:
    """Runs jobs as the test says, and keeps what happens."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.gate = asyncio.Event()

    async def perform(self, name: str, envelope: Any, attempt: int) -> Any:
        args = json.loads(envelope["call"])[0]
        self.log.append(("start", *args))
        if name.startswith("arq-site:held"):
            await self.gate.wait()
        self.log.append(("end", *args))
        return args


@contextlib.asynccontextmanager
async def working(
    engine: ArqEngine, *, max_jobs: int = 10, grace: float = 5.0, poll_delay: float = 0.02
) -> AsyncIterator[tuple[Reporting, asyncio.Event, asyncio.Task[None]]]:
    """Work the queue of an engine, and end that."""
    engine.worker_settings(poll_delay=poll_delay)
    reporting, stopping = Reporting(), asyncio.Event()
    task = asyncio.create_task(engine.work(reporting, max_jobs, stopping, grace))
    try:
        yield reporting, stopping, task
    finally:
        reporting.gate.set()
        stopping.set()
        await asyncio.wait_for(task, DEADLINE)
        assert engine._worker.performer is None


async def test_worker_in_the_app_takes_no_more_than_it_may(engine_of: EngineOf, redis: Any) -> None:
    """At most ``max_jobs`` at once, none when it is to stop; what was begun is finished."""
    engine = engine_of(consume=True)
    jobs = [message(site.held, str(number)) for number in range(5)]
    await engine.send(jobs)
    async with working(engine, max_jobs=2) as (reporting, stopping, _):
        await until(lambda: len(reporting.log) == 2, DEADLINE)
        await asyncio.sleep(0.2)  # so many polls that one would take a third, if it could
        assert sorted(reporting.log) == [("start", "0"), ("start", "1")]
        stopping.set()
        await asyncio.sleep(0.1)  # the same, now that it stops
        reporting.gate.set()
    assert sorted(reporting.log[2:]) == [("end", "0"), ("end", "1")]
    assert await ids_in(redis, queue_of(engine)) == [job.id for job in jobs[2:]]
    for job in jobs:
        found = await engine.fetch(job.id)
        assert found is not None
        is_done = job in jobs[:2]
        assert found.status is (JobStatus.succeeded if is_done else JobStatus.queued)


async def test_worker_in_the_app_returns_what_takes_too_long(
    engine_of: EngineOf, redis: Any
) -> None:
    """After the grace; the next worker has it at once."""
    engine = engine_of(consume=True)
    job = message(site.held, "word")
    await engine.send([job])
    async with working(engine, grace=0.2) as (reporting, stopping, task):
        await until(lambda: reporting.log, DEADLINE)
        stopping.set()
        began = time.monotonic()
        await asyncio.wait_for(asyncio.shield(task), DEADLINE)
        assert 0.1 < time.monotonic() - began < 5
    assert reporting.log == [("start", "word")]
    found = await engine.fetch(job.id)
    assert found is not None
    assert found.status is JobStatus.queued
    async with working(engine) as (reporting, _, _task):
        reporting.gate.set()
        await until(lambda: len(reporting.log) == 2, DEADLINE)


async def test_worker_in_the_app_knows_tasks_that_are_declared_later(
    engine_of: EngineOf,
) -> None:
    """Modules may be imported when the app has long started."""
    engine = engine_of(consume=True)
    async with working(engine) as (reporting, _, _task):
        await engine.send([message(site.note, "early")])
        await until(lambda: ("end", "early") in reporting.log, DEADLINE)
        late = site.note.using(name=f"arq-site:{uuid.uuid4().hex}")
        jobs = [message(late, "late"), native_message(engine, "nowhere")]
        await engine.send(jobs)
        await until(lambda: ("end", "late") in reporting.log, DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while (found := await engine.fetch(jobs[1].id)) is None or not found.status.is_final:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert found.error == "JobExecutionFailed: function 'nowhere' not found"


async def test_worker_in_the_app_outlasts_redis(
    engine_of: EngineOf,
    own_server: RedisServer,
    warnings_logged: Callable[[], list[str]],
) -> None:
    """What ended while Redis was away is not run again, and the queue is worked on."""
    engine = engine_of(redis=own_server.url, consume=True, lease=1.0)
    job = message(site.held, "one")
    await engine.send([job])
    async with working(engine) as (reporting, _, task):
        await until(lambda: reporting.log, DEADLINE)
        own_server.kill()
        await until(lambda: len(warnings_logged()) == 1, DEADLINE)
        reporting.gate.set()
        await until(lambda: ("end", "one") in reporting.log, DEADLINE)
        await until(lambda: len(warnings_logged()) == 2, DEADLINE)
        await asyncio.sleep(1.5)  # the next try, a second later, fails without a word
        await asyncio.to_thread(own_server.start)
        await eventually_taken(engine)
        await until(lambda: ("end", "word") in reporting.log, DEADLINE)
        assert not task.done()
        assert reporting.log.count(("start", "one")) == 1
    lost, *ends, back = warnings_logged()
    assert "working the queue of arq was broken off: ConnectionError" in lost
    assert len(ends) == 1
    assert ends[0].startswith(f"the end of job {job.id} cannot be noted yet: ConnectionError")
    assert back == "the queue of arq is being worked again"


async def test_worker_in_the_app_says_when_redis_is_not_there(engine_of: EngineOf) -> None:
    """The core calls it again."""
    engine = engine_of(redis=f"redis://127.0.0.1:{free_port()}", consume=True)
    with pytest.raises(Exception, match="[Cc]onnect"):
        await engine.work(Reporting(), 1, asyncio.Event(), 1.0)
    assert engine._worker.performer is None


async def test_worker_in_the_app_ends_in_time_without_redis(
    engine_of: EngineOf, own_server: RedisServer
) -> None:
    """Frozen, so that nothing answers and nothing breaks."""
    engine = engine_of(redis=own_server.url, consume=True)
    await engine.send([message(site.held, "one")])
    engine.worker_settings(poll_delay=0.02)
    reporting, stopping = Reporting(), asyncio.Event()
    task = asyncio.create_task(engine.work(reporting, 10, stopping, 0.2))
    await until(lambda: reporting.log, DEADLINE)
    own_server.freeze()
    await asyncio.sleep(0.1)  # until a poll is under way that nobody answers
    began = time.monotonic()
    stopping.set()
    await asyncio.wait_for(task, DEADLINE)
    assert time.monotonic() - began < 15
    own_server.thaw()


async def test_job_runs_for_longer_than_arq_would_allow(engine_of: EngineOf, redis: Any) -> None:
    """The limit of ARQ's worker is for its own functions; a second worker does not take it."""
    engine = engine_of(lease=2.0)
    reporting = Reporting()
    engine._worker.performer = reporting
    settings: Any = engine.worker_settings(functions=[site.own_slow], poll_delay=0.02)
    workers = [in_process(settings, job_timeout=0.3) for _ in range(2)]
    assert [worker.in_progress_timeout_s for worker in workers] == [10.3] * 2
    held, slow = message(site.held, "one"), native_message(engine, "own_slow", 30)
    await engine.send([held, slow])
    async with contextlib.AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(run(worker))
        await until(lambda: reporting.log, DEADLINE)
        await until_ended(engine, slow.id)
        await asyncio.sleep(3.0)  # longer than the lease, which has to be renewed
        assert 0 < await redis.pttl(f"arq:in-progress:{held.id}") <= 2000
        reporting.gate.set()
        await until_ended(engine, held.id)
    assert reporting.log == [("start", "one"), ("end", "one")]
    ended = await engine.fetch(slow.id)
    assert ended is not None
    assert ended.error == "TimeoutError"


@pytest.mark.parametrize("is_asked", [True, False])
async def test_limit_that_is_asked_for_counts_for_tasks_without_one(
    engine_of: EngineOf, is_asked: bool
) -> None:
    """job_timeout= of `worker_settings`; not for tasks that have one of their own."""
    engine = engine_of()
    reporting = Reporting()
    engine._worker.performer = reporting
    given: dict[str, Any] = {"job_timeout": 0.3} if is_asked else {}
    settings: Any = engine.worker_settings(poll_delay=0.02, **given)
    limited = site.held.using(name="arq-site:held-with-limit", timeout=20)
    jobs = [message(site.held, "without"), message(limited, "with")]
    await engine.send(jobs)
    async with run(in_process(settings)):
        await until(lambda: len(reporting.log) == 2, DEADLINE)
        if is_asked:
            await until_ended(engine, jobs[0].id)
        else:
            await asyncio.sleep(0.5)  # longer than any limit that there might be
        reporting.gate.set()
        for job in jobs:
            await until_ended(engine, job.id)
    found = [await engine.fetch(job.id) for job in jobs]
    first = JobStatus.failed if is_asked else JobStatus.succeeded
    assert [each and each.status for each in found] == [first, JobStatus.succeeded]


async def unwritable(ctx: dict[Any, Any]) -> object:
    """A function of ARQ's own whose result is no JSON."""
    return object()


async def failing(ctx: dict[Any, Any]) -> None:
    """A function of ARQ's own that fails."""
    raise ValueError("so it is")


@pytest.mark.parametrize("serializer", ["json", "pickle"])
async def test_what_own_functions_end_with_can_be_asked_for(
    engine_of: EngineOf, serializer: str
) -> None:
    """Also in the user's own format; that of our tasks is then the same."""
    is_json = serializer == "json"
    formats: Any = {"job_serializer": pickle.dumps, "job_deserializer": pickle.loads}
    engine = engine_of(**({} if is_json else formats))
    reporting = Reporting()
    engine._worker.performer = reporting
    settings: Any = engine.worker_settings(
        functions=[func(unwritable, name="unwritable"), func(failing, name="failing")],
        poll_delay=0.02,
    )
    ours = message(site.note, "word")
    failed, odd = (native_message(engine, name) for name in ("failing", "unwritable"))
    await engine.send([ours, failed, odd])
    async with run(in_process(settings)):
        for job in (ours, failed, odd):
            await until_ended(engine, job.id)
    reports = [await engine.fetch(job.id) for job in (ours, failed, odd)]
    succeeded, error, last = reports
    assert succeeded is not None
    assert (succeeded.status, succeeded.result) == (JobStatus.succeeded, ["word"])
    assert error is not None
    assert (error.status, error.error) == (JobStatus.failed, "ValueError: so it is")
    assert bool(error.traceback) is is_json  # which pickle loses
    assert last is not None
    if is_json:
        assert (last.status, last.error) == (JobStatus.failed, "unable to serialize result")
    else:
        assert last.status is JobStatus.succeeded


async def test_settings_for_another_queue_are_for_its_workers_only(
    engine_of: EngineOf, redis: Any
) -> None:
    """An app that works the queue itself goes on by those for its own."""
    engine = engine_of(consume=True)
    other = f"{queue_of(engine)}-other"
    settings: Any = engine.worker_settings(queue_name=other, poll_delay=0.02)
    async with working(engine) as (reporting, _, _task):
        elsewhere = engine.worker_settings(queue_name=other, keep_result=0)
        assert elsewhere.__dict__["queue_name"] == other
        jobs = [message(site.note, "here"), message(site.note.using(queue=other), "there")]
        await engine.send(jobs)
        await until(lambda: ("end", "here") in reporting.log, DEADLINE)
        await asyncio.sleep(0.1)  # so many polls that one would take the other, if it could
        assert await ids_in(redis, other) == [jobs[1].id]
        async with run(in_process(settings)):
            await until(lambda: ("end", "there") in reporting.log, DEADLINE)


async def test_subscribers_are_those_of_the_workers_that_they_are_given_for(
    engine_of: EngineOf,
) -> None:
    """R9: other workers have theirs; jobs of one process are told once, not once for each."""
    engine = engine_of()
    heard: list[JobEvent] = []
    others: list[JobEvent] = []
    settings: Any = engine.worker_settings(on_event=heard.append, poll_delay=0.02)
    engine.worker_settings(queue_name=f"{queue_of(engine)}-other", on_event=others.append)
    job = message(site.about)
    await engine.send([job])
    async with run(in_process(settings)):
        await until_ended(engine, job.id)
    assert [(event.name, event.id) for event in heard] == [
        ("started", job.id),
        ("succeeded", job.id),
    ]
    assert others == []


async def test_redis_that_breaks_under_a_job_does_not_change_its_end(
    engine_of: EngineOf,
) -> None:
    """Neither holding a job nor noting what becomes of it is worth failing it."""
    engine = engine_of(redis=f"redis://127.0.0.1:{free_port()}")
    reporting = Reporting()
    engine._worker.performer = reporting
    settings: Any = engine.worker_settings(site.held)
    [function] = settings.functions
    redis = ArqRedis(port=free_port())
    ctx: dict[Any, Any] = {"redis": redis, "job_id": "1", "job_try": 1}
    ctx["enqueue_time"] = datetime.now(timezone.utc)
    await settings.on_startup(ctx)
    envelope = {"id": "1", "call": '[["word"]]', "options": None}
    task = asyncio.create_task(function.coroutine(ctx, envelope))
    await until(lambda: reporting.log, DEADLINE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reporting.gate.set()
    assert await function.coroutine(ctx, envelope) == ["word"]
    # Somebody else's call, by its name alone.
    assert await function.coroutine(ctx, "by name") == ["by name"]
    with pytest.raises(JobFailed, match="the workers that ran it died 3 times during it"):
        await function.coroutine({**ctx, "job_try": 4}, envelope)
    await settings.on_shutdown(ctx)
    await settings.on_shutdown({})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 70.0),
        ({"job_timeout": timedelta(hours=1)}, 70.0),
        ({"functions": [site.own]}, 310.0),
        ({"functions": [site.own], "job_timeout": 600}, 610.0),
        ({"functions": [func(site.own, timeout=900)]}, 910.0),
        ({"cron_jobs": [cron(site.own, minute=0)]}, 310.0),
    ],
)
async def test_job_that_was_just_taken_is_not_lost_for_long(
    options: dict[str, Any], expected: float
) -> None:
    """What ARQ marks it for, before it is held; its own functions are never held."""
    settings: Any = ArqEngine().worker_settings(site.note, site.late, **options)
    for _ in range(2):  # a second worker knows nothing of the limits that were lifted
        worker = in_process(settings)
        assert worker.in_progress_timeout_s == expected
        worker.ctx["redis"] = ArqRedis()
        assert worker.on_startup is not None
        assert worker.on_shutdown is not None
        await worker.on_startup(worker.ctx)
        functions: Any = worker.functions
        limit = options.get("job_timeout")
        seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
        assert functions["arq-site:note"].timeout_s == (seconds or NO_LIMIT)
        assert functions["arq-site:late"].timeout_s == NO_LIMIT
        await worker.on_shutdown(worker.ctx)


async def test_lost_cancellation_leaves_no_worker_behind(
    engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py 4 loses it, if it comes at the wrong moment."""
    polls = 0

    async def poll(worker: Worker) -> None:
        nonlocal polls
        polls += 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)

    monkeypatch.setattr(Worker, "_poll_iteration", poll)
    engine = engine_of(consume=True)
    async with working(engine, poll_delay=0.0) as (_, stopping, task):
        await until(lambda: polls > 3, DEADLINE)
        stopping.set()
        await asyncio.wait_for(task, DEADLINE)
        ended = polls
        await asyncio.sleep(0.1)  # the time of five polls
    assert polls == ended


async def test_startup_that_fails_is_told_of(engine_of: EngineOf) -> None:
    """The core calls the worker again, later."""
    engine = engine_of(consume=True)

    async def fail(ctx: dict[Any, Any]) -> None:
        raise ValueError("no database")

    engine.worker_settings(on_startup=fail)
    with pytest.raises(ValueError, match="no database"):
        await engine.work(Reporting(), 1, asyncio.Event(), 1.0)


def in_process(settings: Any, **options: Any) -> Worker:
    """Return a worker as the ``arq`` command makes it, but without its signals."""
    return create_worker(settings, handle_signals=False, **options)


@contextlib.asynccontextmanager
async def run(worker: Worker) -> AsyncIterator[None]:
    """Have a worker run, until its queue is empty after the block."""
    task = asyncio.create_task(worker.async_run())
    try:
        yield
    finally:
        worker.burst = True
        await asyncio.wait_for(task, DEADLINE)
        assert worker.on_shutdown is not None
        await worker.on_shutdown(worker.ctx)
        pool: Any = worker.pool
        await pool.connection_pool.disconnect()


async def until_ended(engine: ArqEngine, id: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while (found := await engine.fetch(id)) is None or not found.status.is_final:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


async def test_runner_works_the_queue_in_its_own_process(
    engine_of: EngineOf, make_runner: Callable[..., Awaitable[Runner]], path: Path
) -> None:
    """The whole way round: journal, outbox, queue, worker, result."""
    engine = engine_of(consume=True)
    engine.worker_settings(poll_delay=0.02, functions=[func(double, name="double")])
    runner = await make_runner(engine=engine, journal=path)
    jobs = [await runner.add_task(site.plain, number) for number in range(20)]
    assert [await job.result(DEADLINE) for job in jobs] == [[2 * n, False] for n in range(20)]
    own = await runner.add_task("double", 21)
    assert await own.result(DEADLINE) == 42
    flaky = await runner.add_task(site.flaky, 2)
    assert await flaky.result(DEADLINE) == 3


async def double(ctx: dict[Any, Any], number: int) -> int:
    """A function of ARQ's own."""
    return 2 * number


@pytest.fixture(autouse=True)
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the tasks of the project write, should they run here."""
    monkeypatch.setenv("SITE_RECORD", str(tmp_path / "record-of-the-test"))
