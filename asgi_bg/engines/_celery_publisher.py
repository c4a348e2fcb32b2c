"""One connection to Celery's broker, for sending jobs in batches. It blocks; see `_clerk`."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from typing import Any

from asgi_bg.engines._celery_api import EncodeError, PreconditionFailed
from asgi_bg.engines._celery_brokers import Batch, PlainBatch, RabbitBatch, RedisBatch
from asgi_bg.engines._celery_messages import Composer, Refused
from asgi_bg.engines.base import Message

_BATCHES: dict[str, type[Batch]] = {"amqp": RabbitBatch, "redis": RedisBatch}

STRETCH = 10
"""After how many messages there is a pause."""

PAUSE = 0.0002
"""How long it is, in seconds."""


def driver_of(app: Any) -> str:
    """Return what an app's broker is: ``"amqp"``, ``"redis"`` or another transport of kombu's."""
    driver: str = app.connection_for_write().transport.driver_type
    return driver


def connection_of(app: Any, timeout: float) -> Any:
    """Return a connection to an app's broker, not open yet, on which nothing takes for ever."""
    limits = {
        # Of kombu's transport for Redis:
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry_on_timeout": False,
        # Of the one for RabbitMQ; this engine waits for the confirmations of a whole batch.
        "read_timeout": timeout,
        "write_timeout": timeout,
        "confirm_publish": False,
    }
    return app.connection_for_write(connect_timeout=timeout, transport_options=limits)


def connect(connection: Any) -> None:
    """Open a connection, trying each of the broker's addresses once."""
    connection.ensure_connection(
        max_retries=max(0, len(connection.alt) - 1),
        interval_start=0,
        interval_step=0,
        interval_max=0,
        reraise_as_library_errors=False,
    )


def shut_down(connection: Any) -> None:
    """Shut the sockets of a connection down, under a call that waits for them."""
    established = connection._connection  # noqa: SLF001 - the property would connect anew
    driver = connection.transport.driver_type
    if established is not None and driver == "amqp":
        established.transport.sock.shutdown(socket.SHUT_RDWR)
    elif established is not None and driver == "redis":
        for channel in tuple(established.channels):
            channel.client.connection_pool.disconnect()
            channel.pool.disconnect()


class Publisher:
    """Sends jobs over a connection of its own.

    Everything but `interrupt` is called in one thread.

    Args:
        app: The Celery app.
        timeout: How long the network may take for anything, in seconds.
        arrived: The ids of jobs of a batch that broke which the broker has confirmed all the
            same; they are not sent once more.
    """

    def __init__(self, app: Any, timeout: float, arrived: set[str] | None = None) -> None:
        self._app = app
        self._timeout = timeout
        driver = driver_of(app)
        self._composer = Composer(app, driver)
        self._connection: Any = None
        self._batch_type = _BATCHES.get(driver, PlainBatch)
        self._batch: Batch | None = None
        self._arrived = set[str]() if arrived is None else arrived

    def ready(self) -> Batch:
        """Connect, unless there is a connection that is known to be alive."""
        batch = self._batch
        if batch is None or not batch.is_alive():
            # The broker closes what has been idle for long, or was restarted.
            self.close()
            self._connection = connection_of(self._app, self._timeout)
            connect(self._connection)
            batch = self._batch = self._batch_type(self._connection, self._timeout)
        return batch

    def close(self) -> None:
        """Disconnect; from whatever it has come to."""
        self._batch = None
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.release()
            self._connection = None  # only now, as `interrupt` may have to end that

    def interrupt(self) -> None:
        """Shut the connection down under a call that waits for it; from any thread."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Exception):
                shut_down(connection)

    def send(self, messages: Sequence[Message]) -> list[str | None]:
        """Send jobs, as `Engine.send` does."""
        batch = self.ready()
        batch.confirmed.clear()
        answers: dict[str, str] = {}
        fresh = [message for message in messages if message.id not in self._arrived]
        try:
            unroutable = self._send(batch, fresh, answers)
            if unroutable:
                # A queue may have been deleted since it was declared over this connection.
                batch.forget_declared()
                again = [message for message in fresh if message.id in unroutable]
                answers.update(self._send(batch, again, answers))
        except BaseException as exc:
            self.interrupt()
            self.close()
            if isinstance(exc, PreconditionFailed) and _is_too_large(exc) and len(messages) == 1:
                # RabbitMQ closes the channel upon it, so more than one cannot be told apart.
                return [str(exc)]
            self._arrived |= batch.confirmed
            raise
        self._arrived.difference_update(message.id for message in messages)
        return [answers.get(message.id) for message in messages]

    def _send(
        self, batch: Batch, messages: Sequence[Message], answers: dict[str, str]
    ) -> dict[str, str]:
        """Send jobs; return those that came back, as no queue is there for them."""
        send_task_message = self._app.amqp.send_task_message
        batch.begin()
        for position, message in enumerate(messages, 1):
            if position % STRETCH == 0:
                # Making messages is all Python: without it, this thread would keep the
                # interpreter, and what serves responses would wait for it again and again.
                time.sleep(PAUSE)
            try:
                name, made, options = self._composer.compose(message)
                batch.id = message.id
                send_task_message(batch, name, made, retry=False, **options)
            except (Refused, EncodeError) as exc:
                answers[message.id] = str(exc)
        return batch.finish()


def _is_too_large(exc: BaseException) -> bool:
    return "message size" in str(exc)
