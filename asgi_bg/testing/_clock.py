"""The time that passes for recorded jobs, which is only what a test says."""

from __future__ import annotations

from asgi_bg._options import check_seconds

# So that three steps of 0.1 seconds make 0.3.
_TOLERANCE = 1e-6


class Clock:
    """Stands still until it is told how much time has passed.

    It is what recorded jobs wait by that were put off by ``delay=`` or ``run_at=``, or are to be
    tried again. The clock of the computer is left alone, and so is what the app reads off it.

    Attributes:
        elapsed: How many seconds have passed since the recording began.
    """

    def __init__(self) -> None:
        self.elapsed = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass; jobs that become due are run by the next `TaskRecorder.drain`.

        Args:
            seconds: How much.

        Raises:
            TypeError, ValueError: That is no number of seconds, or is below 0.
        """
        check_seconds("seconds", seconds)
        self.elapsed += seconds

    def has_come_to(self, due: float) -> bool:
        """Whether so many seconds have passed."""
        return due <= self.elapsed + _TOLERANCE

    def __repr__(self) -> str:
        return f"<Clock, {self.elapsed:g} seconds have passed>"
