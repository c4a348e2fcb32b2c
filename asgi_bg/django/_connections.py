"""Database connections of jobs, closed as Django closes those of requests.

A connection belongs to the thread that opened it. So around each call of a plain function
its thread does what Django does around a request: it closes connections that have become
unusable or older than ``CONN_MAX_AGE``. An async task reaches the ORM through a thread of
its own, as a request does; that thread ends with the attempt, and its connections too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakSet

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext
from django.db import close_old_connections, connections

from asgi_bg import events
from asgi_bg._execution.threads import ThreadPool, Work
from asgi_bg._record import JobRecord
from asgi_bg._runner import Runner
from asgi_bg.django._places import place, standing_place
from asgi_bg.events import JobEvent

logger = logging.getLogger("asgi_bg")

_ENDS = frozenset({events.SUCCEEDED, events.FAILED, events.RETRYING, events.CANCELLED})


_prepared: WeakSet[Runner] = WeakSet()


def prepare(runner: Runner) -> None:
    """Make a runner look after the connections of its jobs; twice is as good as once.

    Raises:
        RuntimeError: It has been used already.
    """
    if runner not in _prepared:
        runner.equip(threads=ConnectionThreads, hearers=(OrmThreads(),))
        _prepared.add(runner)


class ConnectionThreads(ThreadPool):
    """The runner's threads, with Django's care for connections around each call."""

    def submit(self, work: Work) -> None:
        """Queue the call of a job's function, in the place that its request asks for."""
        token, function, record, run = work
        asked = record.context.get(place)
        if asked is not None:
            try:
                asked.submit(function, record, run)
            except RuntimeError:
                pass  # that request is over: a retry, or a job that was put off
            else:
                return
        super().submit((token, _call, function, (record, run)))


def _call(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    _close_old()
    try:
        function(*arguments)
    finally:
        _close_old()


def _close_old() -> None:
    try:
        close_old_connections()
    except Exception:
        # A fault of the database's must not end a worker thread.
        logger.exception("database connections could not be closed after a background task")


class OrmThreads:
    """Gives every attempt of an async task a thread for the ORM, which ends with it.

    Without, the attempt would use that of its request, which has ended: asgiref then makes
    another that nobody ends, or refuses, where a plain function up the stack of the
    ``add_task`` has lent its own thread and taken it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Held here, as an attempt that has ended no longer holds its own.
        self._open: dict[str, ThreadSensitiveContext] = {}

    def __call__(self, event: JobEvent) -> None:
        """Do nothing: the job is not in this process."""

    def hear(self, name: str, record: JobRecord) -> None:
        """Make a thread ready, or end it; called in the context of the attempt when it begins."""
        if record.task.place == "process":
            return
        if name == events.STARTED:
            if record.task.place == "loop":
                context = _enter()
            else:
                # For a coroutine that the function may return: it is awaited in a new copy.
                assert record.context is not None  # noqa: S101 - it has not succeeded yet
                context = record.context.run(_enter)
            with self._lock:
                self._open[record.id] = context
        elif name in _ENDS:
            with self._lock:
                ended = self._open.pop(record.id, None)
            if ended is not None:
                _end(ended)


def _enter() -> ThreadSensitiveContext:
    """Let the code of this context use the ORM in a thread of its own, or its request's."""
    # Whoever waited for async code when the job was added has gone on since.
    asked = AsyncToSync.executors.current = standing_place()
    context = ThreadSensitiveContext()
    SyncToAsync.thread_sensitive_context.set(context)
    if asked is not None:
        # The former is seen in this thread only, by some versions of asgiref.
        SyncToAsync.context_to_thread_executor[context] = asked
    return context


def _end(context: ThreadSensitiveContext) -> None:
    executor = SyncToAsync.context_to_thread_executor.pop(context, None)
    if isinstance(executor, ThreadPoolExecutor):
        executor.submit(connections.close_all)
        executor.shutdown(wait=False)
