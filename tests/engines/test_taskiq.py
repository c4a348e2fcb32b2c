"""taskiq: what arrives at its brokers, what its workers make of it, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import JobStatus, Runner, Task
from asgi_bg._options import Options
from asgi_bg.engines import Again, Message
from asgi_bg.exceptions import EngineError, JobFailed, NotSerializable
from asgi_bg.journal.codec import codec_of
from tests.helpers import need, until
from tests.services.rabbitmq import RabbitServer
from tests.services.redis import RedisServer
from tests.services.service import free_port

need("taskiq")
need("taskiq_redis")
need("taskiq_aio_pika")

import aio_pika  # noqa: E402
from redis.asyncio import Redis  # noqa: E402
from taskiq import (  # noqa: E402
    AckableMessage,
    AsyncBroker,
    Context,
    InMemoryBroker,
    SmartRetryMiddleware,
    TaskiqEvents,
    TaskiqMessage,
    TaskiqMiddleware,
)
from taskiq.exceptions import NoResultError  # noqa: E402
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue  # noqa: E402
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker  # noqa: E402

from asgi_bg.engines._taskiq_jobs import taskiq_message  # noqa: E402
from asgi_bg.engines._taskiq_worker import AppReceiver  # noqa: E402
from asgi_bg.engines.taskiq import TaskiqEngine  # noqa: E402
from tests.engines import taskiq_site as site  # noqa: E402

pytestmark = pytest.mark.anyio

DEADLINE = 60.0
"""How long anything may take that a process is waited for; far more than it needs."""

ROOT = Path(__file__).parents[2]

Urls = dict[str, str]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    """A Redis and a RabbitMQ that all tests share."""
    with (
        RedisServer(tmp_path_factory.mktemp("redis")) as redis,
        RabbitServer(tmp_path_factory.mktemp("rabbit")) as rabbit,
    ):
        yield {"redis": redis.url, "rabbit": rabbit.url}


def message(declared: Task[..., Any], *args: Any, **changes: Any) -> Message:
    """Return a job of a declared task, as the core hands it over."""
    values: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "task": declared.name,
        "call": codec_of(declared).encode(args, {})[0],
        "changes": None,
        "native": None,
        "options": declared.options,
        "queued_at": time.time(),
        "run_after": None,
        "priority": declared.options.priority,
    }
    return Message(**{**values, **changes})


def native_message(engine: TaskiqEngine, func: Any, *args: Any, **kwargs: Any) -> Message:
    """Return a job of a task of taskiq's own, as the core hands it over."""
    native = engine.native(func)
    assert native is not None
    return message(
        site.note,
        "",
        task=native.name,
        native=json.loads(json.dumps(native.options)),  # as it comes out of a journal
        call=engine.encode_native(native.name, args, kwargs),
        options=Options(),
    )


class Desk:
    """A broker with a queue of its own, the engine for it, and a look into the queue."""

    def __init__(self, kind: str, urls: Urls, **options: Any) -> None:
        self.kind = kind
        self.urls = urls
        self.queue = f"queue-{uuid.uuid4().hex}"
        self.broker = site.make_broker(kind, urls, self.queue)
        self.own = site.declare(self.broker)
        self.engine = TaskiqEngine(self.broker, **options)

    async def bodies(self, queue: str | None = None) -> list[bytes]:
        """What is in the queue, in its order; RabbitMQ's is emptied by that."""
        queue = queue or self.queue
        if self.kind.startswith("rabbit"):
            return [found.body for found in await self.messages(queue)]
        async with Redis.from_url(self.urls["redis"]) as redis:
            if self.kind == "list":
                return list(reversed(await redis.lrange(queue, 0, -1)))  # type: ignore[misc]
            return [fields[b"data"] for _, fields in await redis.xrange(queue)]

    async def messages(self, queue: str | None = None) -> list[Any]:
        """What is in a queue of RabbitMQ, with all that stands on its envelopes."""
        connection = await aio_pika.connect(self.urls["rabbit"])
        async with connection:
            channel = await connection.channel()
            found = []
            there = await channel.get_queue(queue or self.queue, ensure=False)
            while (one := await there.get(fail=False, no_ack=True)) is not None:
                found.append(one)
            return found


@pytest.fixture
async def desk_of(urls: Urls) -> Any:
    """Make desks, and close them in the end."""
    made: list[Desk] = []

    def make(kind: str, **options: Any) -> Desk:
        made.append(Desk(kind, urls, **options))
        return made[-1]

    yield make
    for desk in made:
        await desk.engine.close()
        await desk.broker.shutdown()  # of what was used without being started


DeskOf = Callable[..., Desk]

KINDS = ["stream", "list", "rabbit"]
each_kind = pytest.mark.parametrize("kind", KINDS)

one_loop = pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})])
"""For what takes long, and happens in other processes."""


# Sending.


