"""Jobs to be written, for the tests of journals, and how they stand."""

from __future__ import annotations

from typing import Any

from asgi_bg._ids import new_id
from asgi_bg.journal.base import Change, NewJob, Success

NOW = 1_800_000_000.0
"""The instant of the tests, in seconds since the epoch; journals are told what time it is."""

CHANGED: dict[str, Any] = {
    "interrupted": 1,
    "run_after": NOW + 9,
    "started_at": NOW,
    "progress": 0.5,
    "message": "half",
    "result": "2",
    "error": "e",
    "traceback": "t",
    "logs": "[]",
    "past": "[]",
}
"""All that a change may tell of a job that goes on, apart from how it stands."""


def new_job(at: float = 0.0, **fields: Any) -> NewJob:
    """Return a new job that its process runs, added so many seconds after `NOW`."""
    values: dict[str, Any] = {
        "task": "app:work",
        "call": "[]",
        "options": None,
        "queued_at": NOW + at,
        "run_after": None,
        "priority": 0,
        "key": None,
        "after": None,
        "is_held": True,
    }
    return NewJob(new_id(NOW + at), **(values | fields))


def waiting(at: float = 0.0, **fields: Any) -> NewJob:
    """Return a new job that waits for whoever claims it."""
    return new_job(at, **{"is_held": False, **fields})


def success(id: str, attempt: int = 1, result: str | None = "1", *, at: float = NOW) -> Success:
    """Return that a job has succeeded, at that instant."""
    return Success(id, attempt, at, at, result)


def change(id: str, status: str = "queued", attempt: int = 1, **fields: Any) -> Change:
    """Return how a job stands now."""
    values: dict[str, Any] = {
        "interrupted": 0,
        "run_after": None,
        "started_at": None,
        "finished_at": NOW if status in ("succeeded", "failed", "cancelled") else None,
        "progress": None,
        "message": "",
        "result": None,
        "error": None,
        "traceback": None,
        "logs": None,
        "is_held": status == "running",
    }
    return Change(id, status, attempt, **(values | fields))
