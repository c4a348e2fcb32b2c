"""The way back from worker processes while a call runs: progress and log lines.

A datagram socket in a directory of the user's own: no connection and no lock, so that a
worker killed in the middle of anything harms nobody; and JSON, so that nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path

import msgspec

from asgi_bg._execution._child import Report
from asgi_bg._execution.attempt import Attempt

logger = logging.getLogger("asgi_bg")

_decoder = msgspec.json.Decoder(Report)


class Reports:
    """Hears what the worker processes of one event loop tell of their jobs."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._directory: Path | None = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def of(self, attempt: Attempt) -> Generator[str | None]:
        """Listen for a job's attempt, and give the address; None without such sockets."""
        if self._socket is None and hasattr(socket, "AF_UNIX"):
            self._open()
        key = (attempt.id, attempt.run)
        self._attempts[key] = attempt
        try:
            yield None if self._directory is None else str(self._directory / "reports")
        finally:
            self._read()
            del self._attempts[key]

    def _open(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="asgi_bg-"))  # for this user alone
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._directory / "reports"))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        while self._socket is not None:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            try:
                self._deliver(_decoder.decode(data))
            except msgspec.DecodeError:
                logger.warning("a worker process sent a report that is none: %.100r", data)

    def _deliver(self, report: Report) -> None:
        attempt = self._attempts.get((report.id, report.run))
        if attempt is None:
            return
        if report.line is not None:
            attempt.keep(report.line)
        elif report.fraction is not None:
            attempt.report(report.fraction, report.message)
        else:
            attempt.begin()
            attempt.announce()

    def close(self) -> None:
        """Stop to listen, and remove the socket."""
        if self._socket is None or self._loop is None or self._directory is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None
