"""Batches of messages, as each of the brokers takes them fastest and confirms them."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from asgi_bg.engines._celery_api import BasicPublish, Producer, dumps, maybe_declare


class Batch(Producer):  # type: ignore[misc] # kombu has no types
    """Takes messages from Celery in the place of its own producer.

    What Celery does with a message up to here stays Celery's: routing, signals, serializing.

    Args:
        connection: An open connection.
        timeout: How long to wait for confirmations, in seconds.

    Attributes:
        id: The id of the job that is sent next; empty for Celery's event that one was sent.
        confirmed: The ids of those that the broker is known to have.
    """

    def __init__(self, connection: Any, timeout: float) -> None:
        self._at = connection.channel()
        super().__init__(self._at, auto_declare=False)  # pyright: ignore[reportUnknownMemberType]
        self._kombu = connection
        self._timeout = timeout
        self._declared: set[Any] = set()
        self.id = ""
        self.confirmed: set[str] = set()

    def begin(self) -> None:
        """Get ready for a new batch."""

    def finish(self) -> dict[str, str]:
        """Wait until the broker has confirmed all of them.

        Returns:
            The ids of those that it has not kept, as no queue is there for them, and why.
        """
        return {}

    def is_alive(self) -> bool:
        """Whether the connection is known to be broken; without waiting for anything."""
        return True

    def forget_declared(self) -> None:
        """Declare queues anew."""
        self._declared.clear()
        self._kombu.declared_entities.clear()

    def _take_id(self) -> str:
        id, self.id = self.id, ""  # noqa: A001 - what the contract calls it
        return id

    def _declare(self, entities: Any) -> None:
        for entity in entities or ():
            # kombu remembers it, too, but makes a copy of the queue each time.
            if entity not in self._declared:
                maybe_declare(entity, self._at)
                if entity.can_cache_declaration:
                    self._declared.add(entity)


class PlainBatch(Batch):
    """Sends one message after another, as Celery itself does."""

    def publish(self, *args: Any, **kwargs: Any) -> None:
        super().publish(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType]
        self.confirmed.add(self._take_id())


class _OwnBatch(Batch):
    """Takes a message from kombu when it is ready for the channel."""

    def _publish(
        self,
        body: Any,
        priority: int,
        content_type: str,
        content_encoding: str,
        headers: dict[str, Any],
        properties: dict[str, Any],
        routing_key: str,
        mandatory: bool,
        immediate: bool,
        exchange: str,
        declare: Any,
        *_: Any,
    ) -> None:
        self._declare(declare)
        message = self._at.prepare_message(
            body, priority, content_type, content_encoding, headers, properties
        )
        self._hand_over(self._take_id(), message, exchange, routing_key)

    def _hand_over(self, job: str, message: Any, exchange: str, routing_key: str) -> None:
        """Send a message of a job; or of an event, whose id is empty."""
        raise NotImplementedError


class RabbitBatch(_OwnBatch):
    """Publishes all, and then waits for RabbitMQ to confirm them."""

    def __init__(self, connection: Any, timeout: float) -> None:
        super().__init__(connection, timeout)
        self._at.confirm_select()
        self._at.events["basic_ack"].add(self._on_ack)
        self._at.events["basic_nack"].add(self._on_nack)
        self._at.events["basic_return"].add(self._on_return)
        self._tag = 0
        self._waiting: dict[int, str] = {}
        self._rejected = 0
        self._returned: dict[str, str] = {}

    def begin(self) -> None:
        self._returned = {}

    def _hand_over(self, job: str, message: Any, exchange: str, routing_key: str) -> None:
        self._tag += 1
        self._waiting[self._tag] = job
        # What `basic_publish` does, but for a look each time at what the broker has to say.
        # Mandatory for jobs: what reaches no queue comes back.
        arguments = (0, exchange, routing_key, bool(job), False)
        self._at.send_method(BasicPublish, "Bssbb", arguments, message)

    def finish(self) -> dict[str, str]:
        end = time.monotonic() + self._timeout
        while self._waiting:
            self._kombu.drain_events(timeout=max(0.001, end - time.monotonic()))
        if self._rejected:
            raise ConnectionError(
                f"RabbitMQ could not take {self._rejected} of the messages now, and has "
                "rejected them; is a queue full?"
            )
        return self._returned

    def is_alive(self) -> bool:
        try:
            while True:
                self._kombu.drain_events(timeout=0)
        except socket.timeout:  # noqa: UP041 - another class in Python 3.9 and before
            return True
        except Exception:
            return False

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self.confirmed.update(self._settled(tag, multiple))
        self.confirmed.difference_update(self._returned)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._rejected += len(self._settled(tag, multiple))

    def _settled(self, tag: int, multiple: bool) -> list[str]:
        tags = [known for known in self._waiting if known <= tag] if multiple else [tag]
        return [self._waiting.pop(known) for known in tags if known in self._waiting]

    def _on_return(self, exc: Any, exchange: str, routing_key: str, message: Any) -> None:
        # It comes before the confirmation.
        self._returned[message.properties.get("correlation_id", "")] = (
            f"no queue takes what is sent to the exchange {exchange!r} with the routing key "
            f"{routing_key!r}"
        )


class RedisBatch(_OwnBatch):
    """Pushes all in one round trip, all or none of them."""

    def __init__(self, connection: Any, timeout: float) -> None:
        super().__init__(connection, timeout)
        # Where a channel of kombu's puts what it has routed; it does so one by one.
        self._at._put = self._put  # noqa: SLF001 - what a virtual transport is to implement
        self._pipeline: Any = None
        self._unroutable: dict[str, str] = {}

    def begin(self) -> None:
        self._pipeline = self._at.client.pipeline(transaction=True)
        self._unroutable = {}

    def _hand_over(self, job: str, message: Any, exchange: str, routing_key: str) -> None:
        before = len(self._pipeline)
        self._at.basic_publish(message, exchange=exchange, routing_key=routing_key)
        is_kept = len(self._pipeline) > before or self._at.typeof(exchange).type == "fanout"
        if job and not is_kept:
            self._unroutable[job] = (
                f"no queue is bound to the exchange {exchange!r} with the routing key "
                f"{routing_key!r}"
            )

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        channel = self._at
        priority = channel._get_message_priority(message, reverse=False)  # noqa: SLF001
        self._pipeline.lpush(channel._q_for_pri(queue, priority), dumps(message))  # noqa: SLF001

    def finish(self) -> dict[str, str]:
        with contextlib.closing(self._pipeline):
            if len(self._pipeline):
                try:
                    self._pipeline.execute()
                except Exception as exc:
                    exc.args = tuple(_without_commands(arg) for arg in exc.args)
                    raise
        return self._unroutable


def _without_commands(arg: Any) -> Any:
    """Return an argument of an error without what it quotes: a command, and so a job's arguments.

    The client puts the whole command in front of what Redis says ("of pipeline caused error"),
    and Redis the beginning of one that it does not know at the end.
    """
    if not isinstance(arg, str):
        return arg
    _, _, said = arg.rpartition("of pipeline caused error: ")
    return said.partition(" with args beginning with")[0].rstrip(",")
