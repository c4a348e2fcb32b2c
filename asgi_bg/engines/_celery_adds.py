"""Jobs that a task adds while it runs in a worker of Celery's: they are sent at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, cast

from asgi_bg import events
from asgi_bg._job import Job
from asgi_bg._keeping.elsewhere import handed_over
from asgi_bg._origin import Origin, Request
from asgi_bg._record import JobRecord, Kept
from asgi_bg._rows import changes_of
from asgi_bg._task import Task, as_task, declared_task
from asgi_bg.engines._celery_publisher import Publisher
from asgi_bg.engines._inline_home import InlineHome
from asgi_bg.engines._message import message_of
from asgi_bg.engines._subscribers import Subscribers
from asgi_bg.engines.base import Engine, Message, NativeTask
from asgi_bg.exceptions import EngineError
from asgi_bg.journal.codec import codec_of


class Adds:
    """Takes what a task gives to ``add_task``; the broker has it when that returns.

    Args:
        engine: The engine.
        app: Its Celery app.
        subscribers: Who is told of the jobs.
    """

    def __init__(self, engine: Engine, app: Any, subscribers: Subscribers) -> None:
        self.task_of: Callable[[Any], Task[..., Any]] = self._task_of
        self._engine = engine
        self._app = app
        self._subscribers = subscribers
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
        home = InlineHome(self._subscribers.events)
        record = JobRecord(task, args, kwargs, Context(), home, source)
        record.kept = self._kept(record)
        record.kept.is_away = True
        options = task.options
        if options.delay is not None:
            record.run_after = record.queued_at + options.delay
        elif options.run_at is not None:
            record.run_after = options.run_at.timestamp()
        try:
            reason = self._send(message_of(record))
        except Exception as exc:
            raise EngineError(f"a job of task {task.name} could not be sent: {exc}") from exc
        if reason is not None:
            raise EngineError(f"Celery does not take a job of task {task.name}: {reason}")
        home.tell(events.QUEUED, record)
        home.tell(events.HANDED_OVER, record, partial(handed_over, engine=self._engine.name))
        return record, None

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """Do nothing: what is sent is not taken back."""

    def _kept(self, record: JobRecord) -> Kept:
        """Return the call and the options of a job as they are sent."""
        task = record.task
        if task.options.key is not None:
            raise EngineError(f"task {task.name} asks for key=, which needs a journal")
        if isinstance(task, NativeTask):
            return Kept(self._engine.encode_native(task.name, record.args, record.kwargs), None)
        self._engine.check(task)
        call, *_ = codec_of(task).encode(record.args, record.kwargs)
        return Kept(call, changes_of(task, declared_task(task.name)))

    def _send(self, message: Message) -> str | None:
        with self._lock:
            if self._publisher is None or self._process != os.getpid():
                self._publisher = Publisher(self._app, self._engine.timeout)
                self._process = os.getpid()
            return self._publisher.send([message])[0]
