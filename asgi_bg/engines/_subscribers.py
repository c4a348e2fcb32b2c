"""Who is told of the jobs that an engine's own worker runs (R9)."""

from __future__ import annotations

from collections.abc import Iterable

from asgi_bg.events import EventHandler, Events

__all__ = ["Subscribers"]


class Subscribers:
    """The subscribers of an engine's workers; there are none until some are added.

    Attributes:
        events: Those there are now.
    """

    def __init__(self) -> None:
        self.events = Events()

    def add(self, on_event: EventHandler | Iterable[EventHandler]) -> None:
        """Add a handler, or several; one that is there already still hears each event once.

        Raises:
            TypeError: One of them is no plain function.
        """
        there = self.events.handlers
        added = [each for each in Events(on_event).handlers if each not in there]
        if added:
            self.events = Events((*there, *added))
