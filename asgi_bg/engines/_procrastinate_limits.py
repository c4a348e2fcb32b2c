"""What Procrastinate's columns and locks can hold (E5)."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from asgi_bg._task import Task
from asgi_bg.exceptions import EngineError

__all__ = ["PRIORITIES", "check_columns", "check_locks", "check_options"]

NAME_LIMIT = 128
"""How many characters the columns for the names of tasks and queues hold."""

QUEUE_LIMIT = 40
"""How many bytes of a queue's name fit into the name of the channel that its workers hear."""

LOCK_LIMIT = 2000
"""How many bytes of a lock are sure to fit into the indexes."""

PRIORITIES = range(-(2**31), 2**31)

LAST_INSTANT = datetime.max.replace(tzinfo=timezone.utc).timestamp()


def check_options(task: Task[..., Any], now: float) -> None:
    """Refuse what they cannot hold of a task's options."""
    options = task.options
    name = f"task {task.name}"
    check_columns(name, task.name, options.queue, options.priority)
    if options.concurrency not in (None, 1):
        raise EngineError(
            f"{name} asks for concurrency={options.concurrency}, and Procrastinate can run jobs "
            "one at a time or without a bound; ask for 1 or leave it out"
        )
    if options.concurrency == 1 and (options.delay is not None or options.run_at is not None):
        raise EngineError(
            f"{name} asks for concurrency=1 and to be put off, and Procrastinate runs jobs that "
            "exclude each other in the order they were added, so all others would wait for that "
            "one; leave out one of the two"
        )
    if options.delay is not None and now + options.delay >= LAST_INSTANT:
        raise EngineError(f"{name} asks for delay={options.delay:g}, which is after the year 9999")


def check_locks(what: str, *locks: str | None) -> None:
    """Refuse locks that the indexes cannot hold."""
    for lock in locks:
        if lock is not None and ("\0" in lock or len(lock.encode()) > LOCK_LIMIT):
            raise EngineError(
                f"{what} has a lock that PostgreSQL's indexes may not hold; "
                f"give one of {LOCK_LIMIT} bytes at most, without NUL characters"
            )


def check_columns(what: str, task: str, queue: str | None, priority: int) -> None:
    """Refuse names and numbers that do not fit into the columns for them."""
    if len(task) > NAME_LIMIT or "\0" in task:
        raise EngineError(
            f"{what} has a name that Procrastinate cannot keep; give it one of {NAME_LIMIT} "
            "characters at most, without NUL characters"
        )
    if queue is not None and (not queue or len(queue.encode()) > QUEUE_LIMIT or "\0" in queue):
        raise EngineError(
            f"{what} asks for queue={queue!r}, and the names of Procrastinate's queues have 1 to "
            f"{QUEUE_LIMIT} bytes and no NUL characters"
        )
    if priority not in PRIORITIES:
        raise EngineError(
            f"{what} asks for priority={priority}, and Procrastinate takes "
            f"{PRIORITIES.start} to {PRIORITIES.stop - 1}"
        )
