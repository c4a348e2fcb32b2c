"""Celery, against a real Redis, a real RabbitMQ and its own worker (E1 to E5)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from asgi_bg import JobEvent, JobStatus, Runner, add_task, task
from asgi_bg._ids import new_id
from asgi_bg._options import Options
from asgi_bg.engines import Again, Message
from asgi_bg.exceptions import EngineError, JobFailed, NotSerializable
from asgi_bg.journal.codec import codec_of
from tests.helpers import need, until
from tests.services.rabbitmq import RabbitServer
from tests.services.redis import RedisServer
from tests.services.service import Service, free_port

need("celery")

import celery  # noqa: E402
from celery import Celery, chain, signals  # noqa: E402
from celery import states as celery_states  # noqa: E402
from celery.exceptions import Reject  # noqa: E402
from kombu import Exchange, Queue  # noqa: E402

from asgi_bg.engines import (  # noqa: E402
    _celery_brokers,
    _celery_publisher,
    _celery_reports,
    _celery_tasks,
)
from asgi_bg.engines._link import Link  # noqa: E402
from asgi_bg.engines.celery import CeleryEngine  # noqa: E402
from tests.engines import celery_site as site  # noqa: E402

pytestmark = pytest.mark.anyio

DEADLINE = 60.0
ROOT = Path(__file__).parent.parent.parent
TOO_MUCH = 3_000_000
SECRET = 4242424242


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One event loop is enough: what is tested here does its work in threads."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("rabbit")
    with RabbitServer(place, f"max_message_size = {TOO_MUCH - 1000}\n") as server:
        yield server


@pytest.fixture(scope="module", params=["redis", "rabbit"])
def broker(request: pytest.FixtureRequest) -> Service:
    """Either of the two."""
    server: Service = request.getfixturevalue(request.param)
    return server


class Workers:
    """Starts commands in which the tests' tasks write lines; they are killed in the end."""

    def __init__(self, folder: Path, results: str) -> None:
        self.results = results
        self.path = folder / "lines"
        self.path.touch()
        self.log = folder / "log"
        self._started: list[subprocess.Popen[bytes]] = []

    def lines(self, word: str = "") -> list[list[str]]:
        """The words of the lines so far that begin with a word."""
        lines = [line.split() for line in self.path.read_text().splitlines()]
        return [line for line in lines if not word or line[0] == word]

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                (sys.executable, "-m", *command),
                cwd=self.log.parent,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "ENGINE_RESULTS": self.results,
                    "ENGINE_LINES": str(self.path),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        return process

    def work(
        self, broker: Service, pool: str = "prefork", queue: str = "celery"
    ) -> subprocess.Popen[bytes]:
        """Start a worker, as Celery's users do."""
        return self.start(
            *("celery", "-A", "tests.engines.celery_site:celery", "worker"),
            *("--pool", pool, "--concurrency", "2", "--loglevel", "info"),
            *("--hostname", f"{new_id(0)[-8:]}@localhost", "--without-heartbeat"),
            ENGINE_URL=broker.url,
            ENGINE_QUEUE=queue,
        )

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                process.wait()
                for child in children:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()


@pytest.fixture(scope="module")
def crew(
    broker: Service, redis: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workers]:
    """A worker for the whole module, for each broker."""
    workers = Workers(tmp_path_factory.mktemp("crew"), redis.url)
    workers.work(broker)
    yield workers
    workers.close()


@pytest.fixture
def workers(redis: Service, tmp_path: Path) -> Iterator[Workers]:
    """Workers for one test."""
    made = Workers(tmp_path, redis.url)
    yield made
    made.close()


@pytest.fixture
async def engine_of(redis: Service, anyio_backend: Any) -> AsyncIterator[Callable[..., Any]]:
    """Make open engines, and close them in the end."""
    made: list[CeleryEngine] = []

    async def make(url: str, *, timeout: float = 5.0, **settings: Any) -> CeleryEngine:
        results = settings.pop("results", redis.url)
        engine = CeleryEngine(site.make_celery(url, results, **settings), timeout=timeout)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        await engine.close()


@pytest.fixture
async def engine(broker: Service, engine_of: Any) -> CeleryEngine:
    made: CeleryEngine = await engine_of(broker.url)
    return made


def message(declared: Any = site.double, *args: Any, **fields: Any) -> Message:
    now = time.time()
    values: dict[str, Any] = {
        "id": new_id(now),
        "task": declared.name,
        "call": codec_of(declared).encode(args, {})[0],
        "changes": None,
        "native": None,
        "options": declared.options,
        "queued_at": now,
        "run_after": None,
        "priority": declared.options.priority,
    }
    return Message(**{**values, **fields})


def native(engine: CeleryEngine, func: Any, *args: Any, **kwargs: Any) -> Message:
    found = engine.native(func)
    assert found is not None
    now = time.time()
    return Message(
        id=new_id(now),
        task=found.name,
        call=engine.encode_native(found.name, args, kwargs),
        changes=None,
        native=found.options,
        options=Options(),
        queued_at=now,
        run_after=None,
        priority=0,
    )


def take(app: Celery, queue: str) -> list[Any]:
    """Take all that a queue has."""
    with app.connection_for_read() as connection:
        found = []
        while (one := connection.default_channel.basic_get(queue, no_ack=True)) is not None:
            found.append(connection.default_channel.message_to_python(one))
        return found


def queue_name() -> str:
    return f"q-{new_id(time.time())[-8:]}"


def to(queue: str, declared: Any = site.double) -> Any:
    return declared.using(queue=queue)


# Sending.


async def test_a_batch_arrives_whole_and_in_its_order(engine: CeleryEngine) -> None:
    """What is acknowledged is in the queue, in the form that Celery's workers read."""
    queue = queue_name()
    messages = [message(to(queue), number) for number in range(700)]
    assert await engine.send(messages) == [None] * 700
    found = take(engine.app, queue)
    assert [one.headers["id"] for one in found] == [one.id for one in messages]
    assert found[5].headers["task"] == "celery:double"
    assert found[5].payload[:2] == [[messages[5].envelope], {}]
    assert found[5].content_type == "application/json"
    assert await engine.send([]) == []


def _plain(found: Any) -> tuple[Any, ...]:
    properties = {
        name: value
        for name, value in found.properties.items()
        # Those of the transport, and of the thread that asks for rpc:// results.
        if name not in ("delivery_tag", "reply_to", "delivery_info", "application_headers")
    }
    return found.headers, found.payload, found.content_type, found.content_encoding, properties


