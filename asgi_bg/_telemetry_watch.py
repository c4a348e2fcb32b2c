"""Looks after how many jobs wait and run, for gauges that may be read in any thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent import futures

import msgspec

from asgi_bg._options import check_seconds
from asgi_bg._runner import Runner
from asgi_bg.views import Overview

logger = logging.getLogger("asgi_bg")

LOOK_TIMEOUT = 10.0
"""How many seconds a look may take before it is given up, as its event loop is stuck."""

PATIENCE = 20.0
"""How many times as long as a look took the pause after it lasts, at least."""


class Standing(msgspec.Struct, frozen=True):
    """How the jobs stand.

    Attributes:
        in_flight: Attempts under way in this process.
        queued: Jobs that wait, those of other processes of the journal included.
        oldest: When the one was added that waits for longest, in seconds since the epoch.
    """

    in_flight: int
    queued: int
    oldest: float | None

    def age(self, now: float) -> float:
        """Return for how many seconds the oldest waiting job has waited; 0 if none waits."""
        return 0.0 if self.oldest is None else max(0.0, now - self.oldest)


def together(standings: Iterable[Standing | None]) -> Standing | None:
    """Return how the jobs of several runners stand; None if that is not known of any."""
    known = [standing for standing in standings if standing is not None]
    if not known:
        return None
    oldest = [standing.oldest for standing in known if standing.oldest is not None]
    return Standing(
        sum(standing.in_flight for standing in known),
        sum(standing.queued for standing in known),
        min(oldest, default=None),
    )


class Watch:
    """Looks at a runner again and again, from a thread of its own.

    Whoever reads `standing` blocks nobody. It ends with `close`, or with the runner.

    Args:
        runner: The runner.
        interval: How many seconds lie between two looks; more, where they take long.
        told: Called after each look, in that thread.
    """

    def __init__(
        self, runner: Runner, interval: float, told: Callable[[Standing], object] | None = None
    ) -> None:
        if not isinstance(runner, Runner):
            raise TypeError(f"observe() takes an asgi_bg.Runner, got {runner!r}")
        check_seconds("interval", interval, zero=False)
        self.standing: Standing | None = None
        self._runner = weakref.ref(runner)
        self._interval = interval
        self._told = told
        self._closed = threading.Event()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="asgi_bg telemetry", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more. Returns at once, so that the event loop can call it."""
        self._closed.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._closed.wait(pause):
            began = time.monotonic()
            runner = self._runner()
            if runner is None:
                return
            try:
                self._look(runner)
            except Exception as exc:
                self._complain(exc)
            else:
                self._has_failed = False
            del runner
            pause = max(self._interval, PATIENCE * (time.monotonic() - began))

    def _complain(self, exc: Exception) -> None:
        """Log that a look failed, and not again before one has succeeded."""
        level = logging.DEBUG if self._has_failed else logging.WARNING
        self._has_failed = True
        logger.log(level, "the gauges stand still, as the jobs cannot be looked at: %r", exc)

    def _look(self, runner: Runner) -> None:
        known = runner.loops
        loops = [loop for loop in known if loop.is_running()]
        if not loops:
            self.standing = None
            return
        overview = _ask(runner, loops[0])
        if self._closed.is_set():
            return
        oldest = None if overview.oldest is None else overview.oldest.timestamp()
        self.standing = Standing(runner.stats()["running"], overview.counts.queued, oldest)
        if self._told is not None:
            self._told(self.standing)


def _ask(runner: Runner, loop: asyncio.AbstractEventLoop) -> Overview:
    """Return the runner's overview, made in its event loop.

    Raises:
        TimeoutError: The loop is stuck, or has ended meanwhile.
    """
    look = runner.overview(seconds=1.0, buckets=1)
    try:
        asked = asyncio.run_coroutine_threadsafe(look, loop)
    except RuntimeError as exc:
        look.close()
        raise TimeoutError("its event loop was closed") from exc
    try:
        return asked.result(LOOK_TIMEOUT)
    except futures.TimeoutError as exc:
        asked.cancel()
        raise TimeoutError(f"its event loop did not answer in {LOOK_TIMEOUT:g} seconds") from exc
