"""What an engine is: somebody else's distributed queue, whose workers run jobs (E1 to E6)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard

import msgspec

from asgi_bg._job import JobStatus
from asgi_bg._options import Options, check_seconds
from asgi_bg._task import Task, on_declared
from asgi_bg.exceptions import EngineError, NotSerializable

__all__ = ["Again", "Engine", "Envelope", "Feature", "Message", "Native", "Performer", "Report"]

Feature: TypeAlias = Literal[
    "delay", "results", "cancel", "retries", "timeout", "priority", "queue", "concurrency"
]
"""What engines may support; `Engine` says what each of the words stands for."""

Envelope: TypeAlias = dict[str, Any]
"""A job of ours as it travels: a dictionary of strings and None, so every serializer takes it."""

_ENVELOPE = frozenset(("id", "call", "options"))

_read_json = msgspec.json.Decoder().decode
_write_json = msgspec.json.Encoder().encode


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A job on its way to an engine.

    Attributes:
        id: The job's id, to be the engine's id too, so that one sent twice runs once (E2).
        task: The name of its task.
        call: Its arguments, as JSON text: a list of the positional ones and, if there are
            any, an object of the others.
        changes: The options that differ from the declared ones, as JSON text; or None.
        native: For a task of the engine's own, its options as `Engine.native` has returned
            them; None for tasks of ours.
        options: All options of the job.
        queued_at: When it was added, in seconds since the epoch.
        run_after: Before when it may not start, or None.
        priority: Of waiting jobs, the higher goes first.
        trace: The trace context in which it was added, as a ``traceparent``; or None.
    """

    id: str
    task: str
    call: str
    changes: str | None
    native: dict[str, Any] | None
    options: Options
    queued_at: float
    run_after: float | None
    priority: int
    trace: str | None = None

    @property
    def envelope(self) -> Envelope:
        """What a worker gives to `Performer.perform`: the one argument of a task of ours."""
        envelope: Envelope = {"id": self.id, "call": self.call, "options": self.changes}
        if self.trace is not None:
            envelope["trace"] = self.trace
        return envelope

    @property
    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a task of the engine's own: plain JSON values."""
        args, *kwargs = _read_json(self.call)
        return args, kwargs[0] if kwargs else {}


class Native(msgspec.Struct, frozen=True):
    """A task of an engine's own.

    Attributes:
        name: Its name in the engine.
        options: What else the engine needs to know to send it, as plain JSON values.
    """

    name: str
    options: dict[str, Any] = {}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine knows of a job. Instants are seconds since the epoch.

    Attributes:
        status: Where it stands.
        task: The name of its task, if the engine tells.
        attempt: How often it has been started.
        started_at, finished_at: When its last attempt started, and when it ended.
        progress, message: What its task last told.
        result: What it returned, as plain JSON values.
        error: In one line, why it has none.
        traceback: That error's traceback.
    """

    status: JobStatus
    task: str | None = None
    attempt: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    progress: float | None = None
    message: str = ""
    result: Any = None
    error: str | None = None
    traceback: str | None = None


class Again(Exception):
    """An attempt has failed, and its task wants to be tried again.

    Raised to the engine's worker, which sees to it with the engine's own means.

    Attributes:
        delay: After how many seconds.
        error: What it failed with.
    """

    def __init__(self, delay: float, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}; to be tried again in {delay:.1f} s")
        self.delay = delay
        self.error = error

    def __reduce__(self) -> tuple[type[Again], tuple[float, BaseException]]:
        return type(self), (self.delay, self.error)


class Performer(Protocol):
    """Who carries the jobs of an engine out in a worker's process."""

    async def perform(self, name: str, envelope: Mapping[str, Any], attempt: int) -> Any:
        """Run one attempt of a job.

        Args:
            name: The name of its task, which must be declared in this process.
            envelope: `Message.envelope`.
            attempt: The number of the attempt, from 1.

        Returns:
            What the task returned, as plain JSON values.

        Raises:
            Again: It failed, and is to be tried again.
            LookupError: No task of that name is declared here (J8).
            Exception: What the task raised.
        """
        ...


