"""A job that was added while a test recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg._options import Options
from asgi_bg._record import JobRecord
from asgi_bg._task import Task, as_task
from asgi_bg.exceptions import JobFailed

_SHOWN = 200
"""To how many characters an argument is shortened in messages."""

_DEFAULTS = Options()


class RecordedJob:
    """A job that was added, as it was added, and what has become of it since.

    Attributes:
        task: The task, with its options and those of `using`.
        args, kwargs: The arguments as they were given to ``add_task``: the same objects.
        is_dropped: Whether its response ended so that it does not run (M5).
    """

    def __init__(
        self,
        record: JobRecord,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._record = record
        self.task = task
        self.args = args
        self.kwargs = dict(kwargs)
        self.is_dropped = False

    @property
    def id(self) -> str:
        """The job's id, as the app sees it."""
        return self._record.id

    @property
    def task_name(self) -> str:
        """The name of its task."""
        return self.task.name

    @property
    def options(self) -> Options:
        """All its options, such as ``options.delay``, ``options.key``, ``options.retries``."""
        return self.task.options

    @property
    def status(self) -> JobStatus:
        """Where it stands."""
        return self._record.status

    @property
    def attempt(self) -> int:
        """How often it has been started."""
        return self._record.attempt

    @property
    def error(self) -> BaseException | None:
        """What its last attempt raised, or None."""
        return self._record.exception

    def result(self) -> Any:
        """Return what its task has returned.

        Raises:
            JobFailed: It failed or was cancelled; the task's error is the cause.
            LookupError: It has not ended.
        """
        record = self._record
        if record.status is JobStatus.succeeded:
            return record.value
        if record.finished_at is None:
            raise LookupError(
                f"job {self.id} of task {self.task_name} has no result, as it is {record.status}; "
                "drain() runs what waits and is due"
            )
        failed = JobFailed(self.id, self.task_name, record.error or str(record.status))
        raise failed from record.exception

    def info(self) -> JobInfo:
        """Return all that a runner tells of a job."""
        return self._record.snapshot()

    def is_of(self, wanted: Callable[..., Any] | str) -> bool:
        """Whether it is one of this task: a task, a function, or a name."""
        if isinstance(wanted, str):
            return self.task_name == wanted
        task: Task[..., Any] = as_task(wanted)
        if task.declared and self.task.declared:
            return self.task_name == task.name
        return bool(self.task.func == task.func)

    def has(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether it was added with exactly these arguments, positional ones by position."""
        return self.args == args and self.kwargs == kwargs

    def __repr__(self) -> str:
        return f"<RecordedJob {self}, {self.status}>"

    def __str__(self) -> str:
        changed = [
            f"{name}={getattr(self.options, name)!r}"
            for name in ("delay", "run_at", "key")
            if getattr(self.options, name) != getattr(_DEFAULTS, name)
        ]
        using = f".using({', '.join(changed)})" if changed else ""
        return f"{self.task_name}{using}{shown_call(self.args, self.kwargs)}"


def shown_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return arguments as they stand in a call."""
    parts = [_shown(each) for each in args]
    parts += [f"{name}={_shown(each)}" for name, each in kwargs.items()]
    return f"({', '.join(parts)})"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
