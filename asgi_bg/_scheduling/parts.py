"""What the schedulers of a runner have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asgi_bg._execution.threads import ThreadPool
from asgi_bg._limits import Limits
from asgi_bg._registry import Registry
from asgi_bg.events import Events

if TYPE_CHECKING:
    from asgi_bg._keeping.keeper import Keeper
    from asgi_bg.engines._link import Link


class Parts(NamedTuple):
    """The parts of a runner that are there once, however many event loops it has.

    Attributes:
        limits: What bounds its jobs.
        registry: The jobs that this process knows.
        threads: Its worker threads.
        events: Its subscribers.
        keeper: Who keeps jobs of declared tasks, in a journal or with the engine; or None.
        link: The way to its engine, if it has one; then there is a keeper, too.
    """

    limits: Limits
    registry: Registry
    threads: ThreadPool
    events: Events
    keeper: Keeper | None
    link: Link | None
