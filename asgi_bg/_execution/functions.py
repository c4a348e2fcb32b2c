"""Calls of plain functions in worker threads, and the way of their outcomes to the loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from anyio.lowlevel import current_token

from asgi_bg._execution.attempt import Attempt
from asgi_bg._execution.threads import ThreadPool
from asgi_bg._failures import failure_of
from asgi_bg._job import Failed, Outcome, Succeeded
from asgi_bg._record import JobRecord

logger = logging.getLogger("asgi_bg")


class Functions:
    """The plain functions that the jobs of one event loop call."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadPool,
        settle: Callable[[JobRecord, Outcome], None],
    ) -> None:
        self._loop = loop
        self._token = current_token()
        self._threads = threads
        self._settle = settle
        self._lock = threading.Lock()
        self._returned: deque[tuple[JobRecord, int, Any, Failed | None]] = deque()
        self._is_collecting = False

    def start(self, record: JobRecord) -> None:
        """Call the job's function in a worker thread, in the context of its `add_task`."""
        record.is_in_thread = False
        try:
            self._threads.submit((self._token, self._run, record, record.run))
        except RuntimeError as exc:  # no thread could be started, and there is none
            self._loop.call_soon(self._settle, record, failure_of(exc))

    def _run(self, record: JobRecord, run: int) -> None:
        with self._lock:
            if record.given_up >= run or record.run != run:
                return
            record.is_in_thread = True
            value = failure = None
            attempt = Attempt(record, run)
            try:
                attempt.begin()
            except Exception as exc:
                failure = failure_of(exc)
        try:
            value = None if failure else record.own_context().run(attempt.call)
        except BaseException as exc:
            failure = failure_of(exc)
        if record.kept is not None and failure is None:
            self._note_return(record, run, value)
        self._returned.append((record, run, value, failure))
        # One wake-up of the loop brings it all outcomes that have come by then.
        if not self._is_collecting:
            self._is_collecting = True
            try:
                self._loop.call_soon_threadsafe(self.collect)
            except RuntimeError:
                logger.debug("an event loop was closed before its jobs had all returned")
                if record.given_up >= run:
                    self._threads.recover()

    def _note_return(self, record: JobRecord, run: int, value: Any) -> None:
        """Have it kept that a function has returned; the loop may be busy for long."""
        with self._lock:
            if record.given_up < run and record.run == run:
                try:
                    record.home.returned(record, value)
                except Exception:
                    logger.exception("the end of a job could not be noted at once")

    def collect(self) -> None:
        """Settle the jobs whose functions have returned by now."""
        self._is_collecting = False
        while self._returned:
            record, run, value, failure = self._returned.popleft()
            if record.given_up >= run or record.run != run:
                self._threads.recover()
            else:
                self._settle(record, failure or Succeeded(value))

    def give_up(self, record: JobRecord) -> bool | None:
        """Ignore what the attempt brings; return whether its call is under way.

        Another thread may then take the place of the one that cannot be stopped. None if the
        function has returned and that is kept already: then it is too late.
        """
        with self._lock:
            if record.kept is not None and record.kept.returned == record.run:
                return None
            record.given_up = record.run
            is_under_way = record.is_in_thread
        if is_under_way:
            self._threads.abandon()
        return is_under_way
