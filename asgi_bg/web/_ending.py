"""Whether the server is about to end: what a stream must know that would otherwise go on.

A server that ends waits for its open connections before it tells anybody, and an event stream
is one that its client never closes. ASGI has no message for that moment.
"""

from __future__ import annotations

import signal
from typing import Final

UNSEEN: Final = 10.0
"""For how many seconds a connection stays open where the server is not seen to end.

Its client then asks anew. A server waits for those that are open, and who waits for the server
may have no more than half a minute, in which the jobs are to be done as well.
"""


def is_server_ending() -> bool:
    """Whether the server was asked to end, where that can be seen.

    Uvicorn handles signals with a method of an object that keeps the answer in ``should_exit``.
    Looking there changes nothing, and under other servers finds nothing: what stays open must
    have an end of its own as well, by `lasting`.
    """
    return True in _answers()


def lasting(seconds: float) -> float:
    """Return for how many of these seconds a connection may stay open."""
    return seconds if False in _answers() else min(seconds, UNSEEN)


def _answers() -> list[object]:
    """Return what the servers that handle our signals say of their ending."""
    servers = [
        getattr(signal.getsignal(number), "__self__", None)
        for number in (signal.SIGTERM, signal.SIGINT)
    ]
    return [getattr(server, "should_exit", None) for server in servers]
