"""What Celery knows of a job: in its result backend, and in its workers. It blocks."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from asgi_bg._job import JobStatus
from asgi_bg.engines._celery_api import DisabledBackend, RPCBackend, backend_by_url
from asgi_bg.engines._celery_publisher import connect, connection_of, shut_down
from asgi_bg.engines._celery_reports import report_of
from asgi_bg.engines.base import Report

REPLY_TIMEOUT = 1.0
"""How long workers have to answer, in seconds, where ``timeout`` leaves them as much."""


def keeps_results(app: Any) -> bool:
    """Whether an app has a result backend that other processes can ask."""
    backend, _ = backend_by_url(app.backend_cls or app.conf.result_backend, app.loader)
    return not issubclass(backend, (DisabledBackend, RPCBackend))


class Inquiry:
    """Asks Celery's result backend and its workers, over connections of its own.

    Everything but `interrupt` is called in one thread.

    Args:
        app: The Celery app.
        timeout: How long the network may take for anything, in seconds.
    """

    def __init__(self, app: Any, timeout: float) -> None:
        self._app = app
        self._timeout = timeout
        self._wait = min(REPLY_TIMEOUT, timeout / 4)
        self._backend: Any = None
        self._connection: Any = None

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.release()
            self._connection = None
        self._disconnect_backend()
        self._backend = None

    def interrupt(self) -> None:
        """Shut the connections down under a call that waits for one; from any thread."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Exception):
                shut_down(connection)
        self._disconnect_backend()

    def _disconnect_backend(self) -> None:
        """Close the sockets of Redis; other backends have no way to it in common."""
        pool = getattr(getattr(self._backend, "client", None), "connection_pool", None)
        if pool is not None:
            with contextlib.suppress(Exception):
                pool.disconnect()

    def fetch(self, id: str) -> Report | None:
        """Return what the result backend knows of a job."""
        if self._backend is None:
            self._backend = _backend_of(self._app, self._timeout)
        meta: dict[str, Any] = self._backend.get_task_meta(id, cache=False)
        return report_of(meta)

    def revoke(self, id: str, is_kept: bool) -> bool:
        """Have the workers drop a job that has not started; return whether one says it will.

        Args:
            id: The job's.
            is_kept: Whether the result backend can be asked how it stands.
        """
        report = self.fetch(id) if is_kept else None
        if report is not None and report.status is not JobStatus.queued:
            return report.status is JobStatus.cancelled
        if self._connection is None:
            self._connection = connection_of(self._app, self._timeout)
            connect(self._connection)
        held, workers = self._ask(id, None)
        if held is not None and (held.is_active or not self._can_drop(held.worker)):
            # Workers would note it down as revoked all the same, and go on with it.
            return False
        control = self._app.control
        if not workers:
            control.revoke(id, connection=self._connection)
            return False
        replies = control.revoke(
            id, connection=self._connection, reply=True, timeout=self._wait, limit=workers
        )
        now, _ = self._ask(id, workers)
        if now is not None and now.is_active:
            return False  # it has started in between
        if held is not None:
            return any(held.worker in reply for reply in replies)
        # One that no worker has begun with may wait at the broker, or be done since long.
        report = self.fetch(id) if is_kept else None
        return report is not None and report.status is JobStatus.cancelled

    def _ask(self, id: str, workers: int | None) -> tuple[_Held | None, int]:
        """Return which worker holds a job, if one does, and how many workers have answered.

        Args:
            id: The job's.
            workers: How many are waited for; None for as many as answer in time.
        """
        answers: dict[str, dict[str, Any]] = self._inspect(limit=workers).query_task(id) or {}
        found = [
            _Held(worker, answer[id][0] == "active")
            for worker, answer in answers.items()
            if id in answer
        ]
        return max(found, key=lambda held: held.is_active, default=None), len(answers)

    def _can_drop(self, worker: str) -> bool:
        """Whether a worker can still drop what it has taken from the broker.

        Only its pool of processes takes jobs one by one; the others are given all at once.
        """
        answers: dict[str, dict[str, Any]]
        answers = self._inspect(destination=[worker], limit=1).stats() or {}
        pool: dict[str, str] = answers.get(worker, {}).get("pool", {})
        return "prefork" in pool.get("implementation", "")

    def _inspect(self, **options: Any) -> Any:
        return self._app.control.inspect(connection=self._connection, timeout=self._wait, **options)


class _Held(NamedTuple):
    worker: str
    is_active: bool


def _backend_of(app: Any, timeout: float) -> Any:
    """Return a result backend as the app's own, but one that does not wait for ever."""
    backend_type, url = backend_by_url(app.backend_cls or app.conf.result_backend, app.loader)
    backend = backend_type(app=app, url=url)
    # Left as it is stored: its class may not be known here, or take other arguments.
    backend.exception_to_python = _as_stored
    parameters = getattr(backend, "connparams", None)
    if isinstance(parameters, dict):  # Redis, whose own limit is two minutes
        for name in ("socket_timeout", "socket_connect_timeout"):
            if name in parameters:
                parameters[name] = timeout
    return backend


def _as_stored(error: Any) -> Any:
    return error
