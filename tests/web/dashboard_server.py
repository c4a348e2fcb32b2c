"""The server of `tests.web.dashboard_app`, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.services.service import Service

DEADLINE = 60.0
ROOT = Path(__file__).parents[2]
APP = "tests.web.dashboard_app:app"


class Site(Service):
    """One on a free port; its journal survives a restart on the same port."""

    def __init__(self, folder: Path, server: str = "uvicorn", *options: str) -> None:
        super().__init__(folder)
        self._server = server
        self._options = options
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> subprocess.Popen[bytes]:
        is_uvicorn = self._server == "uvicorn"
        bind = ["--port", str(self.port)] if is_uvicorn else ["--bind", f"127.0.0.1:{self.port}"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self._server, APP, *bind, *self._options],
                cwd=ROOT,
                env={**os.environ, "ASGI_BG_DASHBOARD_TEST": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        return self.client.get("/jobs/static/icon.svg").status_code == 200

    def add(self, kind: str, **query: Any) -> list[str]:
        """Add jobs of a kind, and return their ids."""
        ids: list[str] = self.client.post("/add", params={"kind": kind, **query}).json()
        return ids

    def set_level(self, to: float) -> None:
        """Tell how far the long jobs are."""
        self.client.post("/level", params={"to": to})

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Ask it to end, and return how many seconds that took."""
        assert self.process is not None
        start = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(DEADLINE)
        self.process = None
        return time.monotonic() - start

    def close(self) -> None:
        """End it, whatever it does, and the client."""
        self.kill()
        self.client.close()
