"""One attempt of a job that an engine has brought to this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context
from typing import Any, Protocol

import msgspec

from asgi_bg._job import JobStatus
from asgi_bg._options import apply
from asgi_bg._origin import Origin
from asgi_bg._record import Home, JobRecord
from asgi_bg._registry import Registry
from asgi_bg._scheduling.lane import Dispatcher, run_apart
from asgi_bg._task import Task, declared_task
from asgi_bg.engines.base import Again
from asgi_bg.exceptions import JobFailed, NotSerializable
from asgi_bg.journal.codec import codec_of

_read_json = msgspec.json.Decoder().decode
_read_changes = msgspec.json.Decoder(dict[str, object]).decode


# By way of the base class, as an exception may refuse to have its attributes set.
_SET_CAUSE = BaseException.__dict__["__cause__"].__set__


class AttemptTraceback(Exception):
    """The traceback of an attempt as text, as the cause of what it failed with."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Runs(Dispatcher, Home, Protocol):
    """Who runs the jobs of one event loop: a scheduler."""

    def pack(self, record: JobRecord) -> None:
        """Make the call of a job one for another process."""
        ...

    async def written(self) -> None:
        """Wait until all jobs that were added so far are kept."""
        ...


async def perform(
    runs: Runs, registry: Registry, name: str, envelope: Mapping[str, Any], attempt: int
) -> Any:
    """Run one attempt; see `asgi_bg.engines.Performer`."""
    task = declared_as(name, envelope["options"])
    args, kwargs = codec_of(task).decode(envelope["call"])
    trace = envelope.get("trace")
    source = Origin(trace=trace) if isinstance(trace, str) else None
    record = JobRecord(task, args, kwargs, Context(), runs, source)
    record.trace = None  # that of the envelope counts
    record.become(envelope["id"])
    record.attempt = attempt - 1
    record.brought = over = runs.loop.create_future()
    registry.unfinished[record] = None
    registry.name(record)
    if task.place == "process":
        runs.pack(record)
    added = run_apart(runs, [record])
    try:
        delay = await over
    except asyncio.CancelledError:
        runs.cancel(record, "cancelled by the engine's worker")
        raise
    if added.former is not None or not runs.ordered:
        await runs.written()  # what it has added does not depend on this process any more
    error = record.exception
    if error is not None and record.traceback is not None:
        # Its frames were let go of; the engine's own report shall say where it was raised.
        _SET_CAUSE(error, AttemptTraceback(record.traceback))
    if delay is not None and error is not None:
        raise Again(delay, error)
    if record.status is JobStatus.succeeded:
        return plain_result(task, record.value)
    raise error or JobFailed(record.id, task.name, record.error or str(record.status))


def declared_as(name: str, changes: str | None) -> Task[..., Any]:
    """Return a declared task with the options of one job.

    Raises:
        LookupError: None of that name is declared here (J8).
        TypeError, ValueError: The options do not fit (any more).
    """
    task = declared_task(name)
    if task is None:
        raise LookupError(
            f"no task {name!r} is declared in this worker: it was renamed or removed, or its "
            "module has not been imported"
        )
    if changes is None:
        return task
    options = apply(task.options, _read_changes(changes), task.options.priority)
    return Task(task.func, name=task.name, options=options, declared=True)


def plain_result(task: Task[..., Any], value: Any) -> Any:
    """Return a result as plain JSON values, as engines keep it."""
    if value is None:
        return None
    codec = codec_of(task)
    try:
        return _read_json(codec.encode_result(value))
    except NotSerializable:
        # The work is done, and must not be done again for this.
        return None
