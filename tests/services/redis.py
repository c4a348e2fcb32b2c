"""A Redis of the tests' own, which keeps on disk what it has acknowledged."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.services.service import Service, need_program


class RedisServer(Service):
    """Redis, with every write synced, so that a killed one comes back with all."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__(folder)
        self._arguments = arguments

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def launch(self) -> subprocess.Popen[bytes]:
        program = need_program("redis-server", "redis-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                (
                    *(program, "--bind", "127.0.0.1", "--port", str(self.port)),
                    *("--dir", str(self.folder), "--save", "", "--daemonize", "no"),
                    *("--appendonly", "yes", "--appendfsync", "always", *self._arguments),
                ),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
