"""Worker processes (R1), through ``anyio.to_process``.

Why that library: it belongs to a dependency we have anyway and is kept by its maintainers,
it kills the worker when the waiting task is cancelled, which is what a timeout needs, and
a worker that dies fails its own call and is replaced. Its workers hold no lock in common,
so that a killed one cannot stop the others, as it can with `multiprocessing` queues. What
it lacks, a way back while a call runs, is `_reports`.

It ties the workers to the life of an event loop's first task, and one server (granian) ends
that before it lets the application drain. So the pool has an event loop of its own.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_process

from asgi_bg._execution._child import CallEnd, call_packed, resolve
from asgi_bg._execution._reports import Reports
from asgi_bg._execution.attempt import Attempt
from asgi_bg._record import JobRecord
from asgi_bg._task import Task
from asgi_bg.exceptions import NotSerializable


class ProcessPool:
    """Up to ``limit`` worker processes of one event loop, started as they are needed."""

    def __init__(self, limit: int | None) -> None:
        self._limiter = anyio.CapacityLimiter(limit or os.cpu_count() or 1)
        self._reports = Reports()
        self._portal: Future[anyio.from_thread.BlockingPortal] | None = None

    async def run(self, record: JobRecord) -> Any:
        """Make a job's packed call in a worker process, and return its value.

        Raises:
            asyncio.CancelledError: The waiting task was cancelled; the worker is killed.
            anyio.BrokenWorkerProcess: The worker died during the call, or could not start.
            BaseException: Whatever the task raised, with its traceback there as the cause.
        """
        packed = record.packed
        assert packed is not None  # noqa: S101 - admission packs the calls of such tasks
        job = (record.id, record.task_name, record.attempt, record.run)
        async with self._limiter:
            if self._portal is None:
                self._portal = _start_portal()
            # Shielded, as others may wait for it as well.
            portal = await asyncio.shield(asyncio.wrap_future(self._portal))
            attempt = Attempt(record, record.run)
            with self._reports.of(attempt) as address:
                if address is None:
                    # Nobody will tell when the process is up and the call begins.
                    attempt.begin()
                    attempt.announce()
                end = await asyncio.wrap_future(portal.start_task_soon(_call, packed, job, address))
        if end.exception is not None:
            raise end.exception from _RemoteTraceback(end.traceback)
        return end.value

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
        """Let the processes end, and stop to listen."""
        self._reports.close()
        started, self._portal = self._portal, None
        if started is not None:
            started.add_done_callback(_stop_portal)


def _start_portal() -> Future[anyio.from_thread.BlockingPortal]:
    """Start an event loop in a thread, and return the way into it once there is one.

    A daemon, and nothing that waits for it: at the end of the process it simply ends, and
    its workers with it, as their input does.
    """
    started: Future[anyio.from_thread.BlockingPortal] = Future()

    async def serve() -> None:
        async with anyio.from_thread.BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    Thread(target=anyio.run, args=(serve,), name="asgi_bg processes", daemon=True).start()
    return started


def _stop_portal(started: Future[anyio.from_thread.BlockingPortal]) -> None:
    portal = started.result()
    portal.start_task_soon(portal.stop, True)


async def _call(packed: bytes, job: tuple[str, str, int, int], address: str | None) -> CallEnd:
    """Make a call in a process of the pool; runs on the pool's own loop."""
    try:
        return await anyio.to_process.run_sync(
            call_packed,
            packed,
            job,
            address,
            os.getpid(),
            cancellable=True,
            limiter=anyio.CapacityLimiter(1),  # the place in the pool is ours already
        )
    except anyio.BrokenWorkerProcess as exc:
        if exc.args:
            # Words of anyio's own, for a worker that has not come as far as the call.
            raise anyio.BrokenWorkerProcess(
                f"the worker process for task {job[1]} could not start ({exc.__cause__!r}); it "
                "imports the program's main file, which must not start the server again: guard "
                "it with if __name__ == '__main__', or start the server by its command instead "
                "of with python -m"
            ) from None
        raise anyio.BrokenWorkerProcess(
            f"the worker process that ran task {job[1]} died during it: the task ended the "
            "process, somebody killed it, or memory ran out; other jobs go on"
        ) from None


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
