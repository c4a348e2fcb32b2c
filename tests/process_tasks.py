"""Functions for worker processes, which import them by name."""

from __future__ import annotations

import logging
import os
import sys
import time

from asgi_bg import current_job, task


@task(executor="process")
def report() -> dict[str, object]:
    """Tell about itself in every way there is."""
    job = current_job()
    job.progress(0.5, "half")
    logging.getLogger("app").warning("from %s", "there")
    print("printed")
    return {
        "pid": os.getpid(),
        "id": job.id,
        "task": job.task_name,
        "attempt": job.attempt,
        "cancelled": job.cancelled,
    }


@task(executor="process")
def die() -> None:
    """End the process without a word."""
    os._exit(3)


@task(executor="process")
def leave() -> None:
    """Exit as a script would."""
    sys.exit(2)


@task(executor="process", timeout=0.5)
def hang() -> None:
    """Take for ever, in plain Python and without looking up."""
    while True:
        pass


@task(executor="process")
def nap(seconds: float) -> int:
    """Sleep, and return the process."""
    time.sleep(seconds)
    return os.getpid()


class LocalError(Exception):
    """Cannot be unpickled: its constructor takes what it does not keep."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@task(executor="process", retries=1, retry_delay=0)
def fail(odd: bool) -> None:
    """Raise an error that travels, or one that cannot."""
    raise LocalError("this", "that") if odd else ValueError("plain")


@task(executor="process")
def give_back() -> object:
    """Return something that cannot leave the process."""
    return lambda: None


def plain(number: int, *, twice: bool = False) -> int:
    """Count, undecorated."""
    return number * 2 if twice else number
