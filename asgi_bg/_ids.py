"""Job ids: UUID version 7, so they sort by time and cannot be guessed."""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last_tick = 0


def new_id() -> str:
    """Return a new id: the 32 hex digits of a version 7 UUID.

    Ids made by one process sort in the order they were made. 62 bits come from the
    operating system's random source.

    Source: RFC 9562, section 5.7 (layout) and section 6.2, method 3 (the 12 bits after
    the milliseconds hold their fraction, and never repeat).
    """
    global _last_tick
    tick = time.time_ns() * 4096 // 1_000_000
    with _lock:
        if tick <= _last_tick:
            tick = _last_tick + 1
        _last_tick = tick
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return f"{(tick >> 12) << 80 | 7 << 76 | (tick & 0xFFF) << 64 | 2 << 62 | random:032x}"
