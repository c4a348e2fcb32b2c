"""Counts what happens, so that a benchmark can prove that its tasks were run."""

from __future__ import annotations

from itertools import count


class Tally:
    """A counter that many threads may add to, without a lock that would cost time."""

    def __init__(self) -> None:
        self._numbers = count()
        self._looks = 0

    def add(self) -> None:
        """Count one more. One call into C, so no thread's count is lost."""
        next(self._numbers)

    def total(self) -> int:
        """Return how many were added; looking takes a number too, which is left out."""
        number = next(self._numbers) - self._looks
        self._looks += 1
        return number
