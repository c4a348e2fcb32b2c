"""Everything asgi_bg raises of its own; all of it derives from `AsgiBgError`."""

from __future__ import annotations

__all__ = [
    "AsgiBgError",
    "EngineError",
    "JobFailed",
    "JobNotFound",
    "JournalError",
    "MiddlewareNotInstalled",
    "NotSerializable",
    "QueueFull",
    "ResponseEnded",
]


class AsgiBgError(Exception):
    """The base of every error that asgi_bg raises of its own."""


class MiddlewareNotInstalled(AsgiBgError, RuntimeError):
    """`add_task` was called where no `BackgroundTaskMiddleware` serves the request (M8)."""


class ResponseEnded(AsgiBgError, RuntimeError):
    """A task was added after the jobs of its request had all been run (M8)."""


class QueueFull(AsgiBgError):
    """More jobs wait in memory than `max_queued` allows (R8). The job was not added."""


class NotSerializable(AsgiBgError, TypeError):
    """An argument cannot leave this process. The message names task and argument."""


class JournalError(AsgiBgError):
    """The journal cannot do what it was asked to (J2); the message says what stands in the way.

    Out of ``send`` it means that a job of this response could not be written, so nothing was
    promised, and the job will not run.
    """


class EngineError(AsgiBgError):
    """An engine cannot do what it was asked to; the message says what stands in the way.

    Out of ``add_task`` it means that the engine does not support what the task asks for (E5).
    Out of ``send``, where there is no journal, that it did not acknowledge a job of this
    response in time, so nothing was promised (E1).
    """


class JobNotFound(AsgiBgError, LookupError):
    """No job of that id is known here, or there is no running job to speak of."""


class JobFailed(AsgiBgError):
    """The awaited job has no result: it failed, was cancelled or was dropped.

    The exception that the task raised, where this process has it, is the `__cause__`.

    Attributes:
        job_id: The job's id.
        task: The task's name.
        error: The task's error in one line, such as ``ValueError: no such user``.
    """

    def __init__(self, job_id: str, task: str, error: str) -> None:
        super().__init__(f"job {job_id} of task {task} has no result: {error}")
        self.job_id = job_id
        self.task = task
        self.error = error

    def __reduce__(self) -> tuple[type[JobFailed], tuple[str, str, str]]:
        return type(self), (self.job_id, self.task, self.error)
