"""Engines: distributed queues that run jobs when one machine is not enough (E1 to E6)."""

# An engine is a public module with its class, and private ones beside it. What they are for is
# said by the same words: ``line``, the way to its broker; ``jobs`` or ``messages``, what is made
# of our jobs there; ``native``, tasks of its own; ``sender`` or ``publisher``, many at once;
# ``worker`` or ``tasks``, our tasks at the other end.

from asgi_bg._task import on_declared
from asgi_bg.engines.base import (
    Again,
    Engine,
    Envelope,
    Feature,
    Message,
    Native,
    Performer,
    Report,
)

__all__ = [
    "Again",
    "Engine",
    "Envelope",
    "Feature",
    "Message",
    "Native",
    "Performer",
    "Report",
    "on_declared",
]
