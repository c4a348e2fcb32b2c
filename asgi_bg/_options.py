"""The options of tasks: what there is, and whether a value fits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypedDict, cast

import msgspec

from asgi_bg._types import ExecutorName, RunOn


class TaskOptions(TypedDict, total=False):
    """What `task` and `Task.using` take. Every field is explained at `task`."""

    name: str | None
    durable: bool
    retries: int
    retry_delay: float
    retry_max_delay: float
    retry_on: tuple[type[BaseException], ...]
    timeout: float | None
    concurrency: int | None
    executor: ExecutorName
    run_on: RunOn | None
    queue: str | None
    priority: int
    tags: tuple[str, ...]
    redact: tuple[str, ...]


class CallOptions(TaskOptions, total=False):
    """What only `Task.using` takes, because it belongs to one call."""

    delay: float | None
    run_at: datetime | None
    key: str | None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The checked options of a task; a value."""

    durable: bool = True
    retries: int = 0
    retry_delay: float = 1.0
    retry_max_delay: float = 300.0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    timeout: float | None = None
    concurrency: int | None = None
    executor: ExecutorName = "auto"
    run_on: RunOn | None = None
    queue: str | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    delay: float | None = None
    run_at: datetime | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        check_count("retries", self.retries, least=0)
        check_count("priority", self.priority)
        if not -(2**63) <= self.priority < 2**63:
            raise ValueError(f"priority must fit into 64 bits, got {self.priority!r}")
        check_seconds("retry_delay", self.retry_delay)
        check_seconds("retry_max_delay", self.retry_max_delay)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout, zero=False)
        if self.delay is not None:
            check_seconds("delay", self.delay)
        if self.concurrency is not None:
            check_count("concurrency", self.concurrency, least=1)
        if self.executor not in ("auto", "thread", "process"):
            raise ValueError(
                f"executor must be 'auto', 'thread' or 'process', got {self.executor!r}"
            )
        if self.run_on is not None:
            check_run_on(self.run_on)
        for name in ("tags", "redact"):
            _check_tuple(name, getattr(self, name), str)
        for error in self.retry_on:
            if not (isinstance(error, type) and issubclass(error, BaseException)):
                raise TypeError(f"retry_on must hold exception classes, got {error!r}")
        if not isinstance(self.durable, bool):
            raise TypeError(f"durable must be True or False, got {self.durable!r}")
        for name in ("queue", "key"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a string or None, got {value!r}")
        self._check_instant()

    def _check_instant(self) -> None:
        if self.run_at is None:
            return
        if self.delay is not None:
            raise ValueError("delay and run_at exclude each other; give one of them")
        if not isinstance(self.run_at, datetime):
            raise TypeError(f"run_at must be a datetime, got {self.run_at!r}")
        if self.run_at.tzinfo is None:
            raise ValueError(
                f"run_at must know its time zone, got the naive {self.run_at!r}; "
                "build it with datetime.now(timezone.utc) or datetime(..., tzinfo=...)"
            )


def check_seconds(name: str, value: object, *, zero: bool = True) -> None:
    """Raise unless ``value`` is a finite number of seconds, not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        bound = "0 or more" if zero else "more than 0"
        raise ValueError(f"{name} must be {bound} seconds, got {value!r}")


def check_count(name: str, value: object, *, least: int | None = None) -> None:
    """Raise unless ``value`` is a whole number, ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {least} or more, got {value!r}")


def check_run_on(value: object) -> None:
    """Raise unless ``value`` is one of the three words of `RunOn`."""
    if value not in ("response", "success", "always"):
        raise ValueError(f"run_on must be 'response', 'success' or 'always', got {value!r}")


def _check_tuple(name: str, value: object, kind: type) -> None:
    items = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (None,)
    if not all(isinstance(item, kind) for item in items):
        raise TypeError(f"{name} must be a sequence of {kind.__name__}, got {value!r}")


# What a job that is kept takes along; the rest is decided when it is added, or cannot be
# written down.
_KEPT_OPTIONS = (
    "retries",
    "retry_delay",
    "retry_max_delay",
    "timeout",
    "concurrency",
    "queue",
    "tags",
    "redact",
)


def difference(options: Options, declared: Options) -> dict[str, object]:
    """Return those options of a job, of the ones that are kept with it, that were changed."""
    return {
        name: getattr(options, name)
        for name in _KEPT_OPTIONS
        if getattr(options, name) != getattr(declared, name)
    }


def apply(declared: Options, changes: dict[str, object], priority: int) -> Options:
    """Return the options of a job that was kept.

    Hidden are the arguments that the task names now, and those that it named then (J10).

    Raises:
        TypeError, ValueError: They do not fit (any more).
    """
    unknown = changes.keys() - set(_KEPT_OPTIONS)
    if unknown:
        raise ValueError(f"unknown option {sorted(unknown)[0]!r}")
    values: dict[str, Any] = {key: as_tuple(key, value) for key, value in changes.items()}
    if "redact" in values and declared.redact:
        values["redact"] = tuple(dict.fromkeys((*declared.redact, *values["redact"])))
    return msgspec.structs.replace(declared, **values, priority=priority)


OPTION_NAMES = frozenset(Options.__struct_fields__)


def as_tuple(name: str, value: object) -> object:
    """Return an option's value as a tuple, where the option of that name is to be one."""
    # ("card") is a string and not a tuple: the commonest slip with such an option.
    if name in ("tags", "redact", "retry_on"):
        if isinstance(value, (str, type)):
            return (value,)
        if isinstance(value, Iterable):
            return tuple(cast("Iterable[object]", value))
    return value
