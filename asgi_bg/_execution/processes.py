"""Worker processes (R1), through ``anyio.to_process``.

Why that library: it belongs to a dependency we have anyway and is kept by its maintainers,
it kills the worker when the waiting task is cancelled, which is what a timeout needs, and
a worker that dies fails its own call and is replaced. Its workers hold no lock in common,
so that a killed one cannot stop the others, as it can with `multiprocessing` queues. What
it lacks, a way back while a call runs, is `_reports`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.to_process

from asgi_bg._execution._child import CallEnd, call_packed, resolve
from asgi_bg._execution._reports import Reports
from asgi_bg._record import Attempt, JobRecord
from asgi_bg._task import Task
from asgi_bg.exceptions import NotSerializable


class ProcessPool:
    """Up to ``limit`` worker processes of one event loop, started as they are needed."""

    def __init__(self, limit: int | None) -> None:
        self._limiter = anyio.CapacityLimiter(limit or os.cpu_count() or 1)
        self._reports = Reports()

    async def run(self, record: JobRecord) -> Any:
        """Make a job's packed call in a worker process, and return its value.

        Raises:
            asyncio.CancelledError: The waiting task was cancelled; the worker was killed.
            anyio.BrokenWorkerProcess: The worker died during the call.
            BaseException: Whatever the task raised, with its traceback there as the cause.
        """
        packed = record.packed
        assert packed is not None  # noqa: S101 - admission packs the calls of such tasks
        async with self._limiter:
            with self._reports.of(Attempt(record)) as address:
                if address is None:
                    # Nobody will tell when the process is up and the call begins.
                    record.begin()
                end = await self._call(record, packed, address)
        if end.exception is not None:
            raise end.exception from _RemoteTraceback(end.traceback)
        return end.value

    async def _call(self, record: JobRecord, packed: bytes, address: str | None) -> CallEnd:
        try:
            return await anyio.to_process.run_sync(
                call_packed,
                packed,
                (record.id, record.task_name, record.attempt),
                address,
                cancellable=True,
                # The place in the pool is ours already.
                limiter=anyio.CapacityLimiter(1),
            )
        except anyio.BrokenWorkerProcess:
            raise anyio.BrokenWorkerProcess(
                f"the worker process that ran task {record.task_name} died during it: the task "
                "ended the process, somebody killed it, or memory ran out; other jobs go on"
            ) from None

    def pack(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return a call as bytes for a worker process of this program.

        Raises:
            NotSerializable: The function or an argument cannot be pickled; it is named.
        """
        func = _reference(task.func)
        try:
            return pickle.dumps((func, args, dict(kwargs)), pickle.HIGHEST_PROTOCOL)
        except Exception as exc:
            what = _culprit(func, args, kwargs)
            raise NotSerializable(
                f"task {task.name} runs in another process, and {what} cannot be sent there: "
                f"{exc}; give it plain data, or leave executor='process' out"
            ) from exc

    def close(self) -> None:
        """Stop to listen; idle processes end with their event loop."""
        self._reports.close()


class _RemoteTraceback(Exception):
    """Shows, as the cause of an exception, where it was raised in the worker process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        return f"\n{self._text}"


def _reference(func: Callable[..., Any]) -> Any:
    """Return the function, or its name where the name leads to the task made from it.

    Pickle sends functions by name and finds that this one's stands for something else,
    as the decorator `task` has put the task there.
    """
    module = getattr(func, "__module__", None)
    qualname = getattr(func, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return func
    name = f"{module}:{qualname}"
    try:
        found = resolve(name)
    except (ImportError, AttributeError):
        return func
    return name if isinstance(found, Task) and found.func is func else func


def _culprit(func: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    named = [("its function", func)]
    named += [(f"argument {index}", value) for index, value in enumerate(args, 1)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception:
            return f"{name}, of type {type(value).__qualname__},"
    return "the call"
