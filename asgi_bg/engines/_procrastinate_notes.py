"""What workers note in the arguments of a job of ours, beside its envelope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from procrastinate.jobs import Job
from procrastinate.manager import JobManager

from asgi_bg.engines._procrastinate_sql import NOTE

__all__ = ["Notes", "Outcome", "note", "notes_in"]


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job of ours has ended.

    Attributes:
        result: What its task returned.
        error: In one line, why it has no result.
        traceback: That error's traceback.
    """

    result: Any = None
    error: str | None = None
    traceback: str | None = None


class Notes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is noted.

    Attributes:
        interruptions: How often an attempt was broken off by the end of its worker, which is
            no failure of the task, though Procrastinate counts it as an attempt.
        crashes: How many of those were no ends in good order.
        outcome: An `Outcome`, as JSON text: what a JSON column takes is less.
    """

    interruptions: int = 0
    crashes: int = 0
    outcome: str | None = None

    @property
    def told(self) -> Outcome:
        """The outcome; an empty one if none was noted, or by something that is not ours."""
        try:
            return Outcome() if self.outcome is None else _read_outcome(self.outcome)
        except msgspec.DecodeError:
            return Outcome()

    @property
    def as_json(self) -> dict[str, Any]:
        """These notes as a dictionary."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        return made


_read_outcome = msgspec.json.Decoder(Outcome).decode


def notes_in(arguments: Mapping[str, Any]) -> Notes:
    """Return the notes among the arguments of a job of ours."""
    try:
        return msgspec.convert(arguments, Notes)
    except msgspec.ValidationError:
        return Notes()


async def note(manager: JobManager, job: Job, notes: Notes, more: Notes) -> bool:
    """Note something in the arguments of a job that runs; return whether that still stands.

    Args:
        manager: Whose connector is used.
        job: The job, as it was when its attempt began.
        notes: What was noted then.
        more: What is to be noted.
    """
    found = await manager.connector.execute_query_all_async(
        NOTE,
        number=job.id,
        attempts=job.attempts,
        crashes=notes.crashes,
        notes=more.as_json,
    )
    return bool(found)
