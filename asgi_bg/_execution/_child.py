"""What runs inside a worker process: one call, with a current job around it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from contextvars import copy_context
from datetime import datetime, timezone
from typing import Any, NamedTuple

import msgspec

from asgi_bg._failures import describe_error
from asgi_bg._job import CurrentJob, LogLine, running
from asgi_bg._logs import MESSAGE_LIMIT, keep_logs
from asgi_bg._task import Task


class Report(msgspec.Struct, frozen=True):
    """What a call tells while it runs: its progress, a log line, or else that it begins."""

    id: str
    run: int
    fraction: float | None = None
    message: str = ""
    line: LogLine | None = None


class CallEnd(NamedTuple):
    """How a call ended: with a value, or with an exception and its traceback."""

    value: Any = None
    exception: BaseException | None = None
    traceback: str = ""


def resolve(name: str) -> Any:
    """Return what ``module:qualname`` stands for."""
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def die_with(parent: int) -> None:
    """End this process when the one that started it has ended, however that came about.

    Otherwise it would finish a call while another process, that has taken the job over, makes
    it again. Where the system has no means for it, a thread looks now and then.
    """
    global _is_bound
    if _is_bound:
        return
    _is_bound = True
    if sys.platform.startswith("linux"):
        # Source: prctl(2), PR_SET_PDEATHSIG; the number is that of linux/prctl.h.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)  # it had ended before


_is_bound = False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def call_packed(
    packed: bytes, job: tuple[str, str, int, int], address: str | None, parent: int
) -> CallEnd:
    """Make a call packed by the parent process; never raises.

    ``packed`` comes through a pipe from the process that started this one, so unpickling
    it trusts nobody new.
    """
    # Ctrl-C in a terminal reaches the whole process group; what it means is the parent's
    # to decide, which drains first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    keep_logs()
    with _ChildJob(*job, address) as current:
        return copy_context().run(_call, packed, current)


def _call(packed: bytes, current: _ChildJob) -> CallEnd:
    running.set(current)
    out = _Printed(current, "stdout")
    err = _Printed(current, "stderr")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            func: Any
            func, args, kwargs = pickle.loads(packed)  # noqa: S301
            if isinstance(func, str):
                func = resolve(func)
            if isinstance(func, Task):
                func = func.func
            if not logging.root.handlers:
                # Or logging's last resort would print what is kept already.
                logging.root.addHandler(logging.NullHandler())
            value = func(*args, **kwargs)
            out.flush()
            err.flush()
    except BaseException as exc:
        frames = exc.__traceback__ and exc.__traceback__.tb_next
        text = "".join(traceback.format_exception(type(exc), exc, frames))
        return CallEnd(None, _portable(exc), text)
    return CallEnd(value)


def _portable(exc: BaseException) -> BaseException:
    """Return the exception, or one that says the same if it cannot leave this process."""
    try:
        pickle.loads(pickle.dumps(exc))  # noqa: S301 - what it itself has just made
    except Exception:
        return RuntimeError(describe_error(exc))
    return exc


class _ChildJob(CurrentJob):
    """The current job as seen from a worker process; reports go to the parent's socket."""

    __slots__ = ("_run", "_socket", "attempt", "id", "task_name")

    def __init__(
        self, id: str, task_name: str, attempt: int, run: int, address: str | None
    ) -> None:
        self.id = id
        self.task_name = task_name
        self.attempt = attempt
        self._run = run
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with contextlib.suppress(OSError):
                self._socket.connect(address)
            self._tell(Report(id, run))

    @property
    def cancelled(self) -> bool:
        return False  # an attempt that is given up is killed

    def __enter__(self) -> _ChildJob:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def report(self, fraction: float, message: str) -> None:
        """Tell the parent; when it no longer listens, nobody is there to know."""
        self._tell(Report(self.id, self._run, fraction, message[:MESSAGE_LIMIT]))

    def keep(self, line: LogLine) -> None:
        """Tell the parent."""
        self._tell(Report(self.id, self._run, line=line))

    def _tell(self, report: Report) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(msgspec.json.encode(report))


class _Printed(io.TextIOBase):
    """What the task prints becomes log lines of its job: anyio closes the streams."""

    def __init__(self, job: _ChildJob, name: str) -> None:
        self._job = job
        self._name = name
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._keep(line)
        return len(text)

    def flush(self) -> None:
        rest, self._rest = self._rest, ""
        if rest:
            self._keep(rest)

    def _keep(self, line: str) -> None:
        now = datetime.now(timezone.utc)
        self._job.keep(LogLine(now, "INFO", self._name, line[:MESSAGE_LIMIT]))