async def test_own_task_arrives_exactly_as_apply_async_sends_it(
    engine: CeleryEngine,
) -> None:
    """E4: headers, body and properties, whatever the arguments are."""
    queue = queue_name()
    app = engine.app
    app.tasks["theirs"].queue = queue
    at = datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone.utc)
    given: dict[str, Any] = {"at": at}
    number = [uuid.uuid4(), decimal.Decimal("1.50"), {"a": [1, 2]}]
    sent = native(engine, app.tasks["theirs"], number, **given)
    assert await engine.send([sent]) == [None]
    app.tasks["theirs"].apply_async((number,), given, task_id=sent.id)
    ours, theirs = take(app, queue)
    assert _plain(ours) == _plain(theirs)


async def test_signature_keeps_its_options_and_arguments(engine: CeleryEngine) -> None:
    """E4: what is given to add_task goes before what the signature has, as Celery does it."""
    queue = queue_name()
    app = engine.app
    link = app.tasks["noting"].si("linked")
    given = (
        app.tasks["noting"]
        .s(3)
        .set(queue=queue, expires=60, link=link, headers={"mine": 1}, countdown=0, shadow="nice")
    )
    sent = native(engine, given, 1, 2)
    assert await engine.send([sent]) == [None]
    given.apply_async((1, 2), task_id=sent.id)
    ours, theirs = take(app, queue)
    ours.headers.pop("expires"), theirs.headers.pop("expires")
    assert _plain(ours) == _plain(theirs)
    assert ours.payload[0] == [1, 2, 3]
    assert ours.headers["mine"] == 1
    fixed = native(engine, app.tasks["noting"].si(3).set(queue=queue, countdown=50), 1)
    assert await engine.send([fixed]) == [None]
    (found,) = take(app, queue)
    assert found.payload[0] == [3]
    eta = datetime.datetime.fromisoformat(found.headers["eta"]).timestamp()
    assert eta == pytest.approx(fixed.queued_at + 50, abs=0.001)


@pytest.mark.parametrize("expires", [30, "iso", "datetime"])
async def test_what_a_task_of_celerys_own_asks_for(
    rabbit: Service, engine_of: Any, expires: Any
) -> None:
    """Its attributes, stamps and dates of expiry go along as with apply_async."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(rabbit.url)

    @engine.app.task(name="odd", priority=3, typing=False, queue=queue)  # type: ignore[untyped-decorator]
    def odd() -> None: ...

    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30)
    given = odd.s().set(expires={"iso": at.isoformat(), "datetime": at}.get(expires, expires))
    given.stamp(mine="1")
    sent = native(engine, given, "more than it takes")
    assert await engine.send([sent]) == [None]
    given.apply_async(("more than it takes",), task_id=sent.id)
    ours, theirs = take(engine.app, queue)
    assert int(ours.properties.pop("expiration")) == pytest.approx(30_000, abs=5_000)
    theirs.properties.pop("expiration")
    if expires == 30:
        ours.headers.pop("expires"), theirs.headers.pop("expires")
    assert _plain(ours) == _plain(theirs)
    assert ours.headers["stamps"] == {"mine": "1"}
    assert ours.properties["priority"] == 3


async def test_arguments_that_do_not_fit_are_refused(engine: CeleryEngine) -> None:
    """As apply_async raises; the others of the batch go."""
    queue = queue_name()
    bad = native(engine, engine.app.tasks["theirs"], 1, 2, 3)
    good = message(to(queue), 1)
    answers = await engine.send([bad, good])
    assert answers[1] is None
    assert "argument" in (answers[0] or "")
    assert len(take(engine.app, queue)) == 1


def test_what_is_of_celery(anyio_backend: Any) -> None:
    """A task and a signature; not a function, another app's task or a workflow."""
    app = site.make_celery("memory://")
    other = Celery("other", broker="memory://", set_as_current=False)

    @other.task(name="elsewhere", shared=False)
    def elsewhere() -> None: ...

    engine = CeleryEngine(app)
    assert engine.native(print) is None
    assert engine.native("theirs") is None
    found = engine.native(app.tasks["theirs"])
    assert found is not None
    assert (found.name, found.options) == ("theirs", {})
    with pytest.raises(EngineError, match="elsewhere is one of another app"):
        engine.native(elsewhere)
    noting = app.tasks["noting"]
    with pytest.raises(EngineError, match="several messages"):
        engine.native(chain(noting.s(), noting.s()))
    with pytest.raises(NotSerializable, match="cannot be written as JSON"):
        engine.native(noting.s(object()))
    with pytest.raises(NotSerializable, match="arguments of Celery's own task noting"):
        engine.encode_native("noting", (object(),), {})
    other.close()
    app.close()


async def test_options_become_those_of_celery(engine: CeleryEngine) -> None:
    """Delays, queues and time limits."""
    queue = queue_name()
    run_after = time.time() + 1000
    both = [
        message(to(queue).using(timeout=7.5), 1, run_after=run_after),
        message(to(queue, site.slow_plain)),
    ]
    assert await engine.send(both) == [None, None]
    first, second = take(engine.app, queue)
    assert datetime.datetime.fromisoformat(first.headers["eta"]).timestamp() == pytest.approx(
        run_after, abs=0.001
    )
    assert first.headers["timelimit"] == [12.5, 9.5]
    assert second.headers["timelimit"] == [5.5, 0.5]
    assert second.headers["eta"] is None


async def test_redacted_arguments_are_not_shown(engine: CeleryEngine) -> None:
    """They are in the body, as they must be, and in nothing that logs and monitors show."""
    queue = queue_name()
    call = codec_of(site.flaky).encode((1, "4711"), {})[0]
    named = codec_of(site.flaky).encode((), {"times": 1, "secret": "4711"})[0]
    unknown = msg_of_unknown(queue)
    starred = codec_of(site.starred).encode((1, "4711", "4711"), {})[0]
    await engine.send(
        [
            message(to(queue, site.flaky), call=call),
            message(to(queue, site.flaky), call=named),
            unknown,
            message(to(queue), call='[["' + 2000 * "x" + '"]]'),
            message(to(queue, site.starred), call=starred),
        ]
    )
    found = take(engine.app, queue)
    shown = [(one.headers["argsrepr"], one.headers["kwargsrepr"]) for one in found]
    assert shown[:3] == [
        ('[1,"***"]', "{}"),
        ("[]", '{"times":1,"secret":"***"}'),
        ('["***"]', "{}"),
    ]
    assert len(shown[3][0]) == 1024
    assert shown[4] == ('[1,"***","***"]', "{}")
    assert all("4711" not in str(one.headers) for one in found)


