"""Tasks of ours as tasks of Celery's, in its workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from asgi_bg._job import job_extras
from asgi_bg._task import Task
from asgi_bg.engines._celery_api import (
    DisabledBackend,
    Reject,
    SoftTimeLimitExceeded,
    WorkerShutdown,
    WorkerTerminate,
)
from asgi_bg.engines._celery_reports import PROGRESS
from asgi_bg.engines._inline import Inline
from asgi_bg.engines.base import Again

logger = logging.getLogger("asgi_bg")

OVERTIME = (SoftTimeLimitExceeded,)


def ends_worker(exc: BaseException) -> bool:
    """Whether an exception out of a task is not the task's, but is to end its worker."""
    if isinstance(exc, SystemExit):
        # Celery's own pool ends its processes with a negative code, which no task can mean.
        is_of_pool = isinstance(exc.code, int) and exc.code < 0
        return is_of_pool or isinstance(exc, (WorkerShutdown, WorkerTerminate))
    return isinstance(exc, KeyboardInterrupt)


def declare(app: Any, task: Task[..., Any], inline: Inline) -> None:
    """Add a task to a Celery app, by its name.

    Messages are acknowledged when the task is done, and go back where its process dies.
    """
    app.task(
        _function_of(task, inline),
        name=task.name,
        bind=True,
        shared=False,
        acks_late=True,
        reject_on_worker_lost=True,
        max_retries=None,
        serializer="json",
    )


def _function_of(task: Task[..., Any], inline: Inline) -> Callable[..., Any]:
    name = task.name

    def run(celery_task: Any, envelope: dict[str, Any]) -> Any:
        request = celery_task.request
        attempt: int = request.retries + 1
        try:
            return inline.perform(name, envelope, attempt, _reporter(celery_task, attempt))
        except Again as again:
            raise _again(celery_task, again) from None

    own = getattr(task.func, "__name__", "")
    # Celery writes it into a line of Python, which the name of a lambda would break.
    run.__name__ = run.__qualname__ = own if own.isidentifier() else "run"
    run.__module__ = getattr(task.func, "__module__", None) or __name__
    run.__doc__ = task.func.__doc__
    return run


def _again(celery_task: Any, again: Again) -> Exception:
    """Send the message once more, and return what tells Celery so."""
    request = celery_task.request
    try:
        retry: Exception = celery_task.retry(
            exc=again.error,
            countdown=again.delay,
            throw=False,
            # Or they would be made anew, of all arguments.
            argsrepr=getattr(request, "argsrepr", None),
            kwargsrepr=getattr(request, "kwargsrepr", None),
        )
    except Reject as rejected:
        # The broker did not take it; the message there is, back in its queue, loses nothing.
        retry = Reject(rejected.reason, requeue=True)
    return retry


def _reporter(celery_task: Any, attempt: int) -> Callable[[float, str], None]:
    """Return what shows a job's progress: as a state in the result backend, if there is one."""
    request = celery_task.request
    job, started_at = request.id, time.time()
    is_kept = not (request.ignore_result or isinstance(celery_task.backend, DisabledBackend))

    def report(fraction: float, message: str) -> None:
        if not is_kept:
            return
        told = {"fraction": fraction, "message": message}
        told.update(attempt=attempt, started_at=started_at)
        try:
            celery_task.update_state(task_id=job, state=PROGRESS, meta=told)
        except Exception as exc:
            logger.warning(
                "the progress of job %s could not be stored: %s", job, exc, extra=job_extras(job)
            )

    return report
