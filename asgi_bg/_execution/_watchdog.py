"""Warns about a task that blocks the event loop, by name and by line."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from types import FrameType
from typing import Protocol

from asgi_bg._messages import extras
from asgi_bg._record import JobRecord

logger = logging.getLogger("asgi_bg")

BLOCKED_AFTER = 1.0
"""After how many seconds without a sign of life a loop counts as blocked."""

INTERVAL = 0.5
"""How many seconds lie between two looks."""

IDLE_LOOKS = 20
"""After how many looks without an async job the thread ends, until the next job."""


class Watched(Protocol):
    """The async jobs of a loop."""

    loop: asyncio.AbstractEventLoop
    running: dict[asyncio.Task[None], JobRecord]
    """Those that have had to wait, by their tasks."""
    stepping: JobRecord | None
    """The one that takes its first step right now."""


class Watchdog:
    """Watches one event loop from a thread of its own, while async jobs run on it."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._loop = watched.loop
        self._loop_thread = threading.get_ident()
        self._is_closed = threading.Event()
        self.is_awake = False

    def wake(self) -> None:
        """Begin to watch; to be called from the loop when a job starts and nobody is awake."""
        if not self._is_closed.is_set():
            self.is_awake = True
            try:
                threading.Thread(target=self._watch, name="asgi_bg watchdog", daemon=True).start()
            except RuntimeError:
                self.is_awake = False  # no thread to be had; the jobs matter more

    def close(self) -> None:
        """Watch no more."""
        self._is_closed.set()

    def _watch(self) -> None:
        idle = 0
        while not self._is_closed.wait(INTERVAL):
            idle = 0 if self._watched.running else idle + 1
            if idle > IDLE_LOOKS:
                break
            try:
                self._look()
            except RuntimeError:
                break  # the loop is closed
        self.is_awake = False

    def _look(self) -> None:
        alive = threading.Event()
        self._loop.call_soon_threadsafe(alive.set)
        if alive.wait(BLOCKED_AFTER / 2):
            return
        # Seen twice, so that the job of a moment is not blamed for what others do.
        suspect = self._find()
        if alive.wait(BLOCKED_AFTER / 2):
            return
        if suspect is not None and suspect is self._find():
            self._warn(suspect)
        while not alive.wait(INTERVAL):
            if self._loop.is_closed() or self._is_closed.is_set():
                return

    def _find(self) -> JobRecord | None:
        """Return the job that has the loop now, if it is a job that has it."""
        if self._watched.stepping is not None:
            return self._watched.stepping
        task = asyncio.current_task(self._loop)
        return None if task is None else self._watched.running.get(task)

    def _warn(self, record: JobRecord) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - its documented name
        logger.warning(
            "task %s has been blocking the event loop for over %.1f seconds%s; "
            "make it a plain def, which runs in a worker thread, or await what takes long "
            "(job %s)",
            record.task_name,
            BLOCKED_AFTER,
            _place_of(frame),
            record.id,
            extra=extras(record),
        )


def _place_of(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    return f", at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