@each_kind
async def test_own_task_arrives_exactly_as_kiq_sends_it(desk_of: DeskOf, kind: str) -> None:
    """E4: the same bytes, from a decorated task and from a kicker with labels."""
    desk = desk_of(kind)
    await desk.engine.open()
    item = site.Item(1, datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    for func in (
        desk.own["typed"],
        desk.own["typed"].kicker().with_labels(colour="blue", ratio=0.5, is_big=True, raw=b"x"),
        desk.own["labelled"].kicker().with_labels(priority=3),
    ):
        sent = native_message(desk.engine, func, item.when, item, word="w")
        assert await desk.engine.send([sent]) == [None]
        kicker = func if hasattr(func, "with_task_id") else func.kicker()
        await kicker.with_task_id(sent.id).kiq(item.when, item, word="w")
    if kind != "rabbit":
        bodies = await desk.bodies()
        assert len(bodies) == 6
        assert bodies[::2] == bodies[1::2]
        return
    envelopes = [
        (found.body, found.headers, found.priority, found.delivery_mode, found.routing_key)
        for found in await desk.messages()
    ]
    # Those of priority 3 come first.
    assert len(envelopes) == 6
    assert envelopes[::2] == envelopes[1::2]


@each_kind
async def test_jobs_of_ours_arrive_in_their_order_with_one_argument(
    desk_of: DeskOf, kind: str
) -> None:
    """E2: a batch is acknowledged as a whole, each job under its own id and task's name."""
    desk = desk_of(kind)
    jobs = [message(site.note, f"word {number}") for number in range(500)]
    assert await desk.engine.send(jobs) == [None] * 500
    found = [json.loads(body) for body in await desk.bodies()]
    assert [job["task_id"] for job in found] == [job.id for job in jobs]
    assert {job["task_name"] for job in found} == {"site:note"}
    assert [job["args"] for job in found] == [[job.envelope] for job in jobs]
    assert {str(job["kwargs"]) for job in found} == {"{}"}


async def test_nothing_is_nothing(desk_of: DeskOf) -> None:
    assert await desk_of("stream").engine.send([]) == []


class Recording(TaskiqMiddleware):
    """Sees messages before and after they are sent, and changes them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        self.seen.append(f"before {message.task_name}")
        return message.model_copy(update={"labels": {**message.labels, "seen": "yes"}})


class Counting(TaskiqMiddleware):
    """Has plain functions as hooks."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        self.seen.append(f"again {message.labels['seen']}")
        return message

    def post_send(self, message: TaskiqMessage) -> None:
        self.seen.append(f"after {message.labels['seen']}")


@each_kind
async def test_middlewares_see_and_change_what_is_sent(desk_of: DeskOf, kind: str) -> None:
    """As with `kiq`: all before it is sent, the last first after that."""
    desk = desk_of(kind)
    recording = Recording()
    desk.broker.add_middlewares(recording, Counting(recording.seen))
    assert await desk.engine.send([message(site.note, "word")]) == [None]
    assert recording.seen == ["before site:note", "again yes", "after yes"]
    [body] = await desk.bodies()
    assert json.loads(body)["labels"]["seen"] == "yes"


class Failing(TaskiqMiddleware):
    """Fails when all is done."""

    def post_send(self, message: TaskiqMessage) -> None:
        raise ValueError("too late")


async def test_middleware_that_fails_after_sending_does_not_send_again(
    desk_of: DeskOf, errors: Callable[[], list[str]]
) -> None:
    """What the broker has is acknowledged, and the failure is logged."""
    desk = desk_of("list")
    desk.broker.add_middlewares(Failing())
    assert await desk.engine.send([message(site.note, "word")]) == [None]
    assert errors() == ["post_send of Failing failed"]


async def test_queue_label_chooses_another_list(desk_of: DeskOf) -> None:
    """The queue= of a task is what the broker calls queue_name."""
    desk = desk_of("list")
    elsewhere = site.note.using(queue=f"{desk.queue}.other")
    desk.engine.check(elsewhere)
    jobs = [message(site.note, "here"), message(elsewhere, "there")]
    assert await desk.engine.send(jobs) == [None, None]
    assert len(await desk.bodies()) == len(await desk.bodies(f"{desk.queue}.other")) == 1


async def test_stream_keeps_to_its_length(urls: Urls) -> None:
    """The command is the one that the broker itself would send."""
    queue = f"queue-{uuid.uuid4().hex}"
    broker = RedisStreamBroker(urls["redis"], queue_name=queue, maxlen=10, approximate=False)
    engine = TaskiqEngine(broker)
    await engine.send([message(site.note, "word") for _ in range(25)])
    async with Redis.from_url(urls["redis"]) as redis:
        assert await redis.xlen(queue) == 10
    await engine.close()


async def test_consumer_group_is_there_again_after_redis_lost_its_data(desk_of: DeskOf) -> None:
    """Otherwise a worker would make it later, and begin to read behind what is sent now."""
    desk = desk_of("stream")
    await desk.engine.send([message(site.note, "lost")])
    async with Redis.from_url(desk.urls["redis"]) as redis:
        await redis.delete(desk.queue)
        await desk.engine.send([message(site.note, "kept")])
        [group] = await redis.xinfo_groups(desk.queue)
        assert group["last-delivered-id"] == b"0-0"
        assert len(await desk.bodies()) == 1


async def test_wrong_kind_of_key_is_no_acknowledgement(desk_of: DeskOf) -> None:
    """An error in the answer to one command fails the batch."""
    desk = desk_of("stream")
    async with Redis.from_url(desk.urls["redis"]) as redis:
        await redis.set(desk.queue, "no stream")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await desk.engine.send([message(site.note, "word")])


async def test_unknown_broker_is_sent_to_one_by_one() -> None:
    """A broker of which nothing is known gets its own `kick` called, and its errors count."""
    broker = InMemoryBroker()
    engine = TaskiqEngine(broker)
    kicked: list[str] = []

    async def kick(message: Any) -> None:
        kicked.append(message.task_id)
        if len(kicked) > 50:
            raise OSError("full")

    broker.kick = kick  # type: ignore[method-assign]
    jobs = [message(site.note, "word") for _ in range(50)]
    assert await engine.send(jobs) == [None] * 50
    assert kicked == [job.id for job in jobs]
    with pytest.raises(OSError, match="full"):
        await engine.send(jobs[:1])
    await engine.close()


async def cut(broker: Any, side: str) -> None:
    """Break a connection to RabbitMQ, and wait until it has mended itself."""
    channel = getattr(broker, f"{side}_channel")
    before = await channel.get_underlay_channel()
    connection = getattr(broker, f"{side}_conn")
    await connection.transport.connection.close(ConnectionError("cut by the test"))
    deadline = time.monotonic() + DEADLINE
    while True:
        assert time.monotonic() < deadline
        with contextlib.suppress(Exception):
            if await channel.get_underlay_channel() is not before:
                return
        await asyncio.sleep(0.05)


# What is refused.


@pytest.mark.parametrize("is_cut", [False, True])
async def test_unroutable_job_is_refused_for_good(desk_of: DeskOf, is_cut: bool) -> None:
    """A topic that no queue is bound to; also when the connection has mended itself before."""
    desk = desk_of("rabbits")
    assert await desk.engine.send([message(site.note.using(queue=desk.queue), "word")]) == [None]
    if is_cut:
        await cut(desk.broker, "write")
    jobs = [
        message(site.note.using(queue=desk.queue), "good"),
        message(site.note.using(queue="nowhere"), "bad"),
    ]
    assert await desk.engine.send(jobs) == [None, "RabbitMQ has no queue that takes it"]


async def test_unknown_queue_of_a_direct_exchange_is_refused_when_added(urls: Urls) -> None:
    """E5: where the broker's queues are all there are, others are refused at once."""
    names = [f"queue-{uuid.uuid4().hex}" for _ in range(2)]
    broker = AioPikaBroker(
        urls["rabbit"], exchange=Exchange(name=names[0], type=aio_pika.ExchangeType.DIRECT)
    ).with_queues(*(Queue(name=name) for name in names))
    engine = TaskiqEngine(broker)
    engine.check(site.note.using(queue=names[1]))
    with pytest.raises(EngineError, match="asks for queue 'nowhere', and the broker has queue-"):
        engine.check(site.note.using(queue="nowhere"))
    # A job that was added when there was such a queue.
    [reason] = await engine.send([message(site.note.using(queue="nowhere"), "word")])
    assert reason is not None
    assert "nowhere" in reason
    await engine.close()


YES = "yes"


@pytest.mark.parametrize(
    ("kind", "option", "answer"),
    [
        ("stream", {"delay": 1}, "asks for delay="),
        ("stream", {"priority": 1}, "asks for priority="),
        ("stream", {"concurrency": 1}, "asks for concurrency="),
        ("stream", {"retries": 2, "timeout": 1}, YES),
        ("stream", {"timeout": 5}, "may take 5 seconds .* after 4 seconds; raise its idle_timeout"),
        ("stream", {"retries": 3, "retry_delay": 1.5}, "may take 6 seconds"),
        ("stream", {"retries": 3, "retry_delay": 1.5, "retry_max_delay": 3}, YES),
        ("list", {"retries": 100, "timeout": 3600, "queue": "other"}, YES),
        ("list", {"delay": 1}, "asks for delay="),
        ("rabbit", {"delay": 1}, YES),
        ("rabbit", {"run_at": datetime.now(timezone.utc) + timedelta(days=1)}, YES),
        ("rabbit", {"run_at": datetime.now(timezone.utc) + timedelta(days=51)}, "49 days at most"),
        ("rabbit", {"delay": 50 * 86400}, "49 days at most"),
        ("rabbit", {"priority": 9}, YES),
        ("rabbit", {"priority": 10}, "allows 0 to 9"),
        ("rabbit", {"priority": -1}, "allows 0 to 9"),
        ("rabbit", {"queue": "other"}, "asks for queue="),
        ("rabbits", {"queue": "other"}, YES),
        ("rabbits", {"queue": "other", "delay": 1}, "the broker's delay_queue leads to"),
    ],
)
async def test_options_that_the_broker_lacks_are_refused(
    desk_of: DeskOf, kind: str, option: dict[str, Any], answer: str
) -> None:
    """E5, when the task is added."""
    engine = desk_of(kind).engine
    asked = site.note.using(**option)
    if answer == YES:
        engine.check(asked)
        return
    with pytest.raises(EngineError, match=answer):
        engine.check(asked)


async def test_features_follow_the_broker(urls: Urls) -> None:
    """What is given to a broker after its engine was made counts, too."""
    broker = AioPikaBroker(urls["rabbit"])
    engine = TaskiqEngine(broker)
    assert engine.supports == {"retries", "timeout"}
    broker.with_queues(Queue(name="one", max_priority=2), Queue(name="two", max_priority=5))
    broker.with_result_backend(RedisAsyncResultBackend(urls["redis"]))
    engine.check(site.note.using(priority=2, queue="two"))
    assert engine.supports == {"retries", "timeout", "priority", "queue", "results"}
    with pytest.raises(EngineError, match="allows 0 to 2"):
        engine.check(site.note.using(priority=3))


def test_tasks_of_others_are_not_taken_for_ones_own() -> None:
    broker, other = InMemoryBroker(), InMemoryBroker()
    own, foreign = site.declare(broker)["typed"], site.declare(other)["typed"]
    engine = TaskiqEngine(broker)
    assert engine.native(site.note) is None
    assert engine.native("own:typed") is None
    assert engine.native(own) is not None
    with pytest.raises(EngineError, match="belongs to another broker"):
        engine.native(foreign)
    assert engine.native(foreign.kicker().with_broker(broker)) is not None
    for kicker in (own.kicker().with_task_id("mine"), own.kicker().with_schedule_id("mine")):
        with pytest.raises(EngineError, match="leave with_task_id"):
            engine.native(kicker)


@pytest.mark.parametrize("value", [object(), b"\xff", lambda: None, int])
def test_arguments_that_json_cannot_take_are_refused(value: Any) -> None:
    engine = TaskiqEngine(InMemoryBroker())
    with pytest.raises(NotSerializable, match="own:typed"):
        engine.encode_native("own:typed", (value,), {})


def test_name_that_the_broker_has_is_refused() -> None:
    """A declared task must not take the place of one of taskiq's own."""
    broker = InMemoryBroker()
    broker.register_task(print_nothing, task_name="site:note")
    engine = TaskiqEngine(broker)
    engine.register(site.plain)
    engine.register(site.plain)
    with pytest.raises(EngineError, match="has a taskiq task called 'site:note' already"):
        engine.register(site.note)
    with pytest.raises(TypeError, match="declared with @task, got <built-in"):
        engine.register(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="plain functions of one event"):
        engine.register(on_event=asyncio.sleep)
    assert broker.find_task("site:rich") is None


async def print_nothing() -> None:
    """A task of taskiq's own."""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"broker": "redis://"}, "broker must be a taskiq.AsyncBroker"),
        ({"consume": 1}, "consume must be True or False"),
        ({"timeout": 0}, "timeout must be more than 0"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        TaskiqEngine(**{"broker": InMemoryBroker(), **options})


def test_broker_that_forgets_is_named(urls: Urls, warnings_logged: Callable[[], list[str]]) -> None:
    """Nobody should find out by a crash that jobs are lost with their worker."""
    TaskiqEngine(site.make_broker("stream", urls, "queue"))
    assert warnings_logged() == []
    TaskiqEngine(site.make_broker("list", urls, "queue"))
    [warning] = warnings_logged()
    assert "ListQueueBroker counts a job as done as soon as a worker has got it" in warning


# Who starts the broker.


def events_of(broker: AsyncBroker) -> list[str]:
    """Keep what happens to a broker."""
    happened: list[str] = []
    broker.add_event_handler(TaskiqEvents.CLIENT_STARTUP, lambda _: happened.append("up"))
    broker.add_event_handler(TaskiqEvents.CLIENT_SHUTDOWN, lambda _: happened.append("down"))
    return happened


@pytest.mark.parametrize("kind", ["stream", "rabbit"])
async def test_engine_ends_what_it_has_started(desk_of: DeskOf, kind: str) -> None:
    desk = desk_of(kind)
    happened = events_of(desk.broker)
    for _ in range(2):
        await desk.engine.open()
        await desk.engine.open()
        await desk.engine.send([message(site.note, "word")])
        await desk.engine.close()
        await desk.engine.close()
    assert happened == ["up", "down"] * 2


@pytest.mark.parametrize("kind", ["stream", "rabbit"])
async def test_what_the_app_has_started_is_left_alone(desk_of: DeskOf, kind: str) -> None:
    """Until the app has ended it: what has to be sent after that is sent all the same."""
    desk = desk_of(kind)
    happened = events_of(desk.broker)
    await desk.broker.startup()
    await desk.engine.send([message(site.note, "word")])
    await desk.engine.close()
    assert happened == ["up"]
    await desk.own["labelled"].kiq()
    await desk.broker.shutdown()
    await desk.engine.send([message(site.note, "word")])
    await desk.engine.close()
    assert happened == ["up", "down"] * 2


async def test_app_may_start_the_broker_late(desk_of: DeskOf) -> None:
    """The connections of the engine give way to those of the app."""
    desk = desk_of("rabbit")
    await desk.engine.open()
    broker: Any = desk.broker
    first = broker.write_conn
    await broker.startup()
    assert first.is_closed
    await desk.engine.send([message(site.note, "word")])
    await desk.engine.close()
    assert not broker.write_conn.is_closed
    await broker.shutdown()


@pytest.mark.parametrize("kind", KINDS)
def test_engine_works_in_one_event_loop_after_another(urls: Urls, kind: str) -> None:
    """`open` in a new loop makes do without what the last one has left behind."""
    desk = Desk(kind, urls)

    async def send(is_closed: bool) -> None:
        await desk.engine.open()
        await desk.engine.send([message(site.note, "word")])
        if is_closed:
            await desk.engine.close()

    for _ in range(3):
        asyncio.run(send(is_closed=True))


def test_what_another_loop_has_left_behind_is_shut_down(urls: Urls) -> None:
    """A loop may have ended without a word."""
    broker = InMemoryBroker()
    happened = events_of(broker)
    engine = TaskiqEngine(broker)
    asyncio.run(engine.open())
    asyncio.run(engine.open())
    assert happened == ["up", "down", "up"]
    asyncio.run(engine.close())
    assert happened == ["up", "down"] * 2


async def test_broker_that_cannot_shut_down_is_let_go(desk_of: DeskOf) -> None:
    """Its connections may be broken; they are ended nevertheless."""
    desk = desk_of("rabbit")
    await desk.engine.open()
    broker: Any = desk.broker
    connection = broker.write_conn

    def fail(state: Any) -> None:
        raise OSError("broken")

    broker.add_event_handler(TaskiqEvents.CLIENT_SHUTDOWN, fail)
    await desk.engine.close()
    assert connection.is_closed
    broker.event_handlers.clear()


async def test_concurrent_calls_start_the_broker_once(desk_of: DeskOf) -> None:
    desk = desk_of("rabbit")
    happened = events_of(desk.broker)
    await asyncio.gather(*(desk.engine.open() for _ in range(5)))
    assert happened == ["up"]


# Outages.


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[[str], tuple[Any, Urls]]]:
    """Start a server that may be broken, and tell where all are."""
    with contextlib.ExitStack() as stack:

        def start(kind: str) -> tuple[Any, Urls]:
            folder = tmp_path / kind
            folder.mkdir()
            server = RabbitServer(folder) if kind == "rabbit" else RedisServer(folder)
            stack.enter_context(server)
            return server, {"rabbit" if kind == "rabbit" else "redis": server.url}

        yield start


