"""Whether the server is about to end: what a stream must know that would otherwise go on.

A server that ends waits for its open connections before it tells anybody, and an event stream
is one that its client never closes. ASGI has no message for that moment.
"""

from __future__ import annotations

import signal


def is_server_ending() -> bool:
    """Whether the server was asked to end, where that can be seen.

    Uvicorn handles signals with a method of an object that keeps the answer in ``should_exit``.
    Looking there changes nothing, and under other servers finds nothing: streams must have an
    end of their own as well.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", None) is True:
            return True
    return False
