"""Tasks of Procrastinate's own: written down where they are added, read where they are deferred."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from procrastinate import App
from procrastinate.exceptions import UnboundTaskError
from procrastinate.jobs import Job, JobDeferrer
from procrastinate.tasks import Task as ProcrastinateTask

from asgi_bg.engines._procrastinate_limits import check_columns, check_locks
from asgi_bg.engines.base import Message, Native
from asgi_bg.exceptions import EngineError

__all__ = ["native_job", "native_of"]


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
    deferrer = _deferrer_of(func)
    if deferrer is None:
        return None
    job = deferrer.job
    name = job.task_name
    if deferrer.job_manager is not app.job_manager:
        raise EngineError(
            f"Procrastinate's task {name} is of another app than the engine's, and that app "
            "defers it to where its own connector leads"
        )
    if getattr(deferrer, "connection", None) is not None:
        raise EngineError(
            f"Procrastinate's task {name} is to be deferred on a connection of the caller's, "
            "but it is deferred later, after the response; leave connection= out"
        )
    what = f"Procrastinate's task {name}"
    check_columns(what, name, job.queue, job.priority)
    check_locks(what, job.lock, job.queueing_lock)
    check(name, dict(job.task_kwargs))
    return Native(name, _written(job))


def _deferrer_of(func: object) -> JobDeferrer | None:
    """Return what defers a task of Procrastinate's; None if it is none."""
    if isinstance(func, ProcrastinateTask):
        own = cast("ProcrastinateTask[..., Any, ...]", func)
        try:
            return own.configure()
        except UnboundTaskError as exc:
            raise EngineError(
                f"Procrastinate's task {own.name} is of a blueprint that no app has; "
                "give it to the engine's app by app.add_tasks_from"
            ) from exc
    return func if isinstance(func, JobDeferrer) else None


def _written(job: Job) -> dict[str, Any]:
    at = job.scheduled_at
    return {
        "queue": job.queue,
        "priority": job.priority,
        "lock": job.lock,
        "queueing_lock": job.queueing_lock,
        "scheduled_at": None if at is None else at.isoformat(),
        "task_kwargs": dict(job.task_kwargs),
    }


def native_job(message: Message, own: dict[str, Any]) -> Job:
    """Return the job that Procrastinate makes of a message.

    Args:
        message: The message.
        own: What is in the `Native` that it is of.
    """
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
