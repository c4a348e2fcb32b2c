"""The tasks of the applications that the tests serve.

Each tells the record what becomes of it, and waits for its gate, unless that is empty; see
`tests.servers.stage`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from asgi_bg import current_job, task
from tests.servers.stage import pass_in_thread, passing, record


async def async_task(id: str, gate: str) -> None:
    record("task-started", id=id)
    try:
        await passing(gate)
    except asyncio.CancelledError:
        record("task-cancelled", id=id)
        raise
    record("task-ended", id=id)


def sync_task(id: str, gate: str) -> None:
    record("task-started", id=id)
    pass_in_thread(gate)
    record("task-ended", id=id)


@task(executor="process")
def process_task(id: str, gate: str) -> None:
    sync_task(id, gate)


async def failing_task(id: str, gate: str) -> None:
    await async_task(id, gate)
    raise RuntimeError(f"{id} fails on purpose")


def failing_sync_task(id: str, gate: str) -> None:
    sync_task(id, gate)
    raise RuntimeError(f"{id} fails on purpose")


async def exiting_task(id: str, gate: str) -> None:
    await async_task(id, gate)
    raise SystemExit(7)


def exiting_sync_task(id: str, gate: str) -> None:
    sync_task(id, gate)
    raise SystemExit(7)


@task
async def durable_task(id: str, gate: str) -> None:
    """One that a journal keeps, and that tells the id of its job at each attempt."""
    record("job", id=id, job=current_job().id)
    await async_task(id, gate)


@task
def durable_sync_task(id: str, gate: str) -> None:
    """The same, in a thread."""
    record("job", id=id, job=current_job().id)
    sync_task(id, gate)


TASKS: dict[str, Callable[..., Any]] = {
    "async": async_task,
    "sync": sync_task,
    "process": process_task,
    "fail": failing_task,
    "fail-sync": failing_sync_task,
    "exit": exiting_task,
    "exit-sync": exiting_sync_task,
    "durable": durable_task,
    "durable-sync": durable_sync_task,
}
