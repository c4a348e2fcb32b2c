"""The way to the broker of ``taskiq-aio-pika``, for which this module needs to be there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from aio_pika import ExchangeType
from taskiq import AsyncBroker, BrokerMessage
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.exceptions import IncorrectRoutingKeyError

from asgi_bg._options import Options
from asgi_bg.engines._taskiq_line import Line, together
from asgi_bg.engines.base import Feature, Message, seconds_put_off

CLOSE_TIMEOUT = 1.0
"""How many seconds a connection gets to end in good order."""

MAX_DELAY = 2**32 / 1000 - 1
"""The longest delay that RabbitMQ takes, in seconds: 49 days."""


def rabbit_line_to(broker: AsyncBroker, timeout: float) -> Line | None:
    """Return the way to a broker, if it sends as the one that is known here.

    Args:
        broker: The broker.
        timeout: How long it may take to connect, in seconds.
    """
    kick: Any = type(broker).kick
    if kick is AioPikaBroker.kick:
        return _RabbitLine(broker, timeout)
    return None


class _RabbitLine(Line):
    """Publishes all at once, so that the confirms overlap, and listens for what comes back."""

    def __init__(self, broker: AsyncBroker, timeout: float) -> None:
        super().__init__(broker)
        # There is no way to learn all this but from private names.
        self._settings = vars(broker)
        # An attempt to connect that is cancelled, instead of failing in time, goes on in the
        # background for ever.
        self._settings["_conn_kwargs"].setdefault("timeout", 0.8 * timeout)

    @property
    def supports(self) -> frozenset[Feature]:
        found: set[Feature] = set()
        if self._has_plugin or self._settings.get("_delay_queue") is not None:
            found.add("delay")
        if self._most_urgent > 0:
            found.add("priority")
        if len(self._queues) > 1:
            found.add("queue")
        return frozenset(found)

    def objection(self, options: Options) -> str | None:
        delay = seconds_put_off(options, time.time())
        if delay > MAX_DELAY:
            return f"asks for a delay of {delay:.0f} seconds, and RabbitMQ keeps 49 days at most"
        if not 0 <= options.priority <= self._most_urgent:
            return (
                f"asks for priority={options.priority}, and the max_priority of the broker's "
                f"queues allows 0 to {self._most_urgent}"
            )
        keys = [queue.routing_key or queue.name for queue in self._queues]
        if len(keys) > 1 and not self._has_topics and options.queue not in keys:
            return f"asks for queue {options.queue!r}, and the broker has {', '.join(keys)}"
        if delay > 0 and not self._has_plugin and options.queue not in (None, *keys[:1]):
            return (
                f"asks for a delay in queue {options.queue!r}, and the broker's delay_queue leads "
                f"to {keys[0]!r} only"
            )
        return None

    def labels(self, message: Message) -> dict[str, Any]:
        labels: dict[str, Any] = {}
        if message.options.queue is not None:
            labels[self._settings["_label_for_routing"]] = message.options.queue
        if message.priority:
            labels[self._settings["_label_for_priority"]] = message.priority
        if message.run_after is not None:
            delay = message.run_after - time.time()
            if delay > 0:
                labels["delay"] = delay
        return labels

    async def kick(self, messages: Sequence[BrokerMessage]) -> list[str | None]:
        returned: set[str] = set()

        def note(message: Any) -> None:
            returned.add(message.header.properties.headers["task_id"])

        # To the channel below: the robust one forgets its callbacks when it reconnects.
        channel = await self._channel()
        channel.on_return_callbacks.add(note)
        try:
            answers = await together([self._publish(message) for message in messages])
        finally:
            channel.on_return_callbacks.discard(note)
        return [
            "RabbitMQ has no queue that takes it" if message.task_id in returned else answer
            for message, answer in zip(messages, answers, strict=True)
        ]

    async def disconnect(self) -> None:
        # The channels first, as `shutdown` does it, would wait for a server that is stuck, and
        # leave connections behind that go on reconnecting.
        for name in ("write_conn", "read_conn"):
            connection = self._settings[name]
            if connection is not None and not connection.is_closed:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT)

    async def _channel(self) -> Any:
        if self._broker.write_channel is None:
            raise ConnectionError("the broker is not connected")
        return await self._broker.write_channel.get_underlay_channel()

    async def _publish(self, message: BrokerMessage) -> str | None:
        try:
            await self._broker.kick(message)
        except IncorrectRoutingKeyError as exc:
            return str(exc)
        return None

    @property
    def _queues(self) -> list[Any]:
        return list(self._settings["_task_queues"])

    @property
    def _has_topics(self) -> bool:
        return bool(self._settings["_exchange"].type != ExchangeType.DIRECT)

    @property
    def _has_plugin(self) -> bool:
        return bool(self._settings["_delayed_message_exchange_plugin"])

    @property
    def _most_urgent(self) -> int:
        return min((queue.max_priority or 0 for queue in self._queues), default=0)
