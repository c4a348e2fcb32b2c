"""A task: a function and how it wants to be run."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

import msgspec

from asgi_bg._options import OPTION_NAMES, CallOptions, Options, TaskOptions, as_tuple
from asgi_bg._types import ExecutorName

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

Place = Literal["loop", "thread", "process"]


class Task(Generic[P, R]):
    """A function with the options it is to be run with; made by `task`.

    It is still the function: calling a task calls the function directly, here and now.
    Tasks are values, and `using` returns changed copies.

    Attributes:
        func: The function itself.
        name: ``module:qualname`` unless it was given.
        options: The options, read-only.
        place: Where its jobs run: ``"loop"``, ``"thread"`` or ``"process"`` (R1).
        is_durable: Whether its jobs are kept in a journal, where there is one (J1).
        is_special: Whether queueing a job of it takes more than most do.
        declared: Whether `task` made it; a plain function given to ``add_task`` is not.
    """

    func: Callable[P, R]
    name: str
    options: Options
    place: Place
    declared: bool
    is_durable: bool
    is_special: bool

    def __init__(
        self,
        func: Callable[P, R],
        *,
        name: str | None = None,
        options: Options = Options(),
        declared: bool = False,
    ) -> None:
        _check_function(func)
        self.func = func
        self.name = _name_of(func) if name is None else name
        self.options = options
        self.declared = declared
        self.place = _place_of(func, options.executor, self.name)
        self.is_durable = declared and options.durable
        self.is_special = self.place == "process" or any(
            option is not None for option in (options.delay, options.run_at, options.key)
        )
        self._parameters: inspect.Signature | Literal["unread"] | None = "unread"
        self._positional = _positional_range(func)
        if declared:
            functools.update_wrapper(self, func, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.func(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Task[..., R]:
        if instance is None:
            return self
        return Task(
            MethodType(self.func, instance),
            name=self.name,
            options=self.options,
            declared=self.declared,
        )

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def using(self, **options: Unpack[CallOptions]) -> Self:
        """Return a copy of this task with some options changed.

        Args:
            **options: Any option of `task`, and three that belong to one call:
                ``delay``, seconds to wait before the job may start;
                ``run_at``, a `datetime` with a time zone before which it may not start;
                ``key``, a string: while a job with that key is unfinished, or among the
                finished jobs still remembered, failed ones too, ``add_task`` adds nothing
                and returns that job (J6). A job that its response drops has no key any more.

        Raises:
            TypeError, ValueError: An option does not exist, or its value does not fit.
        """
        changes: dict[str, Any] = {**options}
        name = changes.pop("name", None)
        unknown = changes.keys() - OPTION_NAMES
        if unknown:
            raise TypeError(
                f"unknown task option {sorted(unknown)[0]!r}; "
                f"there are name, {', '.join(sorted(OPTION_NAMES))}"
            )
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name must be a string that is not empty, got {name!r}")
        values: dict[str, Any] = {key: as_tuple(key, value) for key, value in changes.items()}
        changed = type(self)(
            self.func,
            name=self.name if name is None else name,
            options=msgspec.structs.replace(self.options, **values),
            declared=self.declared,
        )
        if name is not None and self.declared:
            _declare_as(name, changed)
        return changed

    def check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise `TypeError` where calling the function so could only raise one.

        What Python cannot tell about a function (some builtins) passes.
        """
        if not kwargs and self._positional is not None:
            least, most = self._positional
            if least <= len(args) <= most:
                return
        if self._parameters == "unread":
            self._parameters = _signature_of(self.func)
        if self._parameters is None:
            return
        try:
            self._parameters.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(
                f"task {self.name} cannot be called with these arguments: {exc}; "
                f"it takes {self._parameters}"
            ) from None


def _check_function(func: object) -> None:
    if inspect.iscoroutine(func):
        func.close()
        raise TypeError(
            f"expected a function, got the coroutine object {func.__qualname__!r}, which is "
            "the function already called; pass the function and its arguments apart: "
            f"add_task({func.__name__}, ...)"
        )
    if not callable(func):
        raise TypeError(
            f"expected a function or another callable, got {func!r} of type {type(func).__name__}"
        )
    if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
        raise TypeError(
            f"expected a function that does its work when called, got {func!r}, which yields; "
            "wrap it in a function that consumes it"
        )


def _name_of(func: Callable[..., object]) -> str:
    while isinstance(func, functools.partial):
        func = func.func
    named = func if hasattr(func, "__qualname__") else type(func)
    # Methods of builtin types know no module.
    return f"{named.__module__ or 'builtins'}:{named.__qualname__}"


def _is_async(func: Callable[..., object]) -> bool:
    while isinstance(func, functools.partial):
        func = func.func
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(
        getattr(func, "__call__", None)  # noqa: B004 - the bound method, not whether there is one
    )


