"""The status API under a real server, and clients that follow jobs there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.services.web import WebServer
from tests.web.events import events_in


class Site(WebServer):
    """A server of `tests.web.status_app`."""

    def __init__(self, folder: Path, *options: str, server: str = "uvicorn") -> None:
        super().__init__(
            folder,
            "tests.web.status_app:app",
            "/facts",
            {"ASGI_BG_STATUS_TEST": str(folder)},
            server=server,
            options=options,
        )

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
    return events_in(response.iter_lines())
