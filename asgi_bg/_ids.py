"""Job ids: UUID version 7, so they sort by time and cannot be guessed."""

from __future__ import annotations

import os


def new_id(at: float) -> str:
    """Return a new id for something that came to be at that instant.

    The 32 hex digits of a version 7 UUID: 48 bits of milliseconds, 12 bits of their
    fraction (so ids sort to a quarter of a microsecond), and 62 bits from the operating
    system's random source.

    Source: RFC 9562, section 5.7 (layout) and section 6.2, method 3 (the fraction).

    Args:
        at: Seconds since the epoch.
    """
    tick = int(at * 4_096_000)
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return f"{(tick >> 12) << 80 | 7 << 76 | (tick & 0xFFF) << 64 | 2 << 62 | random:032x}"


def first_id(at: float) -> str:
    """Return the id that sorts before all that were made at that instant or later."""
    return f"{int(at * 4_096_000) >> 12:012x}"
