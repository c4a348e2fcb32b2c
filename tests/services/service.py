"""What all servers of the tests have in common."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

START_TIMEOUT = 60.0


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def need_program(name: str, package: str, *places: str) -> str:
    """Return the path of a program; skip the test if it is missing, but fail it in CI."""
    found = shutil.which(name, path=os.pathsep.join((*places, os.environ.get("PATH", ""))))
    if found is None:
        text = f"{name} is not installed; get it with: apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text, allow_module_level=True)
    return found


class Service(ABC):
    """A server on a free port of the loopback interface, ended by its pid.

    Its data are in ``folder`` and survive a `kill` followed by a `start`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process, in a session of its own."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    def start(self) -> None:
        """Start it, on the same port and data as before; return when it answers."""
        self.process = self.launch()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            assert self.process.poll() is None, f"it ended at once: {self.log()}"
            assert time.monotonic() < deadline, f"no answer: {self.log()}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            return self.is_ready()
        return False

    def pids(self) -> list[int]:
        """The processes that are the server."""
        return [] if self.process is None else [self.process.pid]

    def freeze(self) -> None:
        """Stop it from answering, while its connections stay open (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL), and return when it is gone."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def log(self) -> str:
        """The end of what it has written."""
        path = self.folder / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
