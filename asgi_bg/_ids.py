"""Job ids: UUID version 7, so they sort by time and cannot be guessed."""

from __future__ import annotations

import os
from collections import deque

_DRAWN = 64
"""How many times 8 random bytes are drawn at once, as each time is a system call."""

_random: deque[int] = deque()
# A forked child must not give out what its parent does.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.clear)


def _draw() -> int:
    """Return 62 bits of the system's random source, each of them given out once."""
    try:
        return _random.popleft()
    except IndexError:
        drawn = os.urandom(8 * _DRAWN)
        numbers = [
            int.from_bytes(drawn[start : start + 8], "big") >> 2
            for start in range(0, len(drawn), 8)
        ]
        _random.extend(numbers[1:])
        return numbers[0]


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
    return f"{(tick >> 12) << 80 | 7 << 76 | (tick & 0xFFF) << 64 | 2 << 62 | _draw():032x}"


def instant_of(id: str) -> float | None:
    """Return when something came to be that has this id, in seconds since the epoch.

    None if that is no id of ours.
    """
    try:
        number = int(id, 16)
    except ValueError:
        return None
    is_ours = len(id) == 32 and number >> 76 & 15 == 7 and number >> 62 & 3 == 2
    return (number >> 80) / 1000 if is_ours else None


def first_id(at: float) -> str:
    """Return the id that sorts before all that were made at that instant or later."""
    return f"{int(at * 4_096_000) >> 12:012x}"
