"""The server of `tests.web.servers_app`, of any kind, and what is done to it."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import httpx

from tests.helpers import wait_until
from tests.servers.harness import Kind
from tests.services.web import WebServer

_APP = "tests.web.servers_app:app"
_OURS = re.compile(r"asgi_bg: dashboard| (Follow\w+\.\w+|EventStream\._tell|_disconnect)$")


class Site(WebServer):
    """One with the dashboard below ``/pages``, and the status API below ``/jobs``.

    Args:
        folder: Where its log is.
        kind: The server.
        place: Where its journal is, and what its jobs look at; None for there as well.
    """

    def __init__(self, folder: Path, kind: Kind, place: Path | None = None) -> None:
        env = {"ASGI_BG_SERVERS_TEST": str(place or folder)}
        super().__init__(folder, _APP, "/facts", env)
        self._command = tuple(kind.need().arguments(self.port, _APP, ()))

    # What its jobs do.

    def add(self, kind: str, name: str) -> str:
        """Add a job of a kind, which looks at the file of this name; return its id."""
        response = self.client.post("/add", params={"kind": kind, "name": name})
        assert response.status_code == 200, response.text
        job: str = response.json()
        return job

    def tell(self, name: str, words: str) -> None:
        """Let the job that looks at the file of this name go on."""
        draft = self.folder / f"{name}.draft"
        draft.write_text(words)
        draft.replace(self.folder / name)

    def until(self, job: str, status: str) -> None:
        """Wait until a job stands so."""
        wait_until(lambda: self.state(job)["status"] == status, f"job that has {status}")

    # What is asked of it.

    def state(self, job: str) -> dict[str, Any]:
        """How the status API says that a job stands."""
        response = self.client.get(f"/jobs/{job}")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def confirm(self, path: str, token: str | None = None) -> httpx.Response:
        """Open an action's page and send its form, as a browser does that knows no newer way."""
        page = self.client.get(f"/pages{path}")
        assert page.status_code == 200, page.text
        (given,) = re.findall(r'name="token" value="([^"]*)"', page.text)
        return self.client.post(
            f"/pages{path}", data={"token": token or given}, headers={"origin": self.url}
        )

    def ask(self, path: str, *headers: str) -> socket.socket:
        """Send a request on a connection of its own, and read nothing."""
        lines = (f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers)
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        return connection

    def follow(self, job: str) -> list[socket.socket]:
        """Look at a job in all ways that keep a connection open."""
        return [
            self.ask(f"/jobs/{job}", "Accept: text/event-stream"),
            self.ask(f"/jobs/{job}?wait=60"),
            self.ask(f"/pages/live/job/{job}"),
            self.ask("/pages/live/list"),
            self.ask("/pages/live/overview"),
        ]

    @staticmethod
    def looking(times: int) -> int:
        """How many tasks there are for those who `follow` so many times, and look alike."""
        shared = 3 + 3  # for the followed jobs, and for the views
        return shared + times * (2 + 3 * 2)

    # What is known of it.

    def facts(self) -> dict[str, Any]:
        """Its process, threads and asyncio tasks."""
        response = self.client.get("/facts")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def ours(self) -> list[str]:
        """Its asyncio tasks that are there for somebody who looks."""
        return [one for one in self.facts()["tasks"] if _OURS.search(one)]

    def whole_log(self) -> str:
        """All that it has written."""
        return (self.folder / "log").read_text(errors="replace")
