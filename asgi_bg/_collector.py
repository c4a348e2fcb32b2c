"""The collector: gathers the jobs of one request, and does not know who runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

from asgi_bg._job import Job
from asgi_bg._origin import Origin, Request
from asgi_bg._record import JobRecord
from asgi_bg._task import P, Task
from asgi_bg.exceptions import MiddlewareNotInstalled, ResponseEnded

if TYPE_CHECKING:
    from typing_extensions import Self

SCOPE_KEY = "asgi_bg"

_HOW_TO_INSTALL = (
    "wrap the application, app = BackgroundTaskMiddleware(app), or add it as your framework "
    "adds middleware, as in app.add_middleware(BackgroundTaskMiddleware)"
)


class JobQueue(Protocol):
    """Who takes the jobs that a collector gathers."""

    task_of: Callable[[Any], Task[..., Any]]
    """Returns the task that something is which was given to ``add_task``."""

    def admit(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> tuple[Job, JobRecord | None]:
        """Return a new job and its record, or the job that has the task's key already and None.

        Raises:
            QueueFull: There are too many.
            EngineError: It is to be sent to an engine that lacks what the task asks for.
            NotSerializable: It is to be kept or sent elsewhere, and an argument cannot be.
        """
        ...

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """Take a job back that was admitted and cannot be run."""
        ...


class Listener(Protocol):
    """Who wants to know of further jobs."""

    def job_added(self) -> None:
        """Note that there is one more; from any thread."""
        ...

    def request(self) -> Request | None:
        """Return the request that it serves, if it is one who does."""
        ...


class BackgroundTasks:
    """The jobs of one request; at ``scope["asgi_bg"]`` (M1).

    `add_task` may be called from the event loop, from the worker thread of a plain
    endpoint, and from the request's own running tasks (M8). The length and the iteration
    are those of the jobs that have not been taken up yet, in the order added.

    Attributes:
        pending: The records of those jobs, or None if there are none; for the middleware.
        unsaved: Those of them that are to be kept in a journal, which has not been told of
            them yet; or None.
        former: The id and the priority of the last job that it has been told of.
        listener: Told of every further job, from any thread, once somebody runs them.
        source: The request, once a job was added, or what is known of the one behind it.
    """

    # One lock for all: it is held for a few operations, and saves every request one.
    _lock = threading.Lock()

    __slots__ = ("_queue", "_sealed", "former", "listener", "pending", "source", "unsaved")

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self.pending: list[JobRecord] | None = None
        self.unsaved: list[JobRecord] | None = None
        self.former: tuple[str, int] | None = None
        self._sealed = False
        self.listener: Listener | None = None
        self.source: Request | Origin | None = None

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> Self:
        """Return the collector of the request that has this scope.

        Raises:
            MiddlewareNotInstalled: There is none in it.
        """
        found = scope.get(SCOPE_KEY)
        if not isinstance(found, cls):
            raise MiddlewareNotInstalled(
                f"expected a collector at scope['{SCOPE_KEY}'], found {found!r}; {_HOW_TO_INSTALL}"
            )
        return found

    @overload
    def add_task(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Job: ...
    @overload
    def add_task(self, func: str, /, *args: Any, **kwargs: Any) -> Job: ...
    def add_task(self, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """Queue a call of ``func`` that runs after the response has ended (M4).

        Args:
            func: A task, or any callable: a function, async or not, a method, a partial, an
                object with ``__call__``; or what the runner's engine takes for a task of its own,
                as the name of a function of ARQ's (E4).
            *args: Its positional arguments.
            **kwargs: Its keyword arguments, all of them; options go through `Task.using`.

        Returns:
            The queued job, which may be ignored.

        Raises:
            TypeError: It is no callable, or cannot be called with these arguments.
            NotSerializable: It is to be kept in a journal or to run in another process, and
                an argument cannot be written down (J7).
            QueueFull: ``max_queued`` jobs wait already (R8).
            EngineError: The runner's engine lacks what the task asks for (E5).
            ResponseEnded: The jobs of this request have all been run.
        """
        task = self._queue.task_of(func)
        task.check_call(args, kwargs)
        if self._sealed:
            raise self._refusal(task)
        listener = self.listener  # which another thread may take away at any moment
        if self.source is None and listener is not None:
            self.source = listener.request()
        job, record = self._queue.admit(task, args, kwargs, self.source)
        if record is None:
            return job
        is_late = False
        with self._lock:
            if self.pending is None:
                self.pending = [record]
            else:
                self.pending.append(record)
            if record.kept is not None:
                if self.unsaved is None:
                    self.unsaved = []
                self.unsaved.append(record)
            # Only now, as `seal` looks the other way round: it seals, and then looks here.
            if self._sealed:
                self.pending = self.pending[:-1] or None
                if record.kept is not None:
                    self.unsaved = (self.unsaved or [])[:-1] or None
                is_late = True
        if is_late:
            refusal = self._refusal(task)
            self._queue.withdraw(record, str(refusal))
            raise refusal
        listener = self.listener
        if listener is not None:
            listener.job_added()
        return job

    def _refusal(self, task: Task[..., Any]) -> ResponseEnded:
        return ResponseEnded(
            f"task {task.name} was added after its request was over and its jobs had been run; "
            "add it before the endpoint or a job of the same request returns, or outside of "
            "requests with: await runner.add_task(...)"
        )

    def take(self) -> list[JobRecord] | None:
        """Take up all jobs that wait here; None if there are none."""
        if self.pending is None:
            return None
        with self._lock:
            taken, self.pending = self.pending, None
        return taken

    def take_unsaved(self) -> list[JobRecord]:
        """Take up the jobs that the journal is to be told of."""
        with self._lock:
            taken, self.unsaved = self.unsaved, None
        return taken or []

    def seal(self) -> bool:
        """Take no more, if none waits; return whether that was so."""
        self._sealed = True
        if self.pending is None:
            return True  # most requests end here, without the lock
        with self._lock:
            self._sealed = not len(self)
        return self._sealed

    def is_of(self, queue: JobQueue) -> bool:
        """Whether the jobs gathered here go to ``queue``."""
        return self._queue is queue

    def __len__(self) -> int:
        return len(self.pending or ())

    def __bool__(self) -> bool:
        # An empty collector is still one: `if tasks:` asks whether there is one.
        return True

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self.pending or ()))

    def __repr__(self) -> str:
        state = "sealed" if self._sealed else f"{len(self)} waiting"
        return f"<BackgroundTasks, {state}>"


collecting: ContextVar[BackgroundTasks] = ContextVar("asgi_bg_collector")


@overload
def add_task(func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Job: ...
@overload
def add_task(func: str, /, *args: Any, **kwargs: Any) -> Job: ...
def add_task(func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Job:
    """Queue a call of ``func`` with the request being served, from any depth.

    As `BackgroundTasks.add_task`, for code that never sees the request (M8).

    Raises:
        MiddlewareNotInstalled: No request is being served here, or the middleware is missing.
    """
    try:
        tasks = collecting.get()
    except LookupError:
        raise MiddlewareNotInstalled(
            f"no request is being served here; {_HOW_TO_INSTALL}; outside of requests, use: "
            "await runner.add_task(...)"
        ) from None
    return tasks.add_task(cast("Callable[..., Any]", func), *args, **kwargs)