async def answers(engine: TaskiqEngine, limit: float = 2.5) -> str:
    """Send a job as the core does it: with a time limit, and anew after a failure."""
    try:
        await asyncio.wait_for(engine.open(), limit)
        [answer] = await asyncio.wait_for(engine.send([message(site.note, "word")]), limit)
    except Exception as exc:
        began = time.monotonic()
        await engine.close()
        assert time.monotonic() - began < 10
        return type(exc).__name__
    return "taken" if answer is None else answer


@one_loop
@pytest.mark.parametrize("kind", ["stream", "rabbit"])
async def test_engine_survives_outages(
    server_of: Callable[[str], tuple[Any, Urls]], kind: str
) -> None:
    """A server that is frozen or gone is an error in time, and no connection is left behind."""
    server, urls = server_of(kind)
    engine = Desk(kind, urls, timeout=2.0).engine
    assert await answers(engine) == "taken"
    server.freeze()
    assert {await answers(engine) for _ in range(2)} <= {"TimeoutError", "ConnectionError"}
    server.thaw()
    await eventually_taken(engine)
    server.kill()
    for _ in range(2):
        began = time.monotonic()
        assert await answers(engine) != "taken"
        assert time.monotonic() - began < 10
    await asyncio.to_thread(server.start)
    await eventually_taken(engine)
    await engine.close()
    await until(lambda: not client_tasks(), DEADLINE)