def msg_of_unknown(queue: str) -> Message:
    """A message of a task that is no longer declared, and was redacted."""
    return message(
        task="celery:gone", call='[["4711"]]', options=Options(queue=queue, redact=("x",))
    )


async def test_routes_and_signals_are_celerys_own(broker: Service, engine_of: Any) -> None:
    """What a team has set up for apply_async holds for jobs."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(
        broker.url,
        task_routes={"celery:*": {"queue": queue}},
        task_annotations={"theirs": {"queue": queue}},
    )
    heard: list[Any] = []

    def before(sender: str, headers: dict[str, Any], routing_key: str, **_: Any) -> None:
        headers["trace"] = "7"
        heard.append(("before", sender, routing_key))

    def after(sender: str, headers: dict[str, Any], **_: Any) -> None:
        heard.append(("after", sender, headers["trace"]))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        await engine.send([message(site.double, 1), native(engine, engine.app.tasks["theirs"], 1)])
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert [word for word, *_ in heard] == ["before", "after"] * 2
    assert heard[0][2] == queue
    assert [one.headers["trace"] for one in take(engine.app, queue)] == ["7", "7"]


async def test_events_that_nobody_hears_are_no_refusal(broker: Service, engine_of: Any) -> None:
    """With task_send_sent_event a second message goes out for each job, to monitors if any."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(broker.url, task_send_sent_event=True)
    assert await engine.send([message(to(queue), number) for number in range(3)]) == [None] * 3
    assert len(take(engine.app, queue)) == 3
    heard: list[dict[str, Any]] = []
    with engine.app.connection_for_read() as connection:
        receiver = engine.app.events.Receiver(connection, handlers={"task-sent": heard.append})

        def listen() -> None:
            with contextlib.suppress(TimeoutError):
                receiver.capture(limit=None, timeout=1, wakeup=False)

        listening = asyncio.ensure_future(asyncio.to_thread(listen))
        deadline = time.monotonic() + DEADLINE
        while not heard:
            assert await engine.send([message(to(queue), 7)]) == [None]
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await listening
    assert heard[0]["args"] == "[7]"


async def test_older_protocol(broker: Service, engine_of: Any) -> None:
    """Celery's first form of messages, for workers that know no other."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(broker.url, task_protocol=1)
    sent = message(to(queue), 3, run_after=time.time() + 100)
    assert await engine.send([sent]) == [None]
    (found,) = take(engine.app, queue)
    assert found.payload["id"] == sent.id
    assert found.payload["args"] == [sent.envelope]
    assert found.payload["eta"]


async def test_quorum_queues_put_off_by_themselves(rabbit: Service, engine_of: Any) -> None:
    """As Celery has it: its workers declare where such messages wait."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(
        rabbit.url,
        task_default_queue=queue,
        task_default_queue_type="quorum",
        task_default_exchange_type="topic",
        task_default_exchange=f"{queue}-exchange",
        task_default_routing_key=queue,
    )
    late = message(site.double, 1, run_after=time.time() + 1000)
    with pytest.raises(Exception, match="no exchange 'celery_delayed_27'"):
        await engine.send([late])
    await engine.close()
    with engine.app.connection_for_write() as connection:
        waiting = Queue(
            f"{queue}-late", Exchange("celery_delayed_27", type="topic"), routing_key=f"#.{queue}"
        )
        waiting(connection.default_channel).declare()
        assert await engine.send([late, message(site.double, 2)]) == [None, None]
    assert [one.headers["id"] for one in take(engine.app, waiting.name)] == [late.id]
    assert len(take(engine.app, queue)) == 1


async def test_quorum_queue_of_a_direct_exchange_cannot_put_off(
    rabbit: Service, engine_of: Any
) -> None:
    """A worker holds the message then, as with other queues; and what is due just goes."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(
        rabbit.url, task_default_queue=queue, task_default_queue_type="quorum"
    )
    late = message(site.double, 1, run_after=time.time() + 1000)
    assert await engine.send([late]) == [None]
    assert len(take(engine.app, queue)) == 1
    topic: CeleryEngine = await engine_of(
        rabbit.url,
        task_default_queue=f"{queue}-2",
        task_default_queue_type="quorum",
        task_default_exchange_type="topic",
        task_default_exchange=f"{queue}-exchange",
        task_default_routing_key=queue,
    )
    assert await topic.send([message(site.double, 1, run_after=time.time() - 5)]) == [None]
    assert len(take(topic.app, f"{queue}-2")) == 1


async def test_second_address_is_tried(broker: Service, engine_of: Any) -> None:
    """Celery's list of brokers."""
    scheme = broker.url.partition(":")[0]
    dead = f"{scheme}://127.0.0.1:{free_port()}//"
    engine: CeleryEngine = await engine_of(f"{dead};{broker.url}")
    queue = queue_name()
    assert await engine.send([message(to(queue), 1)]) == [None]
    assert len(take(engine.app, queue)) == 1


async def test_priority_is_rabbitmqs(rabbit: Service, redis: Service, engine_of: Any) -> None:
    """Over Redis nothing can be put before what has none."""
    queue = queue_name()
    over_rabbit = await engine_of(rabbit.url, task_queue_max_priority=10)
    await over_rabbit.send([message(to(queue).using(priority=number), 1) for number in (0, 3, 9)])
    found = take(over_rabbit.app, queue)
    assert [one.properties.get("priority") for one in found] == [9, 3, 0]
    over_rabbit.check(site.double.using(priority=255))
    for refused in (-1, 256):
        with pytest.raises(EngineError, match="from 0 to 255"):
            over_rabbit.check(site.double.using(priority=refused))
    over_redis = await engine_of(redis.url)
    with pytest.raises(EngineError, match="asks for priority="):
        over_redis.check(site.double.using(priority=1))