class Engine(ABC):
    """Hands jobs over to a distributed queue.

    To write one for another queue, derive from this class and implement `open`, `close` and
    `send`; the other methods are for what it supports beyond that.

    All methods but `check`, `native` and `encode_native`, which are called wherever
    ``add_task`` is, are called in one event loop; if that has ended, `open` is called in the
    next one.

    Attributes:
        name: What it is called in messages, and as the owner of its jobs.
        supports: What it can do (E5):
            ``"delay"``: start a job not before `Message.run_after`;
            ``"results"``: tell by `fetch` how a job stands;
            ``"cancel"``: keep a job that waits from starting;
            ``"retries"``: try again, after a delay, what raised `Again`;
            ``"timeout"``: end an attempt that takes longer than the option says;
            ``"priority"``: prefer a job of higher `Message.priority`;
            ``"queue"``: choose among several queues;
            ``"concurrency"``: bound how many jobs of one task run at once, everywhere.
        timeout: How long it may take to acknowledge jobs, in seconds.
        consume: Whether the app's own process works the queue too.
    """

    name: str
    supports: frozenset[Feature] = frozenset()
    timeout: float = 5.0
    consume: bool = False

    def check(self, task: Task[..., Any]) -> None:
        """Refuse a task that asks for what this engine lacks (E5).

        Raises:
            EngineError: It does; the message says what.
        """
        options = task.options
        asked: list[tuple[Feature, str, bool]] = [
            ("delay", "delay=", options.delay is not None),
            ("delay", "run_at=", options.run_at is not None),
            ("retries", "retries=", options.retries > 0),
            ("timeout", "timeout=", options.timeout is not None),
            ("priority", "priority=", options.priority != 0),
            ("queue", "queue=", options.queue is not None),
            ("concurrency", "concurrency=", options.concurrency is not None),
        ]
        for feature, option, is_asked in asked:
            if is_asked and feature not in self.supports:
                raise EngineError(
                    f"task {task.name} asks for {option}, which the engine {self.name} does not "
                    f"support (it supports {', '.join(sorted(self.supports)) or 'none of those'}); "
                    "leave the option out, or declare the task with durable=False to run it in "
                    "this process"
                )

    def native(self, func: object) -> Native | None:
        """Return what is needed to send a task of the engine's own; None if it is none (E4)."""
        return None

    def encode_native(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the arguments of a task of the engine's own as JSON text.

        Raises:
            NotSerializable: One of them is not what JSON itself knows.
        """
        call: list[Any] = [list(args), kwargs] if kwargs else [list(args)]
        try:
            text = _write_json(call)
            is_same = _read_json(text) == call
        except Exception as exc:
            raise NotSerializable(
                f"the arguments of {self.name}'s own task {name} are not plain JSON: {exc}"
            ) from exc
        if not is_same:
            raise NotSerializable(
                f"the arguments of {self.name}'s own task {name} would come back changed, as they "
                "travel as JSON; pass strings, numbers, booleans, None, and lists and "
                "dictionaries of those"
            )
        return text.decode()

    @abstractmethod
    async def open(self) -> None:
        """Get ready to send; called again after `close`, and where it is open already.

        Raises:
            Exception: The queue cannot be reached now.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections; also of those that are broken or still waited for."""

    @abstractmethod
    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        """Send jobs; return once the queue has acknowledged them all.

        It may be cancelled, when the time limit is over. Some may be known to the queue
        already, by their id: those are acknowledged too.

        Args:
            messages: Up to some hundred, in their order.

        Returns:
            For each one None, or why the queue will never take it.

        Raises:
            Exception: The queue cannot be reached now. All are sent again later.
        """

    async def fetch(self, id: str) -> Report | None:
        """Return what the queue knows of a job, or None; for who supports ``"results"``."""
        raise EngineError(f"the engine {self.name} keeps no results")

    async def cancel(self, id: str) -> bool:
        """Cancel a job that waits; return whether it was; for who supports ``"cancel"``."""
        raise EngineError(f"the engine {self.name} cannot cancel jobs")

    async def work(
        self, performer: Performer, max_jobs: int, stopping: asyncio.Event, grace: float
    ) -> None:
        """Work the queue in this process, until that is to stop; for ``consume=True``.

        Args:
            performer: Who runs the jobs.
            max_jobs: How many may be taken at once.
            stopping: Set when no more jobs are to be taken; those that were begun go on.
            grace: For how many seconds after that they may go on.

        Raises:
            Exception: The queue cannot be reached now. It is called again later.
        """
        raise EngineError(f"the engine {self.name} has no worker to run in this process")


class NativeTask(Task[..., Any]):
    """A task of an engine's own, as it goes through the collector.

    Attributes:
        native: What the engine needs to know to send it.
    """

    native: Native

    def __init__(self, native: Native) -> None:
        super().__init__(_run_elsewhere, name=native.name)
        self.native = native
        self.is_durable = True

    def check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Leave the check of the arguments to the engine, which knows the function."""


def is_envelope(value: object) -> TypeGuard[Envelope]:
    """Whether this is the one argument of a task of ours: `Message.envelope`, as it arrives."""
    return isinstance(value, dict) and value.keys() >= _ENVELOPE


def each_declared(
    tasks: Sequence[Task[..., Any]], take: Callable[[Task[..., Any]], object]
) -> None:
    """Give declared tasks to a function: these; or if there are none all, also later ones.

    Raises:
        TypeError: One of them is not declared.
    """
    for task in tasks:
        if not (isinstance(task, Task) and task.declared):
            raise TypeError(f"workers run tasks declared with @task, got {task!r}")
        take(task)
    if not tasks:
        on_declared(take)


def seconds_put_off(options: Options, now: float) -> float:
    """Return for how many seconds after an instant a job that is added then is put off."""
    if options.run_at is not None:
        return options.run_at.timestamp() - now
    return options.delay or 0.0


def check_consume(value: object) -> bool:
    """Return whether the app's own process works the queue too.

    Raises:
        TypeError: The value does not say so.
    """
    if not isinstance(value, bool):
        raise TypeError(f"consume must be True or False, got {value!r}")
    return value


def check_timeout(value: float) -> float:
    """Return a time limit of an engine, in seconds.

    Raises:
        TypeError, ValueError: It is none.
    """
    check_seconds("timeout", value, zero=False)
    return float(value)


async def _run_elsewhere(*args: Any, **kwargs: Any) -> Any:
    raise EngineError("a task of an engine's own runs in the engine's workers, and not here")
