"""A taskiq project, as the processes of its tests import it: a broker, tasks, and an app.

What is to be served by which broker stands in the environment. What happens is written to a
file, one line each.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from taskiq import AsyncBroker, TaskiqDepends
from taskiq.serializers import JSONSerializer
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.engines.taskiq import TaskiqEngine

IDLE = 4.0
"""After how many seconds what a worker holds in a stream is given to another one."""

_settings = os.environ


def make_broker(kind: str, urls: dict[str, str], queue: str) -> AsyncBroker:
    """Return a new broker.

    Args:
        kind: ``stream``, ``list``, ``rabbit``, or ``rabbits`` for one with several queues.
        urls: Where ``redis`` and ``rabbit`` are; results are kept in the former, if it is given.
        queue: The name of its queue.
    """
    broker: AsyncBroker
    match kind:
        case "stream":
            broker = RedisStreamBroker(
                urls["redis"], queue_name=queue, idle_timeout=int(IDLE * 1000), xread_block=200
            )
        case "list":
            broker = ListQueueBroker(urls["redis"], queue_name=queue)
        case _:
            broker = AioPikaBroker(
                urls["rabbit"],
                delay_queue=Queue(name=f"{queue}.delay", type=QueueType.CLASSIC),
                reconnect_interval=0.2,
            )
            names = [queue] if kind == "rabbit" else [queue, f"{queue}.other"]
            broker.with_queues(
                *(Queue(name=name, type=QueueType.CLASSIC, max_priority=9) for name in names)
            )
    if "redis" in urls:
        results: Any = RedisAsyncResultBackend(urls["redis"], serializer=JSONSerializer())
        broker.with_result_backend(results)
    return broker


@dataclass
class Item:
    """Something whose parts want to come back as they were."""

    number: int
    when: datetime


def tell(*words: object) -> None:
    """Append a line to the record."""
    with open(_settings["SITE_RECORD"], "a") as record:
        record.write(" ".join(map(str, words)) + "\n")


@task(name="site:note")
async def note(word: str) -> str:
    """The simplest task."""
    tell("note", word)
    return word


@task(name="site:plain")
def plain(number: int) -> int:
    """A plain function."""
    return 2 * number


@task(name="site:rich")
async def rich(when: datetime, who: UUID, item: Item) -> Item:
    """Takes and returns what JSON does not know."""
    tell("rich", type(when).__name__, type(who).__name__, type(item.when).__name__)
    return Item(item.number + 1, when)


@task(name="site:about")
async def about() -> list[Any]:
    """Says what it knows of itself."""
    job = current_job()
    return [job.id, job.task_name, job.attempt]


@task(name="site:flaky", retries=2, retry_delay=0.2)
def flaky(fails: int) -> int:
    """Fails some times."""
    attempt = current_job().attempt
    if attempt <= fails:
        raise ValueError(f"failure {attempt}")
    return attempt


@task(name="site:picky", retries=2, retry_delay=0.1, retry_on=(OSError,))
def picky() -> None:
    """Fails in a way that is not to be tried again."""
    tell("picky", current_job().id)
    raise ValueError("not to be tried again")


@task(name="site:late", timeout=0.2)
async def late() -> None:
    """Takes too long."""
    await asyncio.sleep(60)


@task(name="site:parent")
async def parent(word: str) -> None:
    """Adds another job."""
    add_task(note, word)


@task(name="site:held")
async def held(gate: str) -> str:
    """Goes on when a file is there."""
    tell("start", gate, os.getpid())
    while not Path(gate).exists():
        await asyncio.sleep(0.05)
    tell("end", gate, os.getpid())
    return gate


def declare(broker: AsyncBroker) -> dict[str, Any]:
    """Give a broker tasks of taskiq's own, and return them."""

    @broker.task(task_name="own:typed")
    async def typed(when: datetime, item: Item, word: str = "default") -> str:
        return f"{type(when).__name__} {type(item).__name__} {item.number} {word}"

    @broker.task(task_name="own:blocking")
    def blocking(gate: str, seconds: float) -> None:
        tell("start", gate)
        time.sleep(seconds)
        tell("end", gate)

    @broker.task(task_name="own:labelled", colour="red", size=3)
    async def labelled(context: Any = TaskiqDepends(lambda: None)) -> None:
        """Is looked at while it is on its way."""

    return {"typed": typed, "blocking": blocking, "labelled": labelled}


if "SITE_KIND" in _settings:
    broker = make_broker(
        _settings["SITE_KIND"],
        {"redis": _settings["SITE_REDIS"], "rabbit": _settings["SITE_RABBIT"]},
        _settings["SITE_QUEUE"],
    )
    own = declare(broker)
    # Registered before some of the tasks are declared.
    engine = TaskiqEngine(broker, consume=_settings.get("SITE_CONSUME") == "yes")
    engine.register()
    runner = Runner(engine=engine, journal=_settings.get("SITE_JOURNAL"), drain_timeout=3.0)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        """Add the job that the path asks for, and answer with its id."""
        _, name, argument = scope["path"].split("/", 2)
        job = add_task({"note": note, "held": held}[name], argument)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": job.id.encode()})

    app = BackgroundTaskMiddleware(answer, runner=runner)


@task(name="site:declared-later")
async def declared_later() -> str:
    """A task that is declared when all have been registered."""
    return "known"