async def test_what_it_lacks_is_refused(rabbit: Service, redis: Service, engine_of: Any) -> None:
    """E5: when the task is added."""
    over_redis = await engine_of(redis.url, results=None)
    over_rabbit = await engine_of(rabbit.url)
    assert "results" in over_rabbit.supports
    assert "results" not in over_redis.supports
    assert "results" not in (await engine_of(rabbit.url, results="rpc://")).supports
    with pytest.raises(EngineError, match="asks for concurrency="):
        over_rabbit.check(site.double.using(concurrency=1))
    late = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    for changed in (site.double.using(delay=3601), site.double.using(run_at=late)):
        over_rabbit.check(changed)
        with pytest.raises(EngineError, match="raise that in broker_transport_options"):
            over_redis.check(changed)
    over_redis.check(site.double.using(delay=3599))
    patient = await engine_of(redis.url, broker_transport_options={"visibility_timeout": 10**6})
    patient.check(site.double.using(run_at=late))


def test_settings_are_checked(anyio_backend: Any) -> None:
    """A mistake is told at once."""
    with pytest.raises(TypeError, match="app must be a celery.Celery, got 'app'"):
        CeleryEngine("app")
    app = Celery("x", broker="memory://", set_as_current=False)
    with pytest.raises(TypeError, match="celery -A module worker"):
        CeleryEngine(app, consume=True)
    with pytest.raises(ValueError, match="timeout"):
        CeleryEngine(app, timeout=0)
    with pytest.raises(TypeError, match="declared with @task, got <built-in"):
        CeleryEngine(app).register(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="plain functions of one event"):
        CeleryEngine(app).register(on_event=asyncio.sleep)
    assert "celery:double" not in app.tasks
    app.close()


def test_tasks_are_registered_before_and_after(anyio_backend: Any) -> None:
    """Those declared later, too, also once Celery has made its tasks."""
    app = Celery("x", broker="memory://", set_as_current=False)
    some = Celery("y", broker="memory://", set_as_current=False)
    CeleryEngine(some).register(site.double)
    CeleryEngine(app).register()
    name = f"celery:{new_id(0)}"
    task(name=f"{name}-1")(site.note)
    made = app.tasks
    task(name=f"{name}-2")(site.note)
    assert {f"{name}-1", f"{name}-2", "celery:double"} <= set(made)
    assert "celery:double" in some.tasks
    assert "celery:plain" not in some.tasks
    task(name=f"{name}-3")(lambda: None)  # whose name is no name to Celery
    assert app.tasks[f"{name}-3"].__name__ == "run"
    own = app.tasks["celery:double"]
    assert (own.acks_late, own.reject_on_worker_lost, own.max_retries) == (True, True, None)
    some.close()
    app.close()


# Refused for good.


async def test_unknown_queue_is_refused(broker: Service, engine_of: Any) -> None:
    """Where Celery is told not to make queues up."""
    engine: CeleryEngine = await engine_of(
        broker.url,
        task_create_missing_queues=False,
        task_queues=[Queue("known", routing_key="known")],
        task_default_queue="known",
    )
    unknown, known = await engine.send([message(to("unknown"), 1), message(to("known"), 2)])
    assert "unknown" in (unknown or "")
    assert known is None
    assert len(take(engine.app, "known")) == 1


async def test_exchange_without_queue_is_refused(broker: Service, engine_of: Any) -> None:
    """The broker would drop it without a word."""
    exchange = Exchange(queue_name(), type="topic")
    engine: CeleryEngine = await engine_of(broker.url)
    with engine.app.connection_for_write() as connection:
        exchange(connection.default_channel).declare()
        noting = engine.app.tasks["noting"]
        lost = noting.s().set(exchange=exchange.name, routing_key="a.b", exchange_type="topic")
        queue = queue_name()
        answers = await engine.send([native(engine, lost), message(to(queue), 1)])
    assert "a.b" in (answers[0] or "")
    assert answers[1] is None
    assert len(take(engine.app, queue)) == 1


async def test_deleted_queue_is_made_again(rabbit: Service, engine_of: Any) -> None:
    """Declared once over this connection, and gone meanwhile."""
    engine: CeleryEngine = await engine_of(rabbit.url)
    queue = queue_name()
    assert await engine.send([message(to(queue), 1)]) == [None]
    with engine.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(queue)
    assert await engine.send([message(to(queue), 2)]) == [None]
    assert len(take(engine.app, queue)) == 1


async def test_too_large_is_refused_alone(rabbit: Service, engine_of: Any) -> None:
    """RabbitMQ closes the channel on it, so that among others it cannot be told which it is."""
    engine: CeleryEngine = await engine_of(rabbit.url)
    queue = queue_name()
    large = message(to(queue), call='[["' + TOO_MUCH * "x" + '"]]')
    with pytest.raises(Exception, match="larger than configured max size"):
        await engine.send([large, message(to(queue), 1)])
    assert "larger than configured max size" in ((await engine.send([large]))[0] or "")
    assert await engine.send([message(to(queue), 1)]) == [None]


async def test_full_queue_raises_and_what_arrived_is_not_sent_again(
    rabbit: Service, engine_of: Any
) -> None:
    """E2: RabbitMQ rejects one by one, and takes them when there is room again."""
    limits = {"x-max-length": 2, "x-overflow": "reject-publish"}
    full = Queue(queue_name(), queue_arguments=limits)
    engine: CeleryEngine = await engine_of(rabbit.url, task_queues=[full])
    messages = [message(to(full.name), number) for number in range(4)]
    ids: list[str] = []
    for _ in range(2):
        with pytest.raises(ConnectionError, match="is a queue full"):
            await engine.send(messages)
    ids += [one.headers["id"] for one in take(engine.app, full.name)]
    assert await engine.send(messages) == [None] * 4
    ids += [one.headers["id"] for one in take(engine.app, full.name)]
    assert ids == [one.id for one in messages]


async def test_any_other_broker_takes_them_one_by_one(engine_of: Any) -> None:
    """What kombu speaks to, Celery does, and so does the engine."""
    engine: CeleryEngine = await engine_of("memory://")
    queue = queue_name()
    assert await engine.send([message(to(queue), number) for number in range(3)]) == [None] * 3
    assert len(take(engine.app, queue)) == 3
    assert engine.supports >= {"delay", "retries"}
    assert "priority" not in engine.supports


# Brokers that are away.


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "celery" in thread.name]


async def test_unreachable_is_told_at_once(engine_of: Any) -> None:
    """Without the seconds that kombu and Celery wait in between."""
    for scheme in ("redis", "amqp"):
        engine: CeleryEngine = await engine_of(f"{scheme}://127.0.0.1:{free_port()}")
        began = time.monotonic()
        with pytest.raises(Exception, match="refused"):
            await engine.open()
        assert time.monotonic() - began < 2
    await until(lambda: not threads(), DEADLINE)


