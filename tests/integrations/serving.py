"""Real servers for the sites of this folder; for Django, Falcon and BlackSheep alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.harness import DAPHNE, UVICORN, Kind, Server

ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Site(Kind):
    """A server, and which application it is to serve.

    Attributes:
        target: The application, as ``module:name``.
    """

    target: str = field(default="", kw_only=True)

    def arguments(self, port: int, app: str, options: tuple[str, ...]) -> list[str]:
        bind = [argument.format(port=port) for argument in self.bind]
        return [sys.executable, *self.command, *bind, *options, self.target]


def uvicorn(target: str) -> Site:
    """Uvicorn, serving a site."""
    start = f"import sys; sys.path.insert(0, {ROOT!r}); import uvicorn; uvicorn.main()"
    return Site(
        UVICORN.name,
        UVICORN.modules,
        ("-c", start, "--timeout-keep-alive", "60"),
        UVICORN.bind,
        exit_code=UVICORN.exit_code,
        target=target,
    )


def daphne(target: str) -> Site:
    """Daphne, serving a site; it speaks no lifespan."""
    start = f"import sys; sys.path.insert(0, {ROOT!r}); {DAPHNE.command[1]}"
    return Site(
        DAPHNE.name, DAPHNE.modules, ("-c", start), DAPHNE.bind, has_lifespan=False, target=target
    )


def get_json(server: Server, path: str, **query: Any) -> Any:
    """Make a request, and return what its JSON says."""
    reply = server.get(path, **query)
    assert reply.status == 200, (reply, server.report())
    return json.loads(reply.body)


@contextmanager
def running(site: Site, directory: Path) -> Iterator[Server]:
    """A server, which is ended at the end of the block, whatever happens in it."""
    server = Server(site, directory)
    try:
        yield server
    finally:
        server.stop()
