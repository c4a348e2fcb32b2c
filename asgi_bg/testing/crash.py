"""Does my task survive? A real server of one's app, and its real death.

::

    def test_orders_survive(tmp_path):
        journal = tmp_path / "jobs.db"
        with CrashSite("shop.main:app", journal=journal, env={"JOBS": str(journal)}) as site:
            site.kill_at("started")
            job = site.post("/orders", json={"item": 1}).json()["job"]
            site.restart()
            assert site.until_done(job).status == "succeeded"
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_bg._job import JobInfo
from asgi_bg._options import check_seconds
from asgi_bg._rows import info_of
from asgi_bg.events import NAMES
from asgi_bg.exceptions import JobNotFound
from asgi_bg.journal.base import Journal
from asgi_bg.journal.sqlite import SQLiteJournal

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Answer", "CrashSite"]

INTERVAL = 0.01
"""How many seconds lie between two looks at what is waited for."""

LOG_SHOWN = 4_000
"""How many characters of the server's output an error shows."""


class Answer(NamedTuple):
    """A response.

    Attributes:
        status: Its status code.
        body: Its body.
    """

    status: int
    body: bytes

    def json(self) -> Any:
        """Return what the body says as JSON."""
        return json_module.loads(self.body)


class CrashSite:
    """An app, served by uvicorn in a process of its own that can be killed and started again.

    A context manager: the server starts with the block, and is killed with it.

    Args:
        app: Where the app is, as uvicorn takes it: ``"module:name"``.
        journal: The journal that the app uses: its path, or a `Journal` like the app's, as for
            one with keys. The app has to be told of it by yourself, as by ``env``.
        env: Environment variables for the app, beside those of the test.
        cwd: The directory to start in, by default that of the test. The app's module is
            looked for there, and where the test looks for modules.
        factory: Whether the name is that of a function that returns the app.
        timeout: How long anything may take that is waited for, in seconds.

    Attributes:
        port: At which port of the loopback address it serves; another one after each start.
    """

    def __init__(
        self,
        app: str,
        *,
        journal: str | os.PathLike[str] | Journal,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        factory: bool = False,
        timeout: float = 40.0,
    ) -> None:
        check_seconds("timeout", timeout, zero=False)
        is_path = isinstance(journal, (str, os.PathLike))
        self._journal: Journal = SQLiteJournal(journal) if is_path else journal  # type: ignore[arg-type, assignment]
        self._command = (app, "factory" if factory else "app")
        path = os.pathsep.join(filter(None, sys.path))
        self._env = {**os.environ, "PYTHONPATH": path, **(env or {})}
        self._cwd = cwd
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="asgi_bg-")
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    # Its server.

    def kill(self) -> None:
        """Kill the server, by SIGKILL, and wait until it is dead."""
        process = self._running()
        process.kill()
        process.wait()

    def kill_at(self, event: str, task: str | None = None) -> None:
        """Have the server kill itself the next time that something happens to a job.

        It dies within the event, before anything else is done in its thread: at
        ``"started"`` before the first line of the task, at ``"progressed"`` within its
        `current_job().progress(...)`, wherever you put that, at ``"succeeded"`` after its last.
        At ``"queued"`` the request that adds the job gets no answer.

        Args:
            event: What happens, one of `asgi_bg.events.NAMES`.
            task: The name of the task; None for any.

        Raises:
            ValueError: There is no such event.
        """
        if event not in NAMES:
            raise ValueError(f"event must be one of {', '.join(sorted(NAMES))}, got {event!r}")
        self._running()
        self._write("trap", f"{event}\n{task or ''}")

    def stop(self) -> int:
        """Terminate the server, as a deployment does, and return its exit code."""
        process = self._running()
        process.terminate()
        return self._await_end(process)

    def restart(self) -> None:
        """Wait until the server has died, as `kill_at` says, and start it again."""
        if self._process is not None:
            self._await_end(self._process)
        self._start()

    def log(self) -> str:
        """Return what all servers so far have written to their output."""
        path = self._path("log")
        return path.read_text(errors="replace") if path.exists() else ""

    def _start(self) -> None:
        for left in ("port", "trap"):
            self._path(left).unlink(missing_ok=True)
        with self._path("log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - of this very package
                (
                    *(sys.executable, "-m", "asgi_bg.testing._crash_server"),
                    *(*self._command, self._directory.name),
                ),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
            )
        process = self._process
        self._until(
            lambda: self._path("port").exists() or process.poll() is not None, "the server to serve"
        )
        if not self._path("port").exists():
            raise RuntimeError(f"the server has not started; it says:\n{self._last_log()}")
        self.port = int(self._path("port").read_text())

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the server does not run; it says:\n{self._last_log()}")
        return self._process

    def _await_end(self, process: subprocess.Popen[bytes]) -> int:
        try:
            code = process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"the server has not ended within {self._timeout:g} seconds; was it told to, by "
                f"kill() or kill_at(), and has that happened? It says:\n{self._last_log()}"
            ) from None
        self._close_pipe(process)
        return code

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._close_pipe(process)
        self._journal.close()
        self._directory.cleanup()

    @staticmethod
    def _close_pipe(process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()

    # Requests.

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Make a GET request; see `request`."""
        return self.request("GET", path, headers=headers)

    def post(
        self, path: str, *, json: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make a POST request; see `request`.

        Args:
            path: Where to.
            json: What to send, as JSON; None for nothing.
            headers: What headers to send.
        """
        sent = dict(headers or {})
        body = None
        if json is not None:
            body = json_module.dumps(json).encode()
            sent.setdefault("Content-Type", "application/json")
        return self.request("POST", path, body=body, headers=sent)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make a request, on a connection of its own, and read the response to its end.

        Raises:
            ConnectionError: The server has died before the end.
        """
        connection = HTTPConnection("127.0.0.1", self.port, timeout=self._timeout)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body, dict(headers or {}))
                response = connection.getresponse()
                return Answer(response.status, response.read())
            except HTTPException as exc:
                raise ConnectionError(f"the server has died within {method} {path}") from exc

    # Jobs, as the journal has them.

    def jobs(self, limit: int = 100) -> list[JobInfo]:
        """Return the jobs in the journal, the newest first, whether a server runs or not."""
        return [info_of(row) for row in self._journal.find(None, None, None, limit)]

    def job(self, id: str) -> JobInfo:
        """Return one of them.

        Raises:
            JobNotFound: There is none of that id.
        """
        row = self._journal.get(id)
        if row is None:
            raise JobNotFound(f"no job {id!r} is in the journal {self._journal.path}")
        return info_of(row)

    def until_done(self, id: str) -> JobInfo:
        """Wait until a job has ended, however, and return it.

        Raises:
            JobNotFound: There is none of that id.
            TimeoutError: It has not ended in time.
        """
        self._until(lambda: self.job(id).status.is_final, f"job {id} to end")
        return self.job(id)

    def until_all_done(self) -> list[JobInfo]:
        """Wait until all jobs have ended, however, and return them, the newest first.

        Raises:
            TimeoutError: They have not ended in time.
        """

        def is_done() -> bool:
            counts = self._journal.counts()
            return not (counts["queued"] or counts["running"])

        self._until(is_done, "all jobs to end")
        return self.jobs()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not condition():
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"waited {self._timeout:g} seconds in vain for {what}; the server says:\n"
                    f"{self._last_log()}"
                )
            time.sleep(INTERVAL)

    def _last_log(self) -> str:
        return self.log()[-LOG_SHOWN:]

    def _path(self, name: str) -> Path:
        return Path(self._directory.name, name)

    def _write(self, name: str, text: str) -> None:
        """Write a file that is read by the server at any moment."""
        written = self._path(f"{name}.new")
        written.write_text(text)
        written.replace(self._path(name))