async def test_pauses_make_way_for_a_close(
    broker: Service, engine_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given up in the middle ends soon, and is sent again whole."""
    monkeypatch.setattr(_celery_publisher, "PAUSE", 0.05)
    engine: CeleryEngine = await engine_of(broker.url, timeout=30.0)
    queue = queue_name()
    messages = [message(to(queue), number) for number in range(200)]
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(engine.send(messages), 0.3)
    began = time.monotonic()
    await engine.close()
    assert time.monotonic() - began < 1
    monkeypatch.setattr(_celery_publisher, "PAUSE", 0.0)
    await until(lambda: not threads(), DEADLINE)
    assert await engine.send(messages) == [None] * 200
    assert {one.headers["id"] for one in take(engine.app, queue)} == {one.id for one in messages}


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("maxmemory", "1", "used memory"),
        ("min-replicas-to-write", "1", "NOREPLICAS|Not enough good"),
    ],
)
async def test_errors_of_redis_quote_no_arguments(
    redis: Service, engine_of: Any, setting: str, value: str, said: str
) -> None:
    """They reach the log, past `redact=`, and the client puts the whole command into them."""
    engine: CeleryEngine = await engine_of(redis.url)
    queue = queue_name()
    assert await engine.send([message(to(queue), 1)]) == [None]
    with contextlib.closing(need("redis").Redis.from_url(redis.url)) as client:
        client.config_set(setting, value)
        try:
            with pytest.raises(EngineError, match=said) as raised:
                await Link(engine).send([message(to(queue), SECRET)])
        finally:
            client.config_set(setting, "0")
    told = "".join(traceback.format_exception(raised.value))
    assert str(SECRET) not in told
    assert await engine.send([message(to(queue), 2)]) == [None]


@pytest.mark.parametrize(
    ("arg", "kept"),
    [
        ("OOM command not allowed", "OOM command not allowed"),
        ("Command # 1 (LPUSH q (x) y) of pipeline caused error: OOM", "OOM"),
        ("ERR unknown command 'LPUSH', with args beginning with: 'q' 'x'", "ERR unknown command"),
        (1, 1),
    ],
)
def test_commands_are_not_quoted(arg: Any, kept: Any, anyio_backend: Any) -> None:
    """Neither by the client nor by Redis."""
    left = _celery_brokers._without_commands(arg)
    assert left == kept or left.startswith(kept)
    assert left == arg or not {"q", "x"} & set(left.replace("'", " ").split())


async def test_frozen_broker_holds_up_nobody(broker: Service, engine_of: Any) -> None:
    """Neither the loop nor close() nor a growing number of threads; and then it goes on."""
    engine: CeleryEngine = await engine_of(broker.url, timeout=0.5)
    queue = queue_name()
    assert await engine.send([message(to(queue), 0)]) == [None]
    broker.freeze()
    try:
        for number in range(1, 6):
            began = time.monotonic()
            with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
                await asyncio.wait_for(engine.send([message(to(queue), number)]), 0.5)
            await engine.close()
            assert time.monotonic() - began < 2
            assert len(threads()) <= 2
    finally:
        broker.thaw()
    await sent_again(engine, [message(to(queue), 9)])
    await until(lambda: len(threads()) == 1, DEADLINE)
    calls = [one.payload[0][0]["call"] for one in take(engine.app, queue)]
    assert calls[0] == "[[0]]"
    assert calls[-1] == "[[9]]"


async def test_frozen_and_idle_connection_is_dropped(broker: Service, engine_of: Any) -> None:
    """close() asks politely, and not for long."""
    engine: CeleryEngine = await engine_of(broker.url)
    assert await engine.send([message(to(queue_name()), 0)]) == [None]
    broker.freeze()
    try:
        began = time.monotonic()
        await engine.close()
        assert time.monotonic() - began < 2
        await until(lambda: not threads(), DEADLINE)
    finally:
        broker.thaw()


async def test_silent_listener_is_left(engine_of: Any) -> None:
    """A port that takes connections and says nothing, as a broken proxy does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        for scheme in ("redis", "amqp"):
            engine: CeleryEngine = await engine_of(f"{scheme}://127.0.0.1:{port}", timeout=0.5)
            with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
                await asyncio.wait_for(engine.open(), 0.3)
            await engine.close()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(engine.open(), 0.3)
            await engine.close()
            assert len(threads()) <= 2
            await until(lambda: not threads(), DEADLINE)


async def sent_again(engine: CeleryEngine, messages: list[Message]) -> None:
    """Send, as often as it takes."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            assert not any(await engine.send(messages))
        except Exception:
            await engine.close()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        else:
            return


async def test_connection_that_broke_while_idle_is_made_anew(
    broker: Service, engine_of: Any
) -> None:
    """The first job after a night, or after a restart of the broker, is not the one to fail."""
    engine: CeleryEngine = await engine_of(broker.url)
    queue = queue_name()
    assert await engine.send([message(to(queue), 1)]) == [None]
    assert engine._sending.held is not None
    connection = engine._sending.held._connection
    if isinstance(broker, RabbitServer):
        connection._connection.transport.sock.shutdown(socket.SHUT_RD)
    else:
        connection._connection.channels[0].client.connection_pool.disconnect()
    assert await engine.send([message(to(queue), 2)]) == [None]
    assert len(take(engine.app, queue)) == 2


# In workers.


async def outcome(job: Any) -> Any:
    """What a job returns, or the error it fails with."""
    try:
        return await job.result(DEADLINE)
    except JobFailed as exc:
        return str(exc).partition("has no result: ")[2]


async def test_jobs_of_all_kinds_in_a_worker(
    engine: CeleryEngine, make_runner: Any, crew: Workers, tmp_path: Path
) -> None:
    """From add_task to the result, with the worker's own means for retries and time limits."""
    runner: Runner = await make_runner(engine=engine, journal=tmp_path / "jobs.db")
    order = site.Order(1, datetime.datetime(2030, 1, 2, 3, 4, 5, 6), uuid.uuid4())
    jobs = {
        "double": await runner.add_task(site.double, 4),
        "plain": await runner.add_task(site.plain, order, card="4711"),
        "flaky": await runner.add_task(site.flaky, 1, "4711"),
        "hopeless": await runner.add_task(site.flaky, 9, secret="4711"),
        "slow": await runner.add_task(site.slow),
        "slow-plain": await runner.add_task(site.slow_plain),
        "exits": await runner.add_task(site.exits),
        "parent": await runner.add_task(site.parent, 21),
        "theirs": await runner.add_task(engine.app.tasks["theirs"], 1, at=order.at),
    }
    found = {name: await outcome(job) for name, job in jobs.items()}
    assert "print is added inside a worker" in found.pop("parent")
    assert found == {
        "double": 8,
        "plain": site.Order(2, order.at, order.key),
        "flaky": 2,
        "hopeless": "ValueError: attempt 3",
        "slow": "TimeoutError: task celery:slow took longer than 0.5 seconds",
        "slow-plain": "TimeoutError: task celery:slow-plain took longer than 0.5 seconds",
        "exits": "RuntimeError: SystemExit: 3",
        "theirs": [1, order.at],
    }
    infos = {name: await job.info() for name, job in jobs.items()}
    assert (infos["flaky"].attempt, infos["hopeless"].attempt) == (2, 3)
    assert infos["hopeless"].status is JobStatus.failed
    assert "raise ValueError" in (infos["hopeless"].traceback or "")
    assert infos["double"].finished_at is not None
    assert crew.lines("slow") == [["slow", "cleaned", "up"]]
    assert crew.lines("exits") == [["exits", "1"], ["exits", "2"]]
    assert ["double", "4", jobs["double"].id, "1"] in crew.lines()
    await until(lambda: any(line[1] == "21" for line in crew.lines("double")), DEADLINE)
    await until(lambda: ["theirs", "21", "NoneType"] in crew.lines(), DEADLINE)
    assert "4711" not in crew.log.read_text()


async def test_delay_progress_and_cancel(
    engine: CeleryEngine, make_runner: Any, crew: Workers, tmp_path: Path
) -> None:
    """A job that waits can be cancelled, and one that runs cannot."""
    runner: Runner = await make_runner(engine=engine, journal=tmp_path / "jobs.db")
    late = await runner.add_task(site.double.using(delay=1.0), 77)
    waits = await runner.add_task(site.double.using(delay=1000), 78)
    gate = tmp_path / "gate"
    job = await runner.add_task(site.held, str(gate))

    async def has_progress() -> bool:
        return (await job.info()).progress is not None

    deadline = time.monotonic() + DEADLINE
    while not await has_progress():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    info = await job.info()
    assert info.status is JobStatus.running
    assert (info.progress, info.message, info.attempt) == (0.25, "waiting", 1)
    assert info.started_at is not None
    assert not await engine.cancel(job.id)
    assert (await runner.cancel(waits.id)).status is JobStatus.cancelled
    gate.touch()
    assert await job.result(DEADLINE) == "released"
    assert not await engine.cancel(job.id)
    assert await late.result(DEADLINE) == 154
    finished = (await late.info()).finished_at
    assert finished is not None
    assert (finished - (await late.info()).queued_at).total_seconds() >= 1.0
    assert not any(line[1] == "78" for line in crew.lines("double"))


async def test_unknown_task_is_told(engine: CeleryEngine, crew: Workers) -> None:
    """J8: Celery itself drops what no worker knows, and its result backend says so."""
    unknown = msg_of_unknown("celery")
    assert await engine.send([unknown]) == [None]
    report = None
    deadline = time.monotonic() + DEADLINE
    while report is None:
        report = await engine.fetch(unknown.id)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert report.status is JobStatus.failed
    assert report.error == "NotRegistered: celery:gone"


async def test_arguments_that_no_longer_fit_fail_the_job(
    engine: CeleryEngine, crew: Workers
) -> None:
    """J8: with the reason; the worker goes on."""
    bad = message(site.double, call='[["x"]]')
    assert await engine.send([bad]) == [None]
    report = None
    deadline = time.monotonic() + DEADLINE
    while report is None:
        report = await engine.fetch(bad.id)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert report.status is JobStatus.failed
    assert "UndecodableCall: task celery:double cannot take" in (report.error or "")


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_other_pools(
    redis: Service, engine_of: Any, make_runner: Any, workers: Workers, tmp_path: Path, pool: str
) -> None:
    """Each thread keeps its event loop, and async tasks are timed by it."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(redis.url, task_default_queue=queue)
    workers.work(redis, pool, queue)
    runner: Runner = await make_runner(engine=engine, journal=tmp_path / "jobs.db")
    jobs = [await runner.add_task(site.where) for _ in range(4)]
    slow = await runner.add_task(site.slow)
    exits = await runner.add_task(site.exits)
    flaky = await runner.add_task(site.flaky, 2, "s")
    places = {await outcome(job) for job in jobs}
    assert len({place.split()[0] for place in places}) == len(places)
    assert await outcome(flaky) == 3
    assert await outcome(slow) == "TimeoutError: task celery:slow took longer than 0.5 seconds"
    assert await outcome(exits) == "RuntimeError: SystemExit: 3"


def holder(workers: Workers, count: int) -> int | None:
    lines = workers.lines("held")
    return int(lines[count - 1][2]) if len(lines) >= count else None


async def test_job_of_a_killed_process_runs_again(
    broker: Service, engine_of: Any, make_runner: Any, workers: Workers, tmp_path: Path
) -> None:
    """First a process of the pool is killed in the job, and then the worker with all of them."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(broker.url, task_default_queue=queue)
    runner: Runner = await make_runner(engine=engine, journal=tmp_path / "jobs.db")
    gate = tmp_path / "gate"
    worker = workers.work(broker, queue=queue)
    job = await runner.add_task(site.held, str(gate))
    await until(lambda: holder(workers, 1), DEADLINE)
    os.kill(holder(workers, 1) or 0, signal.SIGKILL)
    await until(lambda: holder(workers, 2), DEADLINE)
    assert holder(workers, 1) != holder(workers, 2)
    family = [worker.pid, *(child.pid for child in psutil.Process(worker.pid).children())]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    worker.wait()
    if isinstance(broker, RedisServer):
        # The visibility_timeout of the tests' app; a worker looks when it starts.
        await asyncio.sleep(3.5)
    workers.work(broker, queue=queue)
    await until(lambda: holder(workers, 3), DEADLINE)
    gate.touch()
    assert await job.result(DEADLINE) == "released"
    assert {line[1] for line in workers.lines("held")} == {job.id}


# End to end.


@pytest.mark.parametrize("journal", ["jobs.db", ""])
async def test_from_a_request_to_the_worker(
    broker: Service, workers: Workers, tmp_path: Path, journal: str
) -> None:
    """E1: an app and a worker, two commands; with a journal and without."""
    httpx = need("httpx")
    port, queue = free_port(), queue_name()
    workers.start(
        *("uvicorn", "tests.engines.celery_site:app", "--port", str(port), "--log-level", "error"),
        ENGINE_JOURNAL=str(tmp_path / journal) if journal else "",
        ENGINE_URL=broker.url,
        ENGINE_QUEUE=queue,
    )
    workers.work(broker, queue=queue)
    ids: list[str] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

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
        ids += await asyncio.gather(*(request(number) for number in range(1, 20)))
    await until(lambda: len(workers.lines()) == 40, DEADLINE)
    assert sorted(line[2] for line in workers.lines("double")) == sorted(ids)
    assert sorted(int(line[1]) for line in workers.lines("theirs")) == list(range(20))
    assert all(line[2] == "datetime" for line in workers.lines("theirs"))


async def test_the_example(redis: Service, workers: Workers) -> None:
    """As the two commands at its top say."""
    httpx = need("httpx")
    port = free_port()
    # In a database of its own, as other workers of this file do not know its task.
    places = {"BROKER_URL": redis.url.replace("/0", "/5"), "RESULTS_URL": workers.results}
    name = "examples.engines.celery_app"
    workers.start("uvicorn", f"{name}:app", "--port", str(port), **places)
    workers.start("celery", "-A", f"{name}:celery", "worker", **places)
    accepted = ""
    deadline = time.monotonic() + DEADLINE
    async with httpx.AsyncClient() as client:
        while not accepted:
            with contextlib.suppress(httpx.TransportError):
                accepted = (await client.get(f"http://127.0.0.1:{port}/")).text
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    id = accepted.removeprefix("accepted, job ").strip()  # noqa: A001
    await until(lambda: _says(workers, "invoice for order 7", id), DEADLINE)


# What the result backend says.


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"status": celery_states.PENDING}, None),
        ({"status": celery_states.STARTED, "result": {"pid": 1}}, ("running", 1, None)),
        ({"status": "MADE UP", "result": None}, ("running", 1, None)),
        ({"status": celery_states.RETRY, "result": ValueError("no")}, ("queued", 0, "ValueError")),
        ({"status": celery_states.FAILURE, "result": "text", "retries": 2}, ("failed", 3, "text")),
        ({"status": celery_states.REVOKED, "result": None}, ("cancelled", 0, None)),
        (
            {"status": celery_states.FAILURE, "result": {"exc_type": "E", "exc_message": ["a", 1]}},
            ("failed", 1, "E: a, 1"),
        ),
    ],
)
def test_states_of_the_result_backend(meta: dict[str, Any], expected: Any) -> None:
    """As this project's states."""
    report = _celery_reports.report_of(meta)
    if expected is None:
        assert report is None
        return
    assert report is not None
    assert (report.status, report.attempt) == expected[:2]
    assert (report.error or "").startswith(expected[2] or "")


