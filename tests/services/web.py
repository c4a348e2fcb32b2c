"""A web server of ours in a process of its own, and a client of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil

from tests.services.service import Service

DEADLINE = 60.0
ROOT = Path(__file__).parents[2]


class WebServer(Service):
    """An app on a free port; what it keeps survives a restart on the same port.

    Args:
        folder: Where its log is.
        app: The app, as ``module:name``.
        ready_path: A path that it answers with 200.
        env: Environment variables for it, beside those of the test.
        server: The module of the server.
        options: More arguments for the server.

    Attributes:
        client: Makes requests to it.
    """

    def __init__(
        self,
        folder: Path,
        app: str,
        ready_path: str,
        env: Mapping[str, str],
        *,
        server: str = "uvicorn",
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder)
        bind = {
            "uvicorn": ("--port", f"{self.port}"),
            "hypercorn": ("--bind", f"127.0.0.1:{self.port}"),
        }
        self._command = (sys.executable, "-m", server, app, *bind[server], *options)
        self._env = {**os.environ, **env}
        self._ready_path = ready_path
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        return self.client.get(self._ready_path).status_code == 200

    def log(self) -> str:
        """All that it has written."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def pids(self) -> list[int]:
        """Hypercorn serves in a child, which outlives it when it is killed."""
        found = super().pids()
        if found and psutil.pid_exists(found[0]):
            found += [child.pid for child in psutil.Process(found[0]).children(recursive=True)]
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, wait until it has, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self.process = None
        return code

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self.client.close()
