"""Fixtures that start servers and end them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.harness import ALL, SUPERVISING, Kind, Server, in_turn

StartServer = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers for one test alone: ``start(kind, app, *options)``."""
    started: list[Server] = []
    directories = in_turn(tmp_path)

    def start_one(kind: Kind, app: str = "app", *options: str, is_up: bool = True) -> Server:
        server = Server(kind, next(directories), app, *options, is_up=is_up)
        started.append(server)
        return server

    yield start_one
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start a server, or return the one that was started in this way before."""
    shared: dict[tuple[Kind, str, tuple[str, ...]], Server] = {}
    directories = in_turn(tmp_path_factory.mktemp("servers"))

    def share_one(kind: Kind, app: str = "app", *options: str) -> Server:
        found = shared.get((kind, app, options))
        if found is None or not found.is_alive():
            found = shared[kind, app, options] = Server(kind, next(directories), app, *options)
        return found

    yield share_one
    for server in shared.values():
        server.terminate()
    for server in shared.values():
        server.stop()


@pytest.fixture(params=ALL, ids=str)
def server(request: pytest.FixtureRequest, share: StartServer) -> Server:
    """Every server, with everything by default; shared, so leave it as you found it."""
    return share(request.param)


@pytest.fixture(params=SUPERVISING, ids=str)
def supervising(request: pytest.FixtureRequest) -> Kind:
    """Every kind of server that speaks lifespan."""
    kind: Kind = request.param
    return kind.need()