def client_tasks() -> list[str]:
    """What the clients of brokers have left behind on the event loop."""
    names = [str(task.get_coro()) for task in asyncio.all_tasks()]
    return [name for name in names if "aiormq" in name or "aio_pika" in name or "redis" in name]


async def eventually_taken(engine: TaskiqEngine) -> None:
    deadline = time.monotonic() + DEADLINE
    while (answer := await answers(engine)) != "taken":
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)


# Workers.


class Place:
    """Processes of one taskiq project, and what they tell; ended by their ids."""

    def __init__(self, folder: Path, kind: str, urls: Urls, **settings: str) -> None:
        self.folder = folder
        self.desk = Desk(kind, urls)
        self.port = free_port()
        self._record = folder / "record"
        self._record.touch()
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SITE_KIND": kind,
            "SITE_REDIS": urls["redis"],
            "SITE_RABBIT": urls["rabbit"],
            "SITE_QUEUE": self.desk.queue,
            "SITE_RECORD": str(self._record),
            **settings,
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        """Start ``taskiq worker``."""
        command = ["taskiq", "worker", "tests.engines.taskiq_site:broker", "--workers", "1"]
        return self._start([*command, *options])

    async def app(self) -> subprocess.Popen[bytes]:
        """Start the app, and wait until it answers."""
        command = ["uvicorn", "tests.engines.taskiq_site:app", "--port", str(self.port)]
        process = self._start(command)
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(OSError):
                await self.get("note", "hello")
                return process
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.1)

    async def get(self, name: str, argument: str) -> str:
        """Ask the app for a job, and return its id."""

        def ask() -> str:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
            with contextlib.closing(connection):
                connection.request("GET", f"/{name}/{argument}")
                response = connection.getresponse()
                assert response.status == 200
                return response.read().decode()

        return await asyncio.to_thread(ask)

    def told(self, *words: str) -> int:
        """How often a line begins with these words."""
        lines = self._record.read_text().splitlines()
        return sum(line.split()[: len(words)] == list(words) for line in lines)

    async def until_told(self, *words: str, times: int = 1) -> None:
        """Wait for a line."""
        deadline = time.monotonic() + DEADLINE
        while self.told(*words) < times:
            assert time.monotonic() < deadline, f"{words}: {self._record.read_text()} {self.log()}"
            await asyncio.sleep(0.05)

    async def terminate(self, process: subprocess.Popen[bytes]) -> None:
        """End a process in good order."""
        process.terminate()
        await asyncio.to_thread(process.wait, DEADLINE)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process, and all that it has started (SIGKILL)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def log(self) -> str:
        """The end of what the processes have written."""
        return (self.folder / "log").read_text()[-3000:]

    def close(self) -> None:
        for process in self._processes:
            self.kill(process)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process


