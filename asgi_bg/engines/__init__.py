"""Engines: distributed queues that run jobs when one machine is not enough (E1 to E6)."""

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
