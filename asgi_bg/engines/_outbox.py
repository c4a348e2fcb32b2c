"""The outbox: forwards jobs that are kept in a journal to an engine (E1).

A job that is here is on disk. It is sent, and when the engine has acknowledged it the journal
is told; a crash in between sends it again, by the same id (E2).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from asgi_bg._record import JobRecord
from asgi_bg._retry import backoff
from asgi_bg.engines._link import Link
from asgi_bg.engines.base import Message
from asgi_bg.exceptions import EngineError

logger = logging.getLogger("asgi_bg")

BATCH = 100
"""How many jobs are sent at once; larger batches are hardly faster, and hold up the event loop."""

BATCH_SIZE = 4 * 1024 * 1024
"""How many bytes of arguments are sent at once, if more than one job is."""

LINGER = 0.005
"""For how many seconds a job waits for others to go with it; nobody waits for that."""

STRIKES = 8
"""How often a job must fail alone, while others go through, to be refused for good."""

WITNESSES = 2
"""How many others must go through, one after another, for it to count."""

DOUBTED = 2
"""After how many failures in a row it is tried whether others go through."""

# An engine that fails at random must not cost a good job. If each send fails with probability
# q, a job collects a strike before it goes through with at most q**3 * (1 - q) / (1 + q - q**2),
# which is less than 0.09 whatever q is: eight of them meet in less than one of 2e8 jobs.

NEARBY = 50
"""Among how many that wait the others are chosen, times the failures in a row: so the oldest
still go first, and however many of them are poisonous too, good ones are reached."""

RETRY_DELAY = 0.2
"""The longest wait after the first failure, in seconds; it doubles with each further one."""

RETRY_MAX_DELAY = 2.0
"""The longest wait while an engine is away: so soon after its return is it found."""


class Desk(Protocol):
    """Who has the jobs, and is told what became of them."""

    loop: asyncio.AbstractEventLoop

    def handed_over(self, records: Sequence[JobRecord]) -> None:
        """Note that the engine has these jobs."""
        ...

    def refused(self, record: JobRecord, reason: str) -> None:
        """Fail a job that the engine will never take."""
        ...

    def send_away(self, record: JobRecord) -> None:
        """Let a job wait in the journal."""
        ...

    def hold(self) -> None:
        """Keep `drain` from ending until `release`."""
        ...

    def release(self) -> None:
        """End a `hold`."""
        ...


class Outbox:
    """Sends what is put into it, oldest first, in batches, for as long as it takes.

    All methods belong to the desk's event loop.

    Args:
        link: The way to the engine.
        desk: Who has the jobs.
        message_of: Makes the message of a job.
    """

    def __init__(self, link: Link, desk: Desk, message_of: Callable[[JobRecord], Message]) -> None:
        self._link = link
        self._desk = desk
        self._message_of = message_of
        self._waiting: deque[JobRecord] = deque()
        self._size = BATCH
        self._failures = 0
        self._is_away = False
        # How many others have gone through while a job did not.
        self._witnesses: dict[JobRecord, int] = {}
        self._forwarding: asyncio.Task[None] | None = None
        self._is_closing = False
        self._waiters: list[asyncio.Future[None]] = []

    def add(self, record: JobRecord) -> None:
        """Send a job."""
        self._waiting.append(record)
        if self._forwarding is None:
            self._desk.hold()
            self._forwarding = self._desk.loop.create_task(self._forward())

    async def settled(self) -> None:
        """Wait until nothing is left to send, or the engine is away."""
        while self._forwarding is not None and not self._is_away:
            waiter: asyncio.Future[None] = self._desk.loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def finish(self) -> None:
        """From now on, should the engine be away, let the jobs wait in the journal."""
        self._is_closing = True
        if self._is_away:
            self._give_back()

    def close(self) -> None:
        """Send no more."""
        if self._forwarding is not None:
            self._forwarding.cancel()

    async def _forward(self) -> None:
        try:
            while self._waiting:
                if len(self._waiting) < self._size and not self._is_closing:
                    await asyncio.sleep(LINGER)
                await self._send_next()
        except Exception:
            logger.exception("forwarding to the engine %s failed", self._link.engine.name)
            self._give_back()
        finally:
            self._forwarding = None
            self._tell()
            self._desk.release()

    async def _send_next(self) -> None:
        batch = self._take(self._size)
        if not batch:
            return
        error = await self._send(batch)
        if error is None:
            self._size = min(2 * self._size, BATCH)
            return
        self._waiting.extendleft(reversed(batch))
        self._size = 1  # it may be one of them
        is_blamed = (
            len(batch) == 1 and self._failures >= DOUBTED and await self._blame(batch[0], error)
        )
        if not is_blamed:
            await self._wait(error)

    async def _blame(self, record: JobRecord, error: EngineError) -> bool:
        """Find out whether it is the job that cannot be sent, by sending others.

        Returns:
            Whether they went through. In the end that fails it, and those behind it go on.
        """
        nearby = itertools.islice(self._waiting, NEARBY * self._failures)
        others = [other for other in nearby if other is not record and _is_open(other)]
        # By chance, as some may be of the same kind.
        chosen = random.sample(range(len(others)), min(WITNESSES, len(others)))
        for other in map(others.__getitem__, sorted(chosen)):
            if not _is_open(other):
                continue
            is_sent = await self._send([other]) is None
            if is_sent and other in self._waiting:  # unless all were given back meanwhile
                self._waiting.remove(other)
            if not _is_open(record):
                return is_sent  # it was cancelled, or given back
            witnesses = self._witnesses.get(record, 0)
            if not is_sent:
                self._witnesses[record] = witnesses - witnesses % WITNESSES
                return False
            self._witnesses[record] = witnesses + 1
        strikes = self._witnesses.get(record, 0) // WITNESSES
        if strikes >= STRIKES:
            self._waiting.remove(record)
            self._witnesses.pop(record)
            self._desk.refused(record, f"{error} ({strikes} times, while others went through)")
        return bool(chosen)

    async def _send(self, batch: list[JobRecord]) -> EngineError | None:
        """Send a batch; return why it was not acknowledged, if so."""
        messages = [self._message_of(record) for record in batch]
        try:
            answers = await self._link.send(messages)
            if len(answers) != len(batch):
                raise EngineError(
                    f"the engine {self._link.engine.name} answered for {len(answers)} of "
                    f"{len(batch)} jobs"
                )
        except EngineError as exc:
            return exc
        self._note_success()
        taken: list[JobRecord] = []
        for record, reason in zip(batch, answers, strict=True):
            self._witnesses.pop(record, None)
            if reason is None:
                taken.append(record)
            else:
                self._desk.refused(record, reason)
        self._desk.handed_over(taken)
        return None

    def _take(self, limit: int) -> list[JobRecord]:
        taken: list[JobRecord] = []
        size = 0
        while self._waiting and len(taken) < limit:
            record = self._waiting[0]
            if _is_open(record):
                size += len(record.kept.call) if record.kept is not None else 0
                if taken and size > BATCH_SIZE:
                    break
                taken.append(record)
            self._waiting.popleft()
        return taken

    async def _wait(self, error: EngineError) -> None:
        """Wait before the next try, ever longer."""
        if not self._is_away:
            self._is_away = True
            logger.warning("%s; its jobs wait in the journal", error)
            self._tell()
        self._failures += 1
        if self._is_closing:
            self._give_back()
            return
        draw = random.random()  # noqa: S311 - jitter
        await asyncio.sleep(
            backoff(self._failures, base=RETRY_DELAY, cap=RETRY_MAX_DELAY, draw=draw)
        )

    def _note_success(self) -> None:
        self._failures = 0
        if self._is_away:
            self._is_away = False
            logger.warning("the engine %s can be reached again", self._link.engine.name)

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _give_back(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        self._witnesses.clear()
        for record in waiting:
            if _is_open(record):
                self._desk.send_away(record)


def _is_open(record: JobRecord) -> bool:
    """Whether a job still waits here, and was neither cancelled nor given back."""
    return record.finished_at is None and not record.is_away
