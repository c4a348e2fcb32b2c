"""Worker threads of the runner's own (R1).

The usual way, one hop through an executor and back for each call, costs the event loop two
wake-ups a job. Here the loop appends to a queue, the threads live long and take from it, and
at most one sleeping thread is being woken at a time: a thread that takes a job and sees
more waiting wakes the next one itself. Short jobs are thus drained by a thread or two, and
jobs that block still find up to ``limit`` threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from anyio._core._eventloop import claim_worker_thread  # see `_Worker.run`
from anyio.lowlevel import EventLoopToken

IDLE_TIMEOUT = 10.0
"""After how many idle seconds a thread ends."""


Work: TypeAlias = "tuple[EventLoopToken, Callable[..., None], Any, Any]"
"""The event loop that ``anyio.from_thread`` shall find, and a function that must not raise,
with its two arguments. A tuple, as there is one for every call."""


class ThreadPool:
    """Up to ``limit`` daemon threads, started as they are needed.

    They are daemons so that a call that never returns cannot keep the process from ending.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._queue: deque[Work] = deque()
        self._idle: list[_Worker] = []
        self._alive = 0
        self._abandoned = 0
        # Whether a thread has been woken or started and has not looked for work yet.
        self._is_waking = False

    @property
    def alive(self) -> int:
        """How many threads there are, busy and idle."""
        return self._alive

    def submit(self, work: Work) -> None:
        """Queue a call, from any thread; calls start in the order submitted.

        Raises:
            RuntimeError: There is no thread, and the system lets none be started.
        """
        with self._lock:
            self._queue.append(work)
            try:
                self._wake_one()
            except RuntimeError:
                if not self._alive:
                    self._queue.remove(work)
                    raise

    def abandon(self) -> None:
        """Give up on one busy thread: another may take its place.

        At most as many are replaced as the pool may have threads, so that calls that never
        return cannot fill the memory with threads.
        """
        with self._lock:
            self._abandoned += 1
            if self._queue:
                with contextlib.suppress(RuntimeError):
                    self._wake_one()

    def recover(self) -> None:
        """Take back an `abandon`: that thread has returned after all."""
        with self._lock:
            self._abandoned -= 1

    def close(self) -> None:
        """Let idle threads end now; busy ones end when they have nothing to do."""
        with self._lock:
            while self._idle:
                self._idle.pop().dismiss()

    def _wake_one(self) -> None:
        if self._is_waking:
            return
        if self._idle:
            self._is_waking = True
            self._idle.pop().wake()
        elif self._alive < self.limit + min(self._abandoned, self.limit):
            _Worker(self).start()
            self._is_waking = True
            self._alive += 1

    def next_work(self, worker: _Worker, *, is_woken: bool) -> Work | None:
        """Return the next call, or note that the worker is idle and return None."""
        with self._lock:
            if is_woken:
                self._is_waking = False
            if not self._queue:
                self._idle.append(worker)
                return None
            work = self._queue.popleft()
            if self._queue:
                with contextlib.suppress(RuntimeError):  # fewer threads, then
                    self._wake_one()
            return work

    def leave(self, worker: _Worker) -> bool:
        """Whether an idle worker may end; False if it was woken at the last moment."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self._alive -= 1
            return True

    def left(self) -> None:
        """Note that a dismissed worker has ended."""
        with self._lock:
            self._alive -= 1


class _Worker(threading.Thread):
    def __init__(self, pool: ThreadPool) -> None:
        super().__init__(name="asgi_bg worker", daemon=True)
        self._pool = pool
        self._is_dismissed = False
        self._bell = threading.Lock()
        self._bell.acquire()

    def wake(self) -> None:
        self._bell.release()

    def dismiss(self) -> None:
        self._is_dismissed = True
        self._bell.release()

    def run(self) -> None:
        work = self._pool.next_work(self, is_woken=True)
        while True:
            if work is None:
                work = self._sleep()
                if work is None:
                    return
            token = work[0]
            # What anyio does in its own worker threads, and the only way to make
            # anyio.from_thread.run() work in a thread that anyio did not start.
            with claim_worker_thread(token.backend_class, token.native_token):
                while work is not None and work[0] is token:
                    _, function, first, second = work
                    function(first, second)
                    # While the thread sleeps, nothing keeps a job alive.
                    del work, function, first, second
                    work = self._pool.next_work(self, is_woken=False)

    def _sleep(self) -> Work | None:
        """Wait for work; None when it is time to end."""
        while True:
            if not self._bell.acquire(timeout=IDLE_TIMEOUT):
                if self._pool.leave(self):
                    return None
                # Woken at the very moment of giving up: the bell is about to ring.
                self._bell.acquire()
            if self._is_dismissed:
                self._pool.left()
                return None
            work = self._pool.next_work(self, is_woken=True)
            if work is not None:
                return work