async def test_close_breaks_off_what_is_asked(
    rabbit: Service, engine_of: Any, tmp_path: Path
) -> None:
    """A result backend that is stuck, and workers that are waited for."""
    with RedisServer(tmp_path / "results") as results:
        engine: CeleryEngine = await engine_of(rabbit.url, results=results.url)
        assert not await engine.cancel(new_id(0))
        results.freeze()
        asking = asyncio.ensure_future(engine.fetch(new_id(0)))
        await asyncio.sleep(0.1)  # until the call waits for an answer, in its thread
        began = time.monotonic()
        await engine.close()
        with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
            await asking
        assert time.monotonic() - began < 2
        results.thaw()
        await until(lambda: not threads(), DEADLINE)


async def test_stuck_thread_is_waited_for_and_not_joined_by_another(
    engine_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should a call not even end when its connection is broken."""
    engine: CeleryEngine = await engine_of("memory://", timeout=0.2)
    begun, gate = threading.Event(), threading.Event()

    def stick(_publisher: object) -> None:
        begun.set()
        gate.wait()

    await engine.open()
    stuck = asyncio.ensure_future(engine._sending.call(stick))
    await until(begun.is_set, DEADLINE)
    stuck.cancel()
    await engine.close()
    with pytest.raises(ConnectionError, match="has not come to its end yet"):
        await engine.open()
    assert await engine.fetch(new_id(0)) is None
    gate.set()
    await engine.open()


async def test_frozen_result_backend_does_not_stop_sending(
    rabbit: Service, engine_of: Any, tmp_path: Path
) -> None:
    """It has a thread and a connection of its own."""
    with RedisServer(tmp_path / "results") as results:
        engine: CeleryEngine = await engine_of(rabbit.url, results=results.url, timeout=0.5)
        assert await engine.fetch(new_id(0)) is None
        results.freeze()
        asking = asyncio.ensure_future(engine.fetch(new_id(0)))
        assert await engine.send([message(to(queue_name()), 1)]) == [None]
        with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
            await asyncio.wait_for(asking, 5)
        results.thaw()
        assert await engine.fetch(new_id(0)) is None


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_cancel_without_a_result_backend(
    rabbit: Service, engine_of: Any, workers: Workers, tmp_path: Path, pool: str
) -> None:
    """Only what a worker holds, and can still drop, is known to be dropped."""
    queue = queue_name()
    engine: CeleryEngine = await engine_of(rabbit.url, task_default_queue=queue, results=None)
    gate = tmp_path / "gate"
    busy = [message(site.held, str(gate)) for _ in range(2)]
    waits = message(site.double, 1)
    put_off = message(site.double, 2, run_after=time.time() + 1000)
    assert not await engine.cancel(new_id(0))
    workers.work(rabbit, pool, queue)
    await engine.send([*busy, waits, put_off])
    await until(lambda: len(workers.lines("held")) == 2, DEADLINE)
    await until(lambda: put_off.id in workers.log.read_text(), DEADLINE)
    assert not await engine.cancel(busy[0].id)
    # Celery's pool of threads has been given it, and runs it whatever is revoked.
    assert await engine.cancel(waits.id) is (pool == "prefork")
    # Since Celery 5.7 a worker names one that waits for its time among those that it can drop.
    is_named = pool == "prefork" and celery.VERSION >= (5, 7)
    assert await engine.cancel(put_off.id) is is_named
    gate.touch()
    word = "Discarding revoked task:" if pool == "prefork" else "succeeded in"
    await until(lambda: _says(workers, word, waits.id), DEADLINE)
    assert len(workers.lines("double")) == (pool == "threads")


def _says(workers: Workers, word: str, id: str) -> bool:
    return any(word in line and id in line for line in workers.log.read_text().splitlines())


# What happens in a worker, looked at from within.


@pytest.fixture
def inside() -> Iterator[CeleryEngine]:
    """An engine with a broker and results in memory, whose tasks are called right here."""
    app = site.make_celery("memory://", "cache+memory://", task_default_queue=queue_name())
    engine = CeleryEngine(app)
    engine.register(site.double, site.flaky, site.exits, site.parent, site.held, site.adds)
    yield engine
    app.close()


def call(engine: CeleryEngine, declared: Any, *args: Any) -> Any:
    """Run a job as a worker does, with its retries."""
    envelope = message(declared, *args).envelope
    return engine.app.tasks[declared.name].apply((envelope,), task_id=envelope["id"])


def test_jobs_run_as_celerys_own(inside: CeleryEngine, tmp_path: Path) -> None:
    """With Celery's retries and states."""
    assert call(inside, site.double, 4).get() == 8
    assert call(inside, site.flaky, 2, "s").get() == 3
    failed = call(inside, site.flaky, 9, "s")
    assert failed.state == celery_states.FAILURE
    assert isinstance(failed.result, ValueError)
    assert "SystemExit: 3" in str(call(inside, site.exits).result)


def test_progress_needs_a_result_backend(
    inside: CeleryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_logged: Any
) -> None:
    """And a job goes on without its being shown."""
    gate = tmp_path / "gate"
    gate.touch()
    own = inside.app.tasks["celery:held"]
    stored: list[Any] = []
    monkeypatch.setattr(own, "update_state", lambda **state: stored.append(state))
    assert call(inside, site.held, str(gate)).get() == "released"
    assert stored[0]["state"] == "PROGRESS"
    assert stored[0]["meta"]["fraction"] == 0.25
    monkeypatch.setattr(own, "update_state", lambda **_: 1 / 0)
    assert call(inside, site.held, str(gate)).get() == "released"
    assert any("could not be stored: division" in line for line in warnings_logged())
    app = site.make_celery("memory://")
    engine = CeleryEngine(app)
    engine.register(site.held)
    assert call(engine, site.held, str(gate)).get() == "released"
    app.close()


def test_retry_that_the_broker_does_not_take_goes_back(anyio_backend: Any) -> None:
    """Celery would drop the message; back in its queue, it loses nothing."""

    class Refusing:
        request = SimpleNamespace(argsrepr="[...]", kwargsrepr="{}")

        def retry(self, **_: Any) -> None:
            raise Reject("the broker is away", requeue=False)

    found = _celery_tasks._again(Refusing(), Again(1.0, ValueError("no")))
    assert isinstance(found, Reject)
    assert found.requeue
    assert found.reason == "the broker is away"


@pytest.mark.parametrize(
    ("exc", "is_end"),
    [
        (SystemExit(3), False),
        (SystemExit(None), False),
        (SystemExit(-241), True),
        (KeyboardInterrupt(), True),
        (ValueError(), False),
    ],
)
def test_what_ends_a_worker(exc: BaseException, is_end: bool) -> None:
    """And what is only the end of a job."""
    assert _celery_tasks.ends_worker(exc) is is_end


def test_tasks_add_more(inside: CeleryEngine) -> None:
    """Declared ones and Celery's own; the broker has them when add_task returns."""
    assert "print is added inside a worker" in call(inside, site.parent, 5).get()
    queue = inside.app.conf.task_default_queue
    found = take(inside.app, queue)
    assert [one.headers["task"] for one in found] == ["celery:double", "theirs"]
    assert found[0].payload[0][0]["call"] == "[[5]]"
    assert call(inside, site.adds, "delay", 100.0).get() == "refused"
    (late,) = take(inside.app, queue)
    eta = datetime.datetime.fromisoformat(late.headers["eta"])
    assert eta.timestamp() == pytest.approx(time.time() + 100, abs=10)


def test_what_tasks_add_is_told_and_goes_on_with_the_trace(inside: CeleryEngine) -> None:
    """R9, W4: once the broker has it; what it does not take was never added."""
    heard: list[JobEvent] = []
    inside.app.conf.task_create_missing_queues = False
    inside.register(site.parent, on_event=heard.append)
    trace = f"00-{1:032x}-{2:016x}-01"
    envelope = {**message(site.parent, 5).envelope, "trace": trace}
    inside.app.tasks["celery:parent"].apply((envelope,), task_id=envelope["id"]).get()
    sent, _ = take(inside.app, inside.app.conf.task_default_queue)
    assert sent.payload[0][0]["trace"] == trace
    assert [(event.name, event.task) for event in heard] == [
        ("started", "celery:parent"),
        ("queued", "celery:double"),
        ("handed_over", "celery:double"),
        ("queued", "theirs"),
        ("handed_over", "theirs"),
        ("succeeded", "celery:parent"),
    ]
    added = heard[2].job
    assert added.id == sent.payload[0][0]["id"]
    assert (added.owner, added.status, added.attempt) == ("engine:celery", "queued", 0)
    assert added.handed_over_at is not None
    heard.clear()
    call(inside, site.adds, "queue", "elsewhere")
    assert [event.name for event in heard] == ["started", "failed"]


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("key", "k", "asks for key=, which needs a journal"),
        ("concurrency", 1, "asks for concurrency="),
        ("queue", "elsewhere", "Celery does not take a job of task celery:double"),
    ],
)
def test_what_tasks_cannot_add(inside: CeleryEngine, option: str, value: Any, text: str) -> None:
    """It is told in the task."""
    inside.app.conf.task_create_missing_queues = False
    assert text in str(call(inside, site.adds, option, value).result)


def test_tasks_cannot_add_without_the_broker(anyio_backend: Any) -> None:
    """Then the job fails, or is tried again, rather than promise."""
    app = site.make_celery(f"amqp://127.0.0.1:{free_port()}")
    engine = CeleryEngine(app)
    engine.register(site.parent)
    found = call(engine, site.parent, 1).result
    assert isinstance(found, EngineError)
    assert "a job of task celery:double could not be sent" in str(found)
    app.close()


def test_add_task_knows_nothing_of_celery_elsewhere() -> None:
    """The collector of a worker is there in its jobs, and not after them."""
    with pytest.raises(Exception, match="no request is being served here"):
        add_task(site.double, 1)