@pytest.fixture(scope="module", params=["stream", "list", "rabbit"])
def busy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, urls: Urls
) -> Iterator[Place]:
    """A place with a worker that many tests share."""
    place = Place(tmp_path_factory.mktemp("busy"), request.param, urls)
    place.worker()
    yield place
    place.close()


@pytest.fixture
def place_of(tmp_path: Path, urls: Urls) -> Iterator[Callable[..., Place]]:
    """Make a place without any process yet."""
    made: list[Place] = []

    def make(kind: str, **settings: str) -> Place:
        made.append(Place(tmp_path, kind, urls, **settings))
        return made[-1]

    yield make
    for place in made:
        place.close()


@pytest.fixture
async def runner(busy: Place, make_runner: Any) -> Runner:
    """A runner that hands over to a worker that runs."""
    made: Runner = await make_runner(engine=TaskiqEngine(busy.desk.broker, timeout=20.0))
    return made


async def result(runner: Runner, func: Any, *args: Any, **kwargs: Any) -> Any:
    """What becomes of a job that a worker runs."""
    job = await runner.add_task(func, *args, **kwargs)
    return await job.result(timeout=DEADLINE)


async def test_declared_tasks_run_in_the_worker(runner: Runner) -> None:
    """Async and plain ones, with arguments and results of all types, and `current_job` known."""
    when = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert await result(runner, site.plain, 21) == 42
    item = await result(runner, site.rich, when, uuid.uuid4(), site.Item(1, when))
    assert item == site.Item(2, when)
    job = await runner.add_task(site.about)
    assert await job.result(timeout=DEADLINE) == [job.id, "site:about", 1]
    assert await result(runner, site.declared_later) == "known"


