"""The server of `tests.web.dashboard_app`, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from tests.services.web import WebServer


class Site(WebServer):
    """One with the dashboard below ``/jobs``."""

    def __init__(self, folder: Path, *options: str, server: str = "uvicorn") -> None:
        super().__init__(
            folder,
            "tests.web.dashboard_app:app",
            "/jobs/static/icon.svg",
            {"ASGI_BG_DASHBOARD_TEST": str(folder)},
            server=server,
            options=options,
        )

    def add(self, kind: str, **query: str | int) -> list[str]:
        """Add jobs of a kind, and return their ids."""
        ids: list[str] = self.client.post("/add", params={"kind": kind, **query}).json()
        return ids

    def set_level(self, to: float) -> None:
        """Tell how far the long jobs are."""
        self.client.post("/level", params={"to": to})
