"""Jobs as ARQ keeps them, ours and those of its own functions, and what it tells of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from arq.connections import ArqRedis
from arq.jobs import Deserializer, JobDef, JobResult, Serializer, serialize_job, serialize_result
from arq.utils import timestamp_ms, to_unix_ms

from asgi_bg._failures import describe_error
from asgi_bg._job import JobStatus
from asgi_bg._task import declared_task
from asgi_bg.engines._arq_json import is_ours
from asgi_bg.engines._arq_queue import Entry
from asgi_bg.engines.base import Message, Report
from asgi_bg.exceptions import EngineError, JobFailed

__all__ = [
    "Keeping",
    "cancelled_result",
    "entry_of",
    "milliseconds",
    "queue_of",
    "report_of",
    "with_plain_options",
]

NATIVE_OPTIONS: dict[str, tuple[type, ...]] = {
    "_queue_name": (str,),
    "_defer_by": (int, float, timedelta),
    "_defer_until": (datetime,),
    "_expires": (int, float, timedelta),
    "_job_try": (int,),
}
"""Those arguments that `arq.connections.ArqRedis.enqueue_job` takes for itself."""

_read_changes = msgspec.json.Decoder(dict[str, Any]).decode


class Keeping(NamedTuple):
    """How jobs are kept in Redis.

    Attributes:
        queue: The name of the queue of those that have none of their own.
        expires: For how many milliseconds a job is kept from when it may start.
        serializer: Writes jobs and results.
        deserializer: Reads what that has written.
    """

    queue: str
    expires: int
    serializer: Serializer
    deserializer: Deserializer

    def by(self, redis: ArqRedis) -> ArqRedis:
        """Return a client that was made for a worker, and keeps jobs so from now on."""
        redis.job_serializer = self.serializer
        redis.job_deserializer = self.deserializer
        redis.default_queue_name = self.queue
        redis.expires_extra_ms = self.expires
        return redis


def entry_of(message: Message, now: int, keeping: Keeping) -> Entry:
    """Return a job as ARQ keeps it.

    Args:
        message: The job.
        now: This instant, in milliseconds since the epoch.
        keeping: How it is kept.
    """
    added = int(message.queued_at * 1000)
    start = added if message.run_after is None else math.ceil(message.run_after * 1000)
    queue = message.options.queue or keeping.queue
    args: tuple[Any, ...] = (message.envelope,)
    kwargs: dict[str, Any] = {}
    given: dict[str, Any] = {}
    if message.native is not None:
        plain, kwargs = message.arguments
        args = tuple(plain)
        given = {key: kwargs.pop(key) for key in NATIVE_OPTIONS if key in kwargs}
        queue = given.get("_queue_name") or queue
        if given.get("_defer_until"):
            start = milliseconds(given["_defer_until"])
        else:
            start += milliseconds(given.get("_defer_by") or 0)
    data = serialize_job(
        message.task, args, kwargs, given.get("_job_try"), added, serializer=keeping.serializer
    )
    keep = milliseconds(given.get("_expires") or 0) or max(start - now, 0) + keeping.expires
    return Entry(message.id, queue, start, keep, data)


def with_plain_options(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ARQ's own, those for itself as plain JSON values.

    Raises:
        EngineError: It is to have an id of its own, or two instants to start at.
        TypeError: One that ARQ takes for itself does not fit.
    """
    if kwargs.get("_job_id") is not None:
        raise EngineError(
            f"the ARQ function {name} is to have an id of its own, but the job's id will be its "
            "id; leave _job_id out"
        )
    if kwargs.get("_defer_by") and kwargs.get("_defer_until"):
        raise EngineError("_defer_by and _defer_until exclude each other; give one of them")
    return {
        key: _plain_option(key, value) if key in NATIVE_OPTIONS else value
        for key, value in kwargs.items()
        if value is not None or key not in (*NATIVE_OPTIONS, "_job_id")
    }


def _plain_option(name: str, value: Any) -> Any:
    kinds = NATIVE_OPTIONS[name]
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be of type {wanted}, got {value!r}")
    if isinstance(value, datetime):
        return value.timestamp()
    return value.total_seconds() if isinstance(value, timedelta) else value


def milliseconds(seconds: float | timedelta) -> int:
    """Return a duration or an instant in whole milliseconds."""
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    return round(seconds * 1000)


def queue_of(function: str, args: Sequence[Any]) -> str | None:
    """Return the queue that a job of ours asks for."""
    if not is_ours(args):
        return None
    task = declared_task(function)
    declared = None if task is None else task.options.queue
    changes = args[0]["options"]
    return declared if changes is None else _read_changes(changes).get("queue", declared)


def cancelled_result(id: str, job: JobDef, starts: int, queue: str, keeping: Keeping) -> bytes:
    """Return the result of a job that is cancelled before its start, as a worker would write it.

    Args:
        id: The job's id.
        job: What ARQ keeps of it.
        starts: How often it has been started.
        queue: The queue it waits in.
        keeping: How it is kept.
    """
    now = timestamp_ms()
    result = serialize_result(
        job.function,
        job.args,
        job.kwargs,
        starts,
        to_unix_ms(job.enqueue_time),
        False,
        asyncio.CancelledError("cancelled by request"),
        now,
        now,
        id,
        queue,
        id,
        serializer=keeping.serializer,
    )
    assert result is not None  # noqa: S101 - what has been read can be written
    return result


def report_of(result: JobResult) -> Report:
    """Return what ARQ tells of a job that has ended."""
    told = result.result
    fields: dict[str, Any] = {}
    if result.success:
        fields["status"] = JobStatus.succeeded
        fields["result"] = told
    elif isinstance(told, asyncio.CancelledError):
        fields["status"] = JobStatus.cancelled
        fields["error"] = "cancelled"
    else:
        fields["status"] = JobStatus.failed
        if isinstance(told, JobFailed):
            fields["error"] = told.error
            fields["traceback"] = str(told.__cause__ or "").strip() or None
        else:
            fields["error"] = describe_error(told) if isinstance(told, BaseException) else str(told)
    return Report(
        task=result.function,
        attempt=result.job_try,
        started_at=result.start_time.timestamp(),
        finished_at=result.finish_time.timestamp(),
        **fields,
    )