async def test_what_fails_is_tried_again_as_often_as_the_task_says(
    runner: Runner, busy: Place
) -> None:
    """The broker knows no delays, or has none to spare, so a worker waits and sends it again."""
    assert await result(runner, site.flaky, 2) == 3
    job = await runner.add_task(site.flaky, 3)
    with pytest.raises(JobFailed, match="ValueError: failure 3"):
        await job.result(timeout=DEADLINE)
    info = await runner.info(job.id)
    assert (info.status, info.attempt) == (JobStatus.failed, 3)
    picky = await runner.add_task(site.picky)
    with pytest.raises(JobFailed, match="not to be tried again"):
        await picky.result(timeout=DEADLINE)
    assert busy.told("picky", picky.id) == 1


async def test_attempt_that_takes_too_long_is_ended(runner: Runner) -> None:
    with pytest.raises(JobFailed, match="timeout|Timeout|took longer"):
        await result(runner, site.late)


async def test_task_adds_more(runner: Runner, busy: Place) -> None:
    """What a task adds goes through the engine, too."""
    word = uuid.uuid4().hex
    await result(runner, site.parent, word)
    await busy.until_told("note", word)


async def test_own_tasks_run_with_their_arguments_read(runner: Runner, busy: Place) -> None:
    """E4: by their annotations, as with `kiq`; what they return comes back."""
    typed = busy.desk.own["typed"]
    when = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    found = await result(runner, typed, when, site.Item(7, when), word="given")
    assert found == "datetime Item 7 given"
    labelled = typed.kicker().with_labels(colour="red")
    assert await result(runner, labelled, when, site.Item(8, when)) == "datetime Item 8 default"


async def test_task_that_the_worker_does_not_know_is_dropped(busy: Place, runner: Runner) -> None:
    """taskiq acknowledges it with a warning, and goes on."""
    engine = busy.desk.engine
    gone = message(site.note, "word", task=f"site:gone-{uuid.uuid4().hex}")
    assert await engine.send([gone]) == [None]
    assert await result(runner, site.plain, 1) == 2
    assert f'task "{gone.task}" is not found' in busy.log()
    assert await engine.fetch(gone.id) is None
    await engine.close()


@one_loop
@pytest.mark.parametrize("kind", ["stream", "rabbit"])
async def test_job_of_a_killed_worker_is_run_by_another(
    place_of: Callable[..., Place], kind: str
) -> None:
    """SIGKILL in the middle of a task: the broker gives the job to a worker that lives."""
    place = place_of(kind)
    gate = str(place.folder / "gate")
    first = place.worker()
    async with Runner(engine=place.desk.engine) as runner:
        job = await runner.add_task(site.held, gate)
        await place.until_told("start", gate)
        place.kill(first)
        Path(gate).touch()
        place.worker()
        assert await job.result(timeout=DEADLINE) == gate
    assert (place.told("start", gate), place.told("end", gate)) == (2, 1)


@one_loop
async def test_ended_worker_finishes_what_it_has_begun(place_of: Callable[..., Place]) -> None:
    """SIGTERM: taskiq takes no more jobs, and waits for those that run."""
    place = place_of("stream")
    gate = str(place.folder / "gate")
    worker = place.worker()
    async with Runner(engine=place.desk.engine) as runner:
        job = await runner.add_task(site.held, gate)
        await place.until_told("start", gate)
        worker.terminate()
        await asyncio.sleep(0.2)  # so that it has heard of that, while the job goes on
        Path(gate).touch()
        assert await job.result(timeout=DEADLINE) == gate
    await asyncio.to_thread(worker.wait, DEADLINE)


@one_loop
async def test_request_leads_to_an_effect_in_a_worker(
    place_of: Callable[..., Place], tmp_path: Path
) -> None:
    """E1: by way of a journal; what is asked for while the worker is away waits for it."""
    place = place_of("stream", SITE_JOURNAL=str(tmp_path / "jobs.db"))
    app = await place.app()
    await place.get("note", "early")
    worker = place.worker()
    await place.until_told("note", "early")
    await place.get("note", "late")
    await place.until_told("note", "late")
    await place.terminate(app)
    assert "Application shutdown complete" in place.log()
    assert "Traceback" not in place.log()
    await place.terminate(worker)
    assert place.told("note", "early") == place.told("note", "late") == 1


@one_loop
@pytest.mark.parametrize("kind", ["stream", "rabbit"])
async def test_app_works_the_queue_itself(place_of: Callable[..., Place], kind: str) -> None:
    """E3, ``consume=True``; and what it must break off at its end is run by another worker."""
    place = place_of(kind, SITE_CONSUME="yes")
    gate = str(place.folder / "gate")
    app = await place.app()
    await place.until_told("note", "hello")
    await place.get("held", gate)
    await place.until_told("start", gate)
    await place.terminate(app)
    Path(gate).touch()
    place.worker()
    await place.until_told("end", gate)
    assert (place.told("start", gate), place.told("end", gate)) == (2, 1)


@one_loop
@pytest.mark.parametrize("kind", ["stream", "rabbit"])
async def test_app_ends_when_its_tasks_have(place_of: Callable[..., Place], kind: str) -> None:
    """What it has begun may go on for a while, and is acknowledged."""
    place = place_of(kind, SITE_CONSUME="yes")
    gate = str(place.folder / "gate")
    app = await place.app()
    await place.get("held", gate)
    await place.until_told("start", gate)
    app.terminate()
    await asyncio.sleep(0.2)  # so that it has heard of that, while the job goes on
    Path(gate).touch()
    await asyncio.to_thread(app.wait, DEADLINE)
    assert place.told("end", gate) == 1
    if kind == "rabbit":
        assert await place.desk.messages() == []
    else:
        async with Redis.from_url(place.desk.urls["redis"]) as redis:
            assert (await redis.xpending(place.desk.queue, "taskiq"))["pending"] == 0


