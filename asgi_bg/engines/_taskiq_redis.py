"""The way to the brokers of ``taskiq-redis``, for which this module needs to be there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from taskiq import AsyncBroker, BrokerMessage
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from asgi_bg.engines._taskiq_line import Line
from asgi_bg.engines.base import Feature, Message

logger = logging.getLogger("asgi_bg")

LOOK_INTERVAL = 10.0
"""The longest time between two looks for what dead workers hold, in seconds."""

TAKEN_AT_ONCE = 100
"""How many messages of dead workers are sent again at once."""


def redis_line_to(broker: AsyncBroker, timeout: float) -> Line | None:
    """Return the way to a broker, if it sends as one of those that are known here."""
    kick: Any = type(broker).kick
    # Who overrides it sends in another way. A wrapper of it, such as of telemetry, wants to be
    # called for each message.
    if kick is ListQueueBroker.kick and hasattr(kick, "__code__"):
        return _ListLine(broker)
    if kick is RedisStreamBroker.kick and hasattr(kick, "__code__"):
        return _StreamLine(broker)
    return None


class _RedisLine(Line):
    """One pipeline, over the broker's own connections, of what its ``kick`` would send."""

    def __init__(self, broker: AsyncBroker) -> None:
        super().__init__(broker)
        # Streams came to know the label later than lists.
        self._reads_queue = _reads_labels(type(broker).kick)

    @property
    def supports(self) -> frozenset[Feature]:
        return frozenset(("queue",)) if self._reads_queue else frozenset()

    def labels(self, message: Message) -> dict[str, Any]:
        queue = message.options.queue
        return {} if queue is None else {"queue_name": queue}

    async def kick(self, messages: Sequence[BrokerMessage]) -> list[str | None]:
        queues = [self._queue_of(message) for message in messages]
        async with (
            Redis(connection_pool=self._broker.connection_pool) as client,
            client.pipeline(transaction=False) as pipeline,
        ):
            self._prepare(pipeline, set(queues))
            for queue, message in zip(queues, messages, strict=True):
                self._add(pipeline, queue, message.message)
            answers = await pipeline.execute(raise_on_error=False)
        for answer in answers[-len(messages) :]:
            if isinstance(answer, Exception):
                raise answer
        return [None] * len(messages)

    def _queue_of(self, message: BrokerMessage) -> str:
        chosen = message.labels.get("queue_name") if self._reads_queue else None
        return str(chosen or self._broker.queue_name)

    def _prepare(self, pipeline: Any, queues: set[str]) -> None:
        """Add what has to come before the messages."""

    def _add(self, pipeline: Any, queue: str, data: bytes) -> None:
        raise NotImplementedError


class _ListLine(_RedisLine):
    def _add(self, pipeline: Any, queue: str, data: bytes) -> None:
        pipeline.lpush(queue, data)


class _StreamLine(_RedisLine):
    def __init__(self, broker: AsyncBroker) -> None:
        super().__init__(broker)
        limit: float = self._broker.idle_timeout / 1000
        self.hold_limit = limit
        self._interval = min(limit / 2, LOOK_INTERVAL)

    async def look_after(self) -> None:
        # The broker's own way to do this fails: with older versions of taskiq-redis for ever, once
        # a worker was killed while it held a lock; with 1.2.4 as long as no new message comes.
        broker = self._broker
        while True:
            await asyncio.sleep(self._interval)
            for queue in (broker.queue_name, *broker.additional_streams):
                try:
                    while await self._take_over(queue):
                        pass
                except Exception as exc:
                    logger.debug("no look for what dead workers hold in %s: %r", queue, exc)

    async def _take_over(self, queue: str) -> bool:
        """Send some of what dead workers hold again; return whether there may be more."""
        broker = self._broker
        group = broker.consumer_group_name
        async with Redis(connection_pool=broker.connection_pool) as client:
            if len(await client.xinfo_groups(queue)) > 1:
                return False  # what is sent again would reach the other groups, too
            found: Any = await client.xautoclaim(
                queue,
                group,
                broker.consumer_name,
                min_idle_time=broker.idle_timeout,
                count=TAKEN_AT_ONCE,
            )
            for number, fields in found[1]:
                # One that was trimmed away is nothing but its number.
                async with client.pipeline(transaction=True) as pipeline:
                    if fields:
                        self._add(pipeline, queue, fields[b"data"])
                    pipeline.xack(queue, group, number)
                    await pipeline.execute()
        return len(found[1]) == TAKEN_AT_ONCE

    def _prepare(self, pipeline: Any, queues: set[str]) -> None:
        broker = self._broker
        for queue in queues:
            # A group reads what comes after it was made. It is gone if Redis has lost its data,
            # and a worker that makes it again later would miss what is sent now. Mostly it is
            # there, and nobody looks at the answer.
            pipeline.xgroup_create(
                queue, broker.consumer_group_name, id=broker.consumer_id, mkstream=broker.mkstream
            )

    def _add(self, pipeline: Any, queue: str, data: bytes) -> None:
        broker = self._broker
        pipeline.xadd(queue, {b"data": data}, maxlen=broker.maxlen, approximate=broker.approximate)


def _reads_labels(kick: Callable[..., Any]) -> bool:
    """Whether a broker looks at labels when it sends a message."""
    return "labels" in kick.__code__.co_names
