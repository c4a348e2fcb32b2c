"""The status API under a real server, and clients that follow jobs there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.services.service import Service

DEADLINE = 60.0
ROOT = Path(__file__).parents[2]
APP = "tests.web.status_app:app"
STREAM = {"accept": "text/event-stream"}


class Site(Service):
    """A server of `tests.web.status_app`; its journal survives a restart on the same port."""

    def __init__(self, folder: Path, *options: str, server: str = "uvicorn") -> None:
        super().__init__(folder)
        self.options = options
        self.server = server
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> subprocess.Popen[bytes]:
        bind = (
            ("--port", str(self.port))
            if self.server == "uvicorn"
            else ("--bind", f"127.0.0.1:{self.port}")
        )
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self.server, APP, *bind, *self.options],
                cwd=ROOT,
                env={**os.environ, "ASGI_BG_STATUS_TEST": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        return self.client.get("/facts").status_code == 200

    def pids(self) -> list[int]:
        """Hypercorn serves in a child, which outlives it when it is killed."""
        found = super().pids()
        if found and psutil.pid_exists(found[0]):
            found += [child.pid for child in psutil.Process(found[0]).children(recursive=True)]
        return found

    def kill(self) -> None:
        super().kill()
        self.client.close()

    def stop(self) -> int:
        """End it by SIGTERM, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        self.process = None
        return code

    # What its jobs do.

    def add(self, *names: str) -> list[str]:
        response = self.client.post("/add", params={"names": ",".join(names)})
        assert response.status_code == 200, response.text
        ids: list[str] = response.json()
        return ids

    def tell(self, name: str, words: str) -> None:
        """Have the job of this name report a progress, ``end`` or ``fail``."""
        draft = self.folder / f"{name}.draft"
        draft.write_text(words)
        draft.replace(self.folder / name)

    # What is known of it.

    def facts(self) -> dict[str, Any]:
        response = self.client.get("/facts")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def job(self, id: str) -> dict[str, Any]:
        response = self.client.get(f"/jobs/{id}")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


def events_of(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the events of a stream: the id of each, and what it says."""
    assert response.status_code == 200, response.read()
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    tag = ""
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            tag = value
        elif name == "data":
            yield tag, json.loads(value)
