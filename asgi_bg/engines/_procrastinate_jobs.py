"""Jobs as Procrastinate keeps them: what is made of a message, and what can be told of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, cast

import msgspec
from procrastinate import App
from procrastinate.exceptions import UnboundTaskError
from procrastinate.jobs import DEFAULT_QUEUE, Job, JobDeferrer
from procrastinate.tasks import Task as ProcrastinateTask

from asgi_bg._job import JobStatus
from asgi_bg._task import Task
from asgi_bg.engines.base import Envelope, Message, Native, Report
from asgi_bg.exceptions import EngineError

__all__ = [
    "Notes",
    "Outcome",
    "check_options",
    "envelope_of",
    "job_of",
    "lock_of",
    "native_of",
    "notes_in",
    "report_of",
]

NAME_LIMIT = 128
"""How many characters the columns for the names of tasks and queues hold."""

QUEUE_LIMIT = 40
"""How many bytes of a queue's name fit into the name of the channel that its workers hear."""

LOCK_LIMIT = 2000
"""How many bytes of a lock are sure to fit into the indexes."""

PRIORITIES = range(-(2**31), 2**31)

LAST_INSTANT = datetime.max.replace(tzinfo=timezone.utc).timestamp()

ENVELOPE = frozenset(("id", "call", "options"))

_STATUS = {
    "todo": JobStatus.queued,
    "doing": JobStatus.running,
    "succeeded": JobStatus.succeeded,
    "failed": JobStatus.failed,
    "cancelled": JobStatus.cancelled,
    "aborting": JobStatus.running,
    "aborted": JobStatus.cancelled,
}

_NO_WORDS = {
    "failed": "it failed in a worker, and the worker's log says why",
    "cancelled": "cancelled",
    "aborted": "aborted in a worker",
}


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
    """What the workers note in the arguments of a job of ours, beside its envelope.

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
    def as_json(self) -> dict[str, Any]:
        """These notes as a dictionary."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        return made


def notes_in(arguments: Mapping[str, Any]) -> Notes:
    """Return the notes among the arguments of a job of ours."""
    try:
        return msgspec.convert(arguments, Notes)
    except msgspec.ValidationError:
        return Notes()


def envelope_of(arguments: Mapping[str, Any]) -> Envelope | None:
    """Return the envelope among the arguments of a job, if it is one of ours."""
    found = arguments.get("envelope")
    if not isinstance(found, dict):
        return None
    envelope = cast("Envelope", found)
    return envelope if envelope.keys() >= ENVELOPE else None


def job_of(message: Message) -> Job:
    """Return the job that Procrastinate makes of a message."""
    own = message.native
    if own is not None:
        at = own["scheduled_at"]
        return Job(
            queue=own["queue"],
            priority=own["priority"],
            lock=own["lock"],
            queueing_lock=own["queueing_lock"] or message.id,
            task_name=message.task,
            task_kwargs={**own["task_kwargs"], **message.arguments[1]},
            scheduled_at=None if at is None else datetime.fromisoformat(at),
        )
    due = message.run_after
    return Job(
        queue=message.options.queue or DEFAULT_QUEUE,
        priority=message.priority,
        lock=lock_of(message.task, message.options.concurrency),
        queueing_lock=message.id,
        task_name=message.task,
        task_kwargs={"envelope": message.envelope},
        scheduled_at=None if due is None else datetime.fromtimestamp(due, timezone.utc),
    )


def lock_of(task: str, concurrency: int | None) -> str | None:
    """Return what keeps jobs of a task from running at once, if that is asked for."""
    return task if concurrency == 1 else None


def native_of(
    app: App, func: object, check: Callable[[str, dict[str, Any]], object]
) -> Native | None:
    """Return what is needed to defer a task of Procrastinate's, or a configured one.

    Args:
        app: The app that jobs are sent for.
        func: It, or something else.
        check: Refuses arguments of a task that are not plain JSON.

    Raises:
        EngineError: It cannot be deferred here, or not later.
    """
    if isinstance(func, ProcrastinateTask):
        own = cast("ProcrastinateTask[..., Any, ...]", func)
        try:
            func = own.configure()
        except UnboundTaskError as exc:
            raise EngineError(
                f"Procrastinate's task {own.name} is of a blueprint that no app has; "
                "give it to the engine's app by app.add_tasks_from"
            ) from exc
    if not isinstance(func, JobDeferrer):
        return None
    job = func.job
    name = job.task_name
    if func.job_manager is not app.job_manager:
        raise EngineError(
            f"Procrastinate's task {name} is of another app than the engine's, and that app "
            "defers it to where its own connector leads"
        )
    if getattr(func, "connection", None) is not None:
        raise EngineError(
            f"Procrastinate's task {name} is to be deferred on a connection of the caller's, "
            "but it is deferred later, after the response; leave connection= out"
        )
    check_columns(f"Procrastinate's task {name}", name, job.queue, job.priority)
    for lock in (job.lock, job.queueing_lock):
        if lock is not None and ("\0" in lock or len(lock.encode()) > LOCK_LIMIT):
            raise EngineError(
                f"Procrastinate's task {name} has a lock that PostgreSQL's indexes may not hold; "
                f"give one of {LOCK_LIMIT} bytes at most, without NUL characters"
            )
    arguments = dict(job.task_kwargs)
    check(name, arguments)
    at = job.scheduled_at
    return Native(
        name,
        {
            "queue": job.queue,
            "priority": job.priority,
            "lock": job.lock,
            "queueing_lock": job.queueing_lock,
            "scheduled_at": None if at is None else at.isoformat(),
            "task_kwargs": arguments,
        },
    )


def check_options(task: Task[..., Any], now: float) -> None:
    """Refuse what Procrastinate's columns and locks cannot hold of a task's options (E5)."""
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


def report_of(row: Mapping[str, Any]) -> Report:
    """Return what the tables tell of a job."""
    word: str = row["status"]
    status = _STATUS[word]
    notes = notes_in(row["notes"] or {})
    outcome = Outcome()
    if word in ("succeeded", "failed") and notes.outcome is not None:
        outcome = _read_outcome(notes.outcome)
    # One that was run again after a failure still has what it failed with.
    has_value = status is JobStatus.succeeded
    return Report(
        status=status,
        task=row["task_name"],
        attempt=row["attempts"] + (status is JobStatus.running) - notes.interruptions,
        started_at=_seconds(row["started_at"]),
        finished_at=_seconds(row["finished_at"]) if status.is_final else None,
        result=outcome.result if has_value else None,
        error=None if has_value else outcome.error or _NO_WORDS.get(word),
        traceback=None if has_value else outcome.traceback,
    )


def _read_outcome(text: str) -> Outcome:
    try:
        return msgspec.json.decode(text, type=Outcome)
    except msgspec.DecodeError:
        return Outcome()


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
