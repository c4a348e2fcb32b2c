"""Whose turn it is to write, among the processes that share a file.

SQLite alone lets one of them write at a time. But who finds the file locked sleeps there, from
1 up to 100 milliseconds, while others come and go: with several busy processes that is where
the slowest requests come from. Before this gate they wait in short sleeps, and find it
open soon after it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf

LOOK_INTERVAL = 0.0003
"""How many seconds lie between two looks whether the gate is open."""


class Gate:
    """Lets one process through at a time; for the sake of speed only.

    So whoever has waited too long, or cannot open the gate's file, goes on without it: SQLite
    sees to it that nothing happens twice at once.

    Args:
        journal: The path of the file that is shared.
        timeout: How long to wait, in seconds.

    Attributes:
        is_needed: Whether other processes write, too. Where none does, the calls to the
            system would be the price of nothing: each gives the interpreter lock up.
    """

    def __init__(self, journal: str, timeout: float) -> None:
        self._path = f"{journal}-gate"
        self._timeout = timeout
        self._descriptor: int | None = None
        self._is_held = False
        self.is_needed = False

    def __enter__(self) -> None:
        if not self.is_needed:
            return
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._is_held = self._wait(self._descriptor)

    def _wait(self, descriptor: int) -> bool:
        deadline: float | None = None
        while True:
            try:
                lockf(descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                deadline = deadline or now + self._timeout
                if now >= deadline:
                    return False
                time.sleep(LOOK_INTERVAL)
            else:
                return True

    def __exit__(self, *_: object) -> None:
        if self._is_held and self._descriptor is not None:
            self._is_held = False
            lockf(self._descriptor, LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
