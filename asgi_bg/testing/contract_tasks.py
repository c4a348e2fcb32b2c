"""The tasks of the contract of engines; a worker that is tested imports them.

Each writes a line to a file that is named in its arguments, so that it can be seen what has run,
in whatever process that was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from asgi_bg import current_job, task


@dataclass
class Parcel:
    """An argument that JSON alone does not know."""

    key: UUID
    at: datetime
    price: Decimal


@task(name="asgi_bg.testing:note")
async def note(path: str, word: str) -> str:
    """Write down that the job has run, and return the word."""
    _write(path, word)
    return word


@task(name="asgi_bg.testing:send")
def send(path: str, parcel: Parcel) -> Parcel:
    """Write down what has come, in a worker thread, and return it."""
    _write(path, f"{parcel.key} {parcel.at.isoformat()} {parcel.price}")
    return parcel


@task(name="asgi_bg.testing:fail")
async def fail(path: str) -> None:
    """Fail, and be it for good."""
    _write(path, "fail")
    raise ValueError("as it was told")


@task(name="asgi_bg.testing:try_again", retries=3, retry_delay=0.0)
async def try_again(path: str, times: int) -> str:
    """Fail so many times, and then succeed."""
    _write(path, "try")
    if current_job().attempt <= times:
        raise ValueError("not yet")
    return "at last"


@task(name="asgi_bg.testing:linger", timeout=0.5, retries=0)
async def linger(path: str) -> None:
    """Take longer than is allowed."""
    _write(path, "linger")
    await asyncio.sleep(3600)


def _write(path: str, words: str) -> None:
    job = current_job()
    with Path(path).open("a") as file:
        file.write(f"{job.id} {job.attempt} {words}\n")


@dataclass(frozen=True)
class Line:
    """What a task of the contract has written: its job, its attempt, and some words."""

    id: str
    attempt: int
    words: str
