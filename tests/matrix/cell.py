"""One framework on one server: a process, and what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers import need
from tests.matrix.certificate import write_certificate
from tests.matrix.columns import Column, Row
from tests.matrix.links import Link
from tests.servers.harness import Server


class Cell:
    """One framework on one server.

    Attributes:
        row: The framework.
        column: The server.
        server: The process that serves now.
    """

    def __init__(self, row: Row, column: Column, directory: Path) -> None:
        need(row.module)
        column.kind.need()
        self.row = row
        self.column = column
        self._directory = directory
        write_certificate(directory)
        self._connector = column.connector()
        self.server = self._start()

    def _start(self) -> Server:
        app = f"tests.matrix.apps.{self.row.name}:served"
        return Server(self.column.kind, self._directory, app, *self.column.options)

    def restart(self) -> None:
        """Kill all its processes at once, and start anew on the same journal."""
        self.server.kill()
        self.server = self._start()

    def link(self) -> Link:
        """Open a connection."""
        return self._connector(self.server.port)

    def get(self, path: str, **query: Any) -> bytes:
        """Make one request on a connection of its own."""
        with self.link() as link:
            reply = link.get(path, **query)
        assert reply.status == 200, reply
        return reply.body

    def close(self) -> None:
        """End it."""
        self.server.kill()
