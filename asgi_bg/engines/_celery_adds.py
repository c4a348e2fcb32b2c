"""Jobs that a task adds while it runs in a worker of Celery's: they are sent at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from asgi_bg._ids import new_id
from asgi_bg._job import Job, JobInfo
from asgi_bg._origin import Origin, Request
from asgi_bg._record import JobRecord
from asgi_bg._rows import changes_of
from asgi_bg._task import Task, as_task, declared_task
from asgi_bg.engines._celery_publisher import Publisher
from asgi_bg.engines.base import Engine, Message, NativeTask
from asgi_bg.exceptions import EngineError
from asgi_bg.journal.codec import codec_of


class Adds:
    """Takes what a task gives to ``add_task``; the broker has it when that returns.

    Args:
        engine: The engine.
        app: Its Celery app.
    """

    def __init__(self, engine: Engine, app: Any) -> None:
        self.task_of: Callable[[Any], Task[..., Any]] = self._task_of
        self._engine = engine
        self._app = app
        self._lock = threading.Lock()
        self._publisher: Publisher | None = None
        self._process = 0

    def _task_of(self, func: Any) -> Task[..., Any]:
        """Return the task that something is; one of Celery's own, or a declared one."""
        task: Task[..., Any]
        native = None if isinstance(func, Task) else self._engine.native(func)
        task = as_task(cast("Any", func)) if native is None else NativeTask(native)
        if not task.is_durable:
            raise EngineError(
                f"{task.name} is added inside a worker of Celery's, which runs no jobs of its own: "
                "declare it with @task, and not as durable=False, so that it can be sent"
            )
        return task

    def admit(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> tuple[Job, JobRecord | None]:
        """Send a job, and return it.

        Raises:
            EngineError: The broker did not take it, or Celery lacks what the task asks for.
        """
        message = self._message_of(task, args, kwargs)
        try:
            reason = self._send(message)
        except Exception as exc:
            raise EngineError(f"a job of task {task.name} could not be sent: {exc}") from exc
        if reason is not None:
            raise EngineError(f"Celery does not take a job of task {task.name}: {reason}")
        return _SentJob(message.id, task.name), None

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """Do nothing: what is sent is not taken back."""

    def _message_of(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Message:
        options = task.options
        if options.key is not None:
            raise EngineError(f"task {task.name} asks for key=, which needs a journal")
        now = time.time()
        native: dict[str, Any] | None = None
        changes: str | None = None
        if isinstance(task, NativeTask):
            native = task.native.options
            call = self._engine.encode_native(task.name, args, kwargs)
        else:
            self._engine.check(task)
            call, *_ = codec_of(task).encode(args, kwargs)
            changes = changes_of(task, declared_task(task.name))
        run_after = options.run_at.timestamp() if options.run_at is not None else None
        return Message(
            id=new_id(now),
            task=task.name,
            call=call,
            changes=changes,
            native=native,
            options=options,
            queued_at=now,
            run_after=run_after if options.delay is None else now + options.delay,
            priority=options.priority,
        )

    def _send(self, message: Message) -> str | None:
        with self._lock:
            if self._publisher is None or self._process != os.getpid():
                self._publisher = Publisher(self._app, self._engine.timeout)
                self._process = os.getpid()
            return self._publisher.send([message])[0]


class _SentJob(Job):
    __slots__ = ("_id", "_task_name")

    def __init__(self, id: str, task_name: str) -> None:
        self._id = id
        self._task_name = task_name

    @property
    def id(self) -> str:
        return self._id

    @property
    def task_name(self) -> str:
        return self._task_name

    async def result(self, timeout: float | None = None) -> Any:
        raise self._refusal()

    async def info(self) -> JobInfo:
        raise self._refusal()

    def _refusal(self) -> EngineError:
        return EngineError(
            f"job {self._id} was sent by a worker of Celery's, which does not follow it; do in "
            "its own task what is to be done with its result"
        )