# Workers in this process.


@pytest.fixture
async def consuming(
    desk_of: DeskOf, make_runner: Any
) -> Callable[..., Awaitable[tuple[Desk, Any]]]:
    """Make a runner that works its queue, and its desk."""

    async def make(kind: str, *middlewares: TaskiqMiddleware, **options: Any) -> tuple[Desk, Any]:
        desk = desk_of(kind, consume=True)
        desk.broker.add_middlewares(*middlewares)
        return desk, await make_runner(engine=desk.engine, **options)

    return make


Consuming = Callable[..., Awaitable[tuple[Desk, Any]]]


@pytest.mark.parametrize("kind", ["rabbit", "rabbits"])
async def test_delayed_job_does_not_start_early(consuming: Consuming, kind: str) -> None:
    """By the broker's delay queue; and one that is overdue when it is sent starts at once."""
    desk, runner = await consuming(kind)
    plain = site.plain if kind == "rabbit" else site.plain.using(queue=desk.queue)
    began = time.monotonic()
    late = await runner.add_task(plain.using(delay=1.0), 1)
    assert await (await runner.add_task(plain.using(delay=0.0), 2)).result(timeout=DEADLINE) == 4
    assert await late.result(timeout=DEADLINE) == 2
    assert time.monotonic() - began > 0.95


async def test_smart_middleware_tries_again_where_it_can_wait(consuming: Consuming) -> None:
    """With the delay that the task asks for, and as often, whatever its own settings are."""
    _, runner = await consuming(
        "rabbit",
        SmartRetryMiddleware(default_retry_count=1, default_delay=3600, default_retry_label=True),
    )
    job = await runner.add_task(site.flaky, 2)
    assert await job.result(timeout=DEADLINE) == 3
    hopeless = await runner.add_task(site.flaky, 3)
    with pytest.raises(JobFailed, match="failure 3"):
        await hopeless.result(timeout=DEADLINE)


async def test_no_more_jobs_are_taken_than_may_run(consuming: Consuming, tmp_path: Path) -> None:
    """``max_jobs`` bounds what is begun; what is done makes room."""
    os.environ["SITE_RECORD"] = str(tmp_path / "record")
    try:
        _, runner = await consuming("stream", max_jobs=2)
        gates = [tmp_path / f"gate-{number}" for number in range(3)]
        jobs = [await runner.add_task(site.held, str(gate)) for gate in gates]
        record = tmp_path / "record"
        await until(lambda: record.exists() and record.read_text().count("start") == 2, DEADLINE)
        await asyncio.sleep(0.3)  # in which it would have begun with the third, if it could
        assert record.read_text().count("start") == 2
        for gate in gates:
            gate.touch()
        for job in jobs:
            await job.result(timeout=DEADLINE)
    finally:
        del os.environ["SITE_RECORD"]


@one_loop
async def test_queue_is_worked_again_after_an_outage(
    server_of: Callable[[str], tuple[Any, Urls]], urls: Urls, make_runner: Any
) -> None:
    """The server is killed and comes back; jobs of before and after that are run."""
    server, own = server_of("stream")
    desk = Desk("stream", own, consume=True)
    desk.broker.with_result_backend(RedisAsyncResultBackend(urls["redis"]))
    runner: Runner = await make_runner(engine=desk.engine)
    assert await result(runner, site.plain, 1) == 2
    server.kill()
    await asyncio.sleep(0.5)  # an outage that lasts, so that some tries fail
    await asyncio.to_thread(server.start)
    deadline = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(EngineError):
            assert await result(runner, site.plain, 2) == 4
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def test_queue_is_worked_on_while_connections_mend(consuming: Consuming) -> None:
    """Neither side needs the engine for that, which would take the other one's away."""
    desk, runner = await consuming("rabbit")
    assert await result(runner, site.plain, 1) == 2
    await cut(desk.broker, "read")
    await cut(desk.broker, "write")
    await desk.engine.close()
    assert await result(runner, site.plain, 2) == 4