def _place_of(func: Callable[..., object], executor: ExecutorName, name: str) -> Place:
    if not _is_async(func):
        return "process" if executor == "process" else "thread"
    if executor != "auto":
        raise ValueError(
            f"executor={executor!r} is for plain functions, and {name} is async, so it runs on "
            "the event loop; leave executor out, or make it a plain def"
        )
    return "loop"


def _positional_range(func: Callable[..., object]) -> tuple[int, float] | None:
    """How few and how many positional arguments suffice alone, read off a function's code."""
    if type(func) is not FunctionType:
        return None
    code = func.__code__
    if code.co_kwonlyargcount > len(func.__kwdefaults__ or ()):
        return None
    most = math.inf if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    return code.co_argcount - len(func.__defaults__ or ()), most


def _signature_of(func: Callable[..., object]) -> inspect.Signature | None:
    try:
        # What the call itself would meet: a decorator may well take other arguments than
        # the function it wraps.
        return inspect.signature(func, follow_wrapped=False)
    except (ValueError, TypeError):
        return None


@overload
def task(func: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    func: Callable[P, R] | None = None, /, **options: Unpack[TaskOptions]
) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Declare a function as a task: ``@task``, or ``@task(retries=3)``.

    The function stays callable as it was. ``async def`` functions run on the event loop,
    plain ones in worker threads of the runner (R1).

    Args:
        func: The function, where the decorator is used without parentheses.
        name: What the task is called in logs and events; ``module:qualname`` if not given.
        durable: Whether its jobs are to survive a crash, where the runner can keep them.
        retries: How often a failed job is tried again.
        retry_delay: The longest wait before the first retry, in seconds. It doubles with each
            further one, and a random share of it is waited (full jitter), from nothing to
            all, so that jobs that failed together are not tried again together.
        retry_max_delay: The longest wait before any retry, in seconds.
        retry_on: The exception classes after which a job is tried again.
        timeout: How long one attempt may take, in seconds; None for the runner's (R5).
        concurrency: How many jobs of this task may run at once; None for no limit (R2).
        executor: ``"auto"``, ``"thread"`` or ``"process"``; the latter two are for plain
            functions. A process takes about 0.2 seconds to start, and is kept for more jobs.
        run_on: Which responses run its jobs, None for the middleware's: ``"response"``,
            any that ended; ``"success"``, a status below 400; ``"always"``, also where the
            app failed (M5).
        queue: The name of an engine's queue, for engines that have several.
        priority: Of waiting jobs, those with the higher number start first.
        tags: Words to find jobs by.
        redact: The names of arguments whose values are never shown.

    Raises:
        TypeError, ValueError: It is no function, or an option's value does not fit.
    """
    if func is None:
        return lambda function: _declare(function, **options)
    return _declare(func, **options)


def _declare(func: Callable[P, R], **options: Unpack[TaskOptions]) -> Task[P, R]:
    # A task declared again keeps the options that it has.
    known = cast("Task[P, R]", func) if isinstance(func, Task) else Task(func, declared=True)
    made = known.using(**options)
    _declare_as(made.name, made)
    return made


_declared: dict[str, Task[..., Any]] = {}


def _declare_as(name: str, task: Task[..., Any]) -> None:
    former = _declared.get(name)
    # The same function again is a reloaded module, or an inner function made anew.
    if (
        former is not None
        and type(former.func) is type(task.func) is FunctionType
        and _name_of(former.func) != _name_of(task.func)
    ):
        raise ValueError(
            f"two tasks are called {name!r}: {_name_of(former.func)} and {_name_of(task.func)}; "
            "jobs that are kept find their task by its name, so give one of them another"
        )
    _declared[name] = task
    for listener in _listeners:
        listener(task)


_listeners: list[Callable[[Task[..., Any]], object]] = []


def on_declared(listener: Callable[[Task[..., Any]], object]) -> None:
    """Call a function with every task that has been declared so far, and will be."""
    _listeners.append(listener)
    for task in declared_tasks():
        listener(task)


def declared_tasks() -> tuple[Task[..., Any], ...]:
    """Return every task that has been declared so far."""
    return tuple(_declared.values())


def declared_task(name: str) -> Task[..., Any] | None:
    """Return the task that was declared by this name, or None (J8)."""
    return _declared.get(name)


_known: dict[FunctionType, Task[..., Any]] = {}


def as_task(func: Callable[..., Any]) -> Task[..., Any]:
    """Return ``func`` if it is a task, else a task around it.

    Functions at the top of a module are remembered, since they are added again and again
    and live as long as the process. Closures are not: they may hold a whole request.
    """
    if isinstance(func, Task):
        return cast("Task[..., Any]", func)
    if type(func) is not FunctionType:
        return Task(func)
    known = _known.get(func)
    if known is None:
        known = Task(func)
        if "<locals>" not in func.__qualname__:
            _known[func] = known
    return known
