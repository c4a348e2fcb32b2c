"""One job in detail: its arguments, and every attempt of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_bg._job import JobInfo, JobStatus, PastAttempt, as_instant
from asgi_bg._looking.arguments import shown_call, shown_objects
from asgi_bg._record import PAST_LIMIT, JobRecord
from asgi_bg.views import AttemptInfo, JobDetails

UNKNOWN = "how it ended is not known; its process may have died during it"

ELSEWHERE = "how it ended is not known; an engine ran it"


def details_of_record(record: JobRecord) -> JobDetails:
    """Return all that this process knows of a job."""
    info = record.snapshot()
    options = record.task.options
    arguments: Any = None
    if record.kept is not None:
        arguments = shown_call(record.kept.call, record.task, options.redact)
    elif record.status is not JobStatus.succeeded:  # which lets go of its arguments
        arguments = shown_objects(record.args, record.kwargs, record.task)
    return JobDetails(
        job=info,
        arguments=arguments,
        attempts=attempts_of(info, record.past or []),
        origin=record.origin(),
        key=options.key,
        priority=options.priority,
        queue=options.queue,
        tags=options.tags,
    )


def attempts_of(job: JobInfo, past: Sequence[PastAttempt]) -> tuple[AttemptInfo, ...]:
    """Return the attempts of a job, with those of which nobody could tell the end."""
    unknown = UNKNOWN if job.handed_over_at is None else ELSEWHERE
    told = [
        AttemptInfo(
            number=one.number,
            started_at=None if one.started_at is None else as_instant(one.started_at),
            finished_at=None if one.finished_at is None else as_instant(one.finished_at),
            error=one.error,
            traceback=one.traceback,
        )
        for one in past
    ]
    # One that was kept is told already: its job waits, or was cancelled while it did.
    is_told = bool(told) and told[-1].number == job.attempt
    if is_told and job.started_at not in (None, told[-1].started_at):
        is_told = False  # that one was before a retry by hand
    if job.attempt and not is_told:
        told.append(
            AttemptInfo(
                number=job.attempt,
                started_at=job.started_at,
                finished_at=job.finished_at,
                error=job.error if job.status.is_final else None,
                traceback=job.traceback if job.status.is_final else None,
            )
        )
    attempts: list[AttemptInfo] = []
    # Of a list that is full, those before it were left out.
    former = past[0].number - 1 if len(past) >= PAST_LIMIT else 0
    for one in told:
        # A number that is no higher begins the count anew: the job was retried by hand.
        first = former + 1 if one.number > former else 1
        attempts += [
            AttemptInfo(
                number=number, started_at=None, finished_at=None, error=unknown, traceback=None
            )
            for number in range(first, one.number)
        ]
        attempts.append(one)
        former = one.number
    return tuple(attempts)
