"""Takes jobs from the journal, as many as there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sized
from functools import partial
from typing import Protocol

from asgi_bg._keeping.marks import release_of
from asgi_bg.exceptions import JournalError
from asgi_bg.journal._writer import Writer
from asgi_bg.journal.base import JobRow, Journal, Orphan

logger = logging.getLogger("asgi_bg")

CLAIMED = 500
"""How many jobs are claimed at a time."""


class Host(Protocol):
    """Who runs, on its event loop, what is claimed."""

    loop: asyncio.AbstractEventLoop

    def take_up(self, rows: list[JobRow]) -> None:
        """Run these jobs."""
        ...

    def recovered(self, orphans: list[Orphan]) -> None:
        """Tell of jobs whose process died."""
        ...


class Claims:
    """Claims jobs for the event loops of a runner.

    Args:
        journal: The journal.
        writer: Who writes to it.
        held: The jobs that this process holds.
        window: How many it may hold.
        is_strict: Whether no new job is held while others wait in the journal.

    Attributes:
        has_backlog: Whether there may be jobs that wait in the journal.
        is_closing: Whether no more are claimed, as this process is about to end.
    """

    def __init__(
        self, journal: Journal, writer: Writer, held: Sized, window: int, *, is_strict: bool
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._held = held
        self._window = window
        self._is_strict = is_strict
        self._hosts: list[Host] = []
        self._brought: deque[tuple[int, list[JobRow]]] = deque()
        self._is_claiming = False
        self._due: asyncio.TimerHandle | None = None
        self.has_backlog = False
        self.is_closing = False

    def attach(self, host: Host) -> None:
        """Let this one run what is claimed."""
        self._hosts.append(host)
        self.is_closing = False
        if self._brought:  # for a loop that has ended before it heard of them
            host.loop.call_soon(self.take_brought)

    def clear(self) -> None:
        """Know of nobody who runs jobs any more."""
        self._hosts.clear()

    def __bool__(self) -> bool:
        return bool(self._hosts)

    @property
    def host(self) -> Host | None:
        """Who runs what is claimed, if there is anybody."""
        # The first, as the others are those of single calls; one that stands still takes nothing.
        return next((host for host in tuple(self._hosts) if host.loop.is_running()), None)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give this loop no more jobs."""
        self._hosts = [host for host in self._hosts if host.loop is not loop]

    def stop_claiming(self) -> None:
        """Take no more jobs from the journal, as this process is about to end."""
        self.is_closing = True
        if self._due is not None:
            self._due.cancel()
            self._due = None

    @property
    def limit(self) -> int:
        """How many jobs may be held before others are given back."""
        if not self.has_backlog:
            return self._window
        # Jobs that wait in the journal have their share of the room.
        return 0 if self._is_strict else self._window // 2

    def claim_soon(self) -> None:
        """Claim jobs, if there is room for some; in the loop's thread."""
        room = self._window - len(self._held)
        if self._is_claiming or self.is_closing or self.host is None or room <= 0:
            return
        self._is_claiming = True
        limit = min(room, CLAIMED)
        claim = partial(self._journal.claim, limit, time.time())
        self._writer.call(claim, partial(self._bring, self.host, limit))

    def claim_if_room(self) -> None:
        """Claim jobs, if some wait and there is room for many."""
        # In large steps, as each one is a commit.
        if self.has_backlog and len(self._held) <= self._window // 2:
            self.claim_soon()

    def claim_retried(self) -> None:
        """Claim what was made to wait again, as soon as there is room."""
        self.has_backlog = True
        self.claim_soon()

    def _bring(
        self, host: Host, limit: int, rows: list[JobRow] | None, error: BaseException | None
    ) -> None:
        if error is not None and not isinstance(error, JournalError):
            logger.error("claiming jobs failed", exc_info=error)
        self._brought.append((limit, rows or []))
        with contextlib.suppress(RuntimeError):  # closed: another loop looks for them
            host.loop.call_soon_threadsafe(self.take_brought)

    @property
    def has_brought(self) -> bool:
        """Whether there are jobs that were claimed and that no loop has taken up yet."""
        return bool(self._brought)

    def take_brought(self) -> None:
        """Take up jobs that were claimed; in the loop's thread."""
        try:
            limit, rows = self._brought.popleft()
        except IndexError:
            return  # another loop has taken them
        self._is_claiming = False
        host = self.host
        if self.is_closing or host is None or host.loop is not asyncio.get_running_loop():
            self.has_backlog = True
            for row in rows:
                self._writer.mark(release_of(row, "queued", None))
            return
        self.has_backlog = len(rows) >= limit
        host.take_up(rows)
        if self.has_backlog:
            self.claim_if_room()

    def claim_at(self, due: float) -> None:
        """Claim jobs at an instant, in seconds since the epoch; in the loop's thread."""
        if self._due is not None and self._due.when() < time.monotonic() - 0.1:
            self._due = None  # of a loop that has ended before
        if self._due is None and self.host is not None:
            wait = max(0.0, due - time.time())
            self._due = self.host.loop.call_later(wait, self._claim_due)

    def _claim_due(self) -> None:
        self._due = None
        self.claim_soon()
