"""Real servers for the applications of this folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.harness import UVICORN, Kind, Server

Start = Callable[..., Server]
"""Start a server; which kind, uvicorn by default, can be told."""


@contextmanager
def servers_of(app: str, directory: Path) -> Iterator[Start]:
    """Start servers of an app, one after the other, all on the same journal and record.

    They are ended at the end of the block, whatever happens in it.
    """
    started: list[Server] = []

    def start(kind: Kind = UVICORN) -> Server:
        started.append(Server(kind, directory, app))
        return started[-1]

    try:
        yield start
    finally:
        for server in started:
            server.stop()


def get_json(server: Server, path: str, **query: Any) -> Any:
    """Make a request, and return what its JSON says."""
    reply = server.get(path, **query)
    assert reply.status == 200, (reply, server.report())
    return json.loads(reply.body)