@one_loop
async def test_what_dead_workers_hold_is_sent_again(
    consuming: Consuming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where taskiq-redis would not do it: behind a lock that is left, in a quiet queue."""
    monkeypatch.setattr("asgi_bg.engines._taskiq_redis.TAKEN_AT_ONCE", 2)
    desk, runner = await consuming("stream")
    lock = f"autoclaim:taskiq:{desk.queue}"
    async with Redis.from_url(desk.urls["redis"]) as redis:
        await result(runner, site.plain, 1)
        dead = [message(site.plain, number) for number in range(5)]
        await redis.set(lock, "of a worker that was killed")
        async with redis.pipeline(transaction=True) as pipeline:
            for body in await bodies_of(desk, dead):
                pipeline.xadd(desk.queue, {b"data": body})
            # Before any other worker can read them.
            pipeline.xreadgroup("taskiq", "dead", {desk.queue: ">"}, count=9)
            await pipeline.execute()
        for job in dead:
            deadline = time.monotonic() + DEADLINE
            while (found := await desk.engine.fetch(job.id)) is None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert found.status == "succeeded"
        await until_none_pending(redis, desk.queue)


@pytest.mark.parametrize(
    ("groups", "is_trimmed", "left", "pending"),
    [(1, False, 2, 0), (1, True, 0, 0), (2, False, 1, 1)],
)
async def test_taking_over_a_message(
    desk_of: DeskOf, groups: int, is_trimmed: bool, left: int, pending: int
) -> None:
    """It is sent again and acknowledged; if it is there, and nobody else would run it twice."""
    desk = desk_of("stream")
    broker: Any = desk.broker
    broker.idle_timeout = 0
    await desk.engine.send([message(site.note, "word")])
    async with Redis.from_url(desk.urls["redis"]) as redis:
        for other in range(1, groups):
            await redis.xgroup_create(desk.queue, f"other-{other}")
        [[_, [[number, _]]]] = await redis.xreadgroup("taskiq", "dead", {desk.queue: ">"})
        if is_trimmed:
            await redis.xdel(desk.queue, number)
        line: Any = desk.engine._line
        assert not await line._take_over(desk.queue)
        assert len(await desk.bodies()) == left
        assert (await redis.xpending(desk.queue, "taskiq"))["pending"] == pending


async def bodies_of(desk: Desk, jobs: list[Message]) -> list[bytes]:
    """The bytes as which jobs travel."""
    return [desk.broker.formatter.dumps(taskiq_message(job, {})).message for job in jobs]


async def until_none_pending(redis: Any, queue: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while (await redis.xpending(queue, "taskiq"))["pending"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


# How the worker's functions decide.


class Scripted:
    """Performs jobs as it is told to.

    Attributes:
        attempts: The numbers of the attempts so far.
    """

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)
        self.attempts: list[int] = []

    async def perform(self, name: str, envelope: Any, attempt: int) -> Any:
        self.attempts.append(attempt)
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def call(engine: TaskiqEngine, performer: Scripted, **labels: Any) -> tuple[Any, TaskiqMessage]:
    """Call the function that is registered for a task, as a worker does it."""
    engine._worker.performer = performer
    sent = TaskiqMessage(
        task_id="job", task_name="site:note", labels=labels, args=[{"id": "job"}], kwargs={}
    )
    run: Any = engine._functions.of("site:note")
    return run({"id": "job"}, context=Context(sent, engine._broker)), sent


async def test_next_attempt_is_made_here_if_the_job_cannot_be_sent_again(
    desk_of: DeskOf, warnings_logged: Callable[[], list[str]]
) -> None:
    """A broker that is away must not cost the job its attempts."""
    desk = desk_of("stream")

    async def kick(message: Any) -> None:
        raise ConnectionError("away")

    desk.broker.kick = kick  # type: ignore[method-assign]
    performer = Scripted(Again(0.01, ValueError("one")), Again(0.01, ValueError("two")), "done")
    running, _ = call(desk.engine, performer, _retries=1)
    assert await running == "done"
    assert performer.attempts == [2, 3, 4]
    assert len([line for line in warnings_logged() if "cannot be sent again" in line]) == 2


async def test_job_is_sent_again_under_its_id(desk_of: DeskOf) -> None:
    """Its other labels travel along, but for the delay that is over."""
    desk = desk_of("list")
    running, _ = call(
        desk.engine, Scripted(Again(0.01, ValueError("one"))), _retries=1, delay=5.0, colour="red"
    )
    with pytest.raises(NoResultError):
        await running
    [body] = await desk.bodies()
    found = json.loads(body)
    assert found["task_id"] == "job"
    assert found["args"] == [{"id": "job"}]
    assert found["labels"] == {"colour": "red", "_retries": "2", "retry_on_error": "False"}


async def test_middleware_gets_the_error_itself(desk_of: DeskOf) -> None:
    """Other middlewares want to see it, too; a final one is not to be tried again."""
    desk = desk_of("rabbit")
    desk.broker.add_middlewares(SmartRetryMiddleware())
    running, sent = call(desk.engine, Scripted(Again(7.0, ValueError("one"))))
    with pytest.raises(ValueError, match="one"):
        await running
    assert sent.labels == {"retry_on_error": True, "max_retries": 2, "delay": 7.0}
    running, sent = call(desk.engine, Scripted(ValueError("final")), _retries=2)
    with pytest.raises(ValueError, match="final"):
        await running
    assert sent.labels == {"retry_on_error": False, "_retries": 2}


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_job_that_is_cancelled_at_the_end_is_not_done(
    desk_of: DeskOf, is_stopping: bool
) -> None:
    """Otherwise it would be acknowledged as failed."""
    engine = desk_of("stream").engine
    stopping = engine._functions.stopping = asyncio.Event()
    if is_stopping:
        stopping.set()
    error = JobFailed("job", "site:note", "cancelled at shutdown")
    running, _ = call(engine, Scripted(error))
    with pytest.raises(asyncio.CancelledError if is_stopping else JobFailed):
        await running


async def test_message_that_cannot_be_acknowledged_is_named(
    warnings_logged: Callable[[], list[str]],
) -> None:
    """Nobody waits for that, and it comes again."""
    broker = InMemoryBroker()
    broker.register_task(print_nothing, task_name="own:nothing")
    begun: set[asyncio.Task[Any]] = set()
    receiver = AppReceiver(
        broker,
        ThreadPoolExecutor(1),
        max_jobs=1,
        stopping=asyncio.Event(),
        grace=0,
        begun=begun,
    )

    def ack() -> None:
        raise ConnectionError("away")

    sent = TaskiqMessage(task_id="job", task_name="own:nothing", labels={}, args=[], kwargs={})
    data = broker.formatter.dumps(sent).message
    task = asyncio.ensure_future(receiver.callback(AckableMessage(data=data, ack=ack)))
    await task
    await until(lambda: not begun)
    assert "was not acknowledged, and will come again" in warnings_logged()[-1]
