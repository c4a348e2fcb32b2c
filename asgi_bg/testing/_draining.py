"""Runs recorded jobs: in the event loop of their app while that runs, else in one of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from asgi_bg._scheduling.lane import run_apart
from asgi_bg._scheduling.scheduler import Scheduler
from asgi_bg.testing._store import INTERVAL, Entry, Store

MARGIN = 5.0
"""How many seconds more than a drain may take are waited for another thread that drains."""


class Draining:
    """One run of all jobs that are due, and of those that they add; one after another.

    Args:
        store: Where the jobs are.
        timeout: How long it may take, in seconds.

    Attributes:
        ran: The jobs that were run, in the order they were.
    """

    def __init__(self, store: Store, timeout: float) -> None:
        self._store = store
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self.ran: list[Entry] = []

    def run(self) -> None:
        """Run them, from a thread that runs no event loop."""
        while (entry := self._store.first_ready()) is not None:
            scheduler = entry.live_scheduler
            if scheduler is None:
                _run_in_new_loop(self._run_here())
            else:
                self._await_there(scheduler.loop)

    async def run_async(self) -> None:
        """Run them, within an event loop."""
        here = asyncio.get_running_loop()
        while (entry := self._store.first_ready()) is not None:
            scheduler = entry.live_scheduler
            if scheduler is None or scheduler.loop is here:
                await self._run_here()
            else:
                await asyncio.wrap_future(self._run_there(scheduler.loop))

    def _await_there(self, loop: asyncio.AbstractEventLoop) -> None:
        there = self._run_there(loop)
        try:
            there.result(self._time_left() + MARGIN)
        except FutureTimeoutError:
            if there.done():
                raise  # of the drain itself
            there.cancel()
            raise TimeoutError(
                "drain() waits for the event loop of the app, which does not answer; is something "
                "in it that blocks?"
            ) from None

    def _run_there(self, loop: asyncio.AbstractEventLoop) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(self._run_here(), loop)

    async def _run_here(self) -> None:
        """Run jobs in this loop, until there is none or the next one is another loop's."""
        here = asyncio.get_running_loop()
        made: dict[int, Scheduler] = {}
        try:
            while (entry := self._store.first_ready()) is not None:
                scheduler = entry.live_scheduler
                if scheduler is not None and scheduler.loop is not here:
                    return
                if scheduler is None:
                    parts = entry.shelf.parts
                    scheduler = made.get(id(parts.registry)) or Scheduler(parts)
                    made[id(parts.registry)] = scheduler
                await self._run_one(entry, scheduler)
        finally:
            for scheduler in made.values():
                await scheduler.cancel_all(scheduler.unfinished(), "cancelled, as the drain ended")
                scheduler.close()

    async def _run_one(self, entry: Entry, scheduler: Scheduler) -> None:
        """Let a job go, and wait until it has ended or waits to be tried again."""
        if entry.due is not None:
            _release(entry, scheduler)
        while not entry.is_over and entry.due is None:
            if self._time_left() <= 0:
                scheduler.cancel(entry.record, f"not done after {self._timeout:g} seconds")
                raise TimeoutError(
                    f"drain() has taken more than {self._timeout:g} seconds (timeout=), at job "
                    f"{entry.job.id}: {entry.job}"
                )
            await asyncio.sleep(INTERVAL)
        self.ran.append(entry)
        if self._time_left() <= 0 and self._store.first_ready() is not None:
            raise TimeoutError(
                f"drain() has taken more than {self._timeout:g} seconds (timeout=), and there are "
                f"still jobs to run after {entry.job}; do they add one another?"
            )

    def _time_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def _run_in_new_loop(work: Coroutine[Any, Any, None]) -> None:
    """Do what `asyncio.run` does, but leave the thread's current event loop what it is."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _release(entry: Entry, scheduler: Scheduler) -> None:
    """Start a job that was laid aside."""
    record = entry.record
    if record.task.place == "process" and record.packed is None:
        scheduler.pack(record)
    record.home = entry.scheduler = scheduler
    entry.release()
    run_apart(scheduler, [record])
