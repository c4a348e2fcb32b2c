"""Which way there is to a taskiq broker; the better ones need the broker's package."""

from __future__ import annotations

from collections.abc import Callable

from taskiq import AsyncBroker

from asgi_bg.engines._taskiq_line import Line

_lines: list[Callable[[AsyncBroker, float], Line | None]] = []
"""The better ways to brokers whose packages are there."""

try:
    from asgi_bg.engines._taskiq_redis import redis_line_to
except ImportError:  # pragma: no cover - for users of other brokers
    pass
else:
    _lines.append(redis_line_to)

try:
    from asgi_bg.engines._taskiq_rabbit import rabbit_line_to
except ImportError:  # pragma: no cover - for users of other brokers
    pass
else:
    _lines.append(rabbit_line_to)

FORGETFUL = frozenset(
    (
        "InMemoryBroker",
        "ListQueueBroker",
        "ListQueueClusterBroker",
        "ListQueueSentinelBroker",
        "PubSubBroker",
        "PubSubSentinelBroker",
        "ZeroMQBroker",
    )
)
"""Brokers that count a message as done when a worker has got it, by the names of their classes."""


def line_to(broker: AsyncBroker, timeout: float) -> Line:
    """Return the best way there is to a broker.

    Args:
        broker: The broker.
        timeout: How long it may take to connect, in seconds.
    """
    ways = (better(broker, timeout) for better in _lines)
    return next((way for way in ways if way is not None), None) or Line(broker)


def is_forgetful(broker: AsyncBroker) -> bool:
    """Whether a broker loses jobs with the worker that has them."""
    return any(kind.__name__ in FORGETFUL for kind in type(broker).__mro__)
