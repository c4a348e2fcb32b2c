"""What is at a broker, read from the broker itself: which job was delivered, and how often."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers import need
from tests.services.postgres import PostgresServer
from tests.services.rabbitmq import RabbitServer
from tests.services.redis import RedisServer
from tests.services.service import Service

PATIENCE = 20.0
"""How long a broker that runs may take to answer a question, in seconds."""


class Broker(ABC):
    """A broker that no worker takes anything from.

    Args:
        service: Its server.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Do what is done once, when it has been set up."""

    @abstractmethod
    def count(self) -> int:
        """How many deliveries there have been; cheap."""

    @abstractmethod
    def deliveries(self) -> list[str]:
        """The ids of the jobs that were delivered, each as often as it was."""

    @contextlib.contextmanager
    def watch(self) -> Generator[Callable[[], list[str]], None, None]:
        """Yield what tells of the deliveries from now on."""
        known = Counter(self.deliveries())
        yield lambda: list((Counter(self.deliveries()) - known).elements())


class _RedisBroker(Broker):
    """What goes through Redis."""

    @contextlib.contextmanager
    def _redis(self) -> Generator[Any, None, None]:
        client = need("redis").Redis.from_url(self.service.url, socket_timeout=PATIENCE)
        with contextlib.closing(client):
            yield client


class ArqBroker(_RedisBroker):
    """A job is a key of its own, and its id is in a sorted set; twice the same is once."""

    def count(self) -> int:
        with self._redis() as redis:
            return int(redis.zcard("arq:queue"))

    def deliveries(self) -> list[str]:
        with self._redis() as redis, redis.pipeline(transaction=True) as at_once:
            at_once.zrange("arq:queue", 0, -1)
            at_once.keys("arq:job:*")
            members, keys = at_once.execute()
        waiting = {member.decode() for member in members}
        # Without its key a job is nothing but an id, and without its id nobody takes it.
        assert waiting == {key.decode().removeprefix("arq:job:") for key in keys}
        return list(waiting)

    @contextlib.contextmanager
    def watch(self) -> Generator[Callable[[], list[str]], None, None]:
        with self._redis() as redis, redis.monitor() as monitor:

            def sent() -> list[str]:
                """Read what clients, and not scripts, have said until now."""
                end = uuid.uuid4().hex
                redis.echo(end)
                found: list[str] = []
                while end not in (told := monitor.next_command())["command"]:
                    if told["client_type"] != "lua":
                        found += _ARQ_JOB.findall(told["command"])
                return found

            yield sent


_ARQ_JOB = re.compile("arq:job:([0-9a-f]{32})")


class CeleryRedisBroker(_RedisBroker):
    """A list of messages."""

    def count(self) -> int:
        with self._redis() as redis:
            return int(redis.llen("celery"))

    def deliveries(self) -> list[str]:
        with self._redis() as redis:
            messages = map(json.loads, redis.lrange("celery", 0, -1))
        return [
            _same(message["headers"]["id"], json.loads(base64.b64decode(message["body"]))[0][0])
            for message in messages
        ]


class TaskiqBroker(_RedisBroker):
    """A stream."""

    def count(self) -> int:
        with self._redis() as redis:
            return int(redis.xlen("taskiq"))

    def deliveries(self) -> list[str]:
        with self._redis() as redis:
            messages = [json.loads(entry[b"data"]) for _, entry in redis.xrange("taskiq")]
        return [_same(message["task_id"], message["args"][0]) for message in messages]


class CeleryRabbitBroker(Broker):
    """A queue of RabbitMQ's, which is drained to be read."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._drained: list[str] = []

    def count(self) -> int:
        return len(self.deliveries())

    def deliveries(self) -> list[str]:
        amqp = need("amqp")
        host = f"127.0.0.1:{self.service.port}"
        with amqp.Connection(host, connect_timeout=PATIENCE, read_timeout=PATIENCE) as connection:
            channel = connection.channel()
            with contextlib.suppress(amqp.exceptions.NotFound):  # nothing has been sent yet
                while (message := channel.basic_get("celery", no_ack=True)) is not None:
                    envelope = json.loads(message.body)[0][0]
                    self._drained.append(_same(message.headers["id"], envelope))
        return list(self._drained)


class ProcrastinateBroker(Broker):
    """A table."""

    def prepare(self) -> None:
        procrastinate = need("procrastinate")
        connector = procrastinate.SyncPsycopgConnector(conninfo=self.service.url)
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.apply_schema()

    def count(self) -> int:
        return int(self._rows("SELECT count(*) FROM procrastinate_jobs")[0][0])

    def deliveries(self) -> list[str]:
        return [job for (job,) in self._rows(_IDS)]

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with need("psycopg").connect(self.service.url, connect_timeout=int(PATIENCE)) as connection:
            rows: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
            return rows


_IDS = "SELECT args -> 'envelope' ->> 'id' FROM procrastinate_jobs"


class Kind(NamedTuple):
    """An engine and what it sends to.

    Attributes:
        engine: As `tests.outage.app` knows it.
        module: The partner's package.
        server: Makes the broker's server.
        broker: Reads it.
    """

    engine: str
    module: str
    server: Callable[[Path], Service]
    broker: type[Broker]


KINDS = {
    "arq": Kind("arq", "arq", RedisServer, ArqBroker),
    "celery-redis": Kind("celery", "celery", RedisServer, CeleryRedisBroker),
    "celery-rabbitmq": Kind("celery", "celery", RabbitServer, CeleryRabbitBroker),
    "taskiq": Kind("taskiq", "taskiq_redis", RedisServer, TaskiqBroker),
    "procrastinate": Kind("procrastinate", "procrastinate", PostgresServer, ProcrastinateBroker),
}
"""By the name that tests and the soak use."""


def _same(job: str, envelope: dict[str, Any]) -> str:
    """Return the id of a message, which is the engine's and the job's (E2)."""
    assert envelope["id"] == job
    return job
