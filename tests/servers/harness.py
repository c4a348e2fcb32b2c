"""Real servers in processes of their own, and clients that misbehave on purpose."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from tests.helpers import need
from tests.services.service import free_port

DEADLINE = 40.0
"""How long anything may take that is waited for; far more than it needs on an idle machine."""

POLL_INTERVAL = 0.01

ROOT = Path(__file__).parent.parent.parent

_numbers = itertools.count(1)


def unique(name: str = "call") -> str:
    """Return an id that no other request has."""
    return f"{name}-{next(_numbers)}"


@dataclass(frozen=True)
class Kind:
    """A server that is installed here, and how to start it.

    Attributes:
        name: What the tests call it.
        modules: What must be importable.
        command: The arguments of the interpreter, but for the address and the app.
        bind: The arguments for the address, with a place for the port.
        has_lifespan: Whether it speaks lifespan, so that jobs are supervised (R6).
        exit_code: How it ends after SIGTERM.
    """

    name: str
    modules: tuple[str, ...]
    command: tuple[str, ...]
    bind: tuple[str, ...]
    has_lifespan: bool = True
    exit_code: int = 0

    def __str__(self) -> str:
        return self.name

    def need(self) -> Kind:
        for module in self.modules:
            need(module)
        return self

    def arguments(self, port: int, app: str, options: tuple[str, ...]) -> list[str]:
        bind = [argument.format(port=port) for argument in self.bind]
        target = app if ":" in app else f"apps:{app}"
        return [sys.executable, *self.command, *bind, *options, target]


_UVICORN_BIND = ("--host", "127.0.0.1", "--port", "{port}")

# Idle connections are kept for longer than by default, as a busy machine may stop us for long.
UVICORN = Kind(
    "uvicorn-h11",
    ("uvicorn", "h11"),
    ("-m", "uvicorn", "--http", "h11", "--timeout-keep-alive", "60"),
    _UVICORN_BIND,
    exit_code=-signal.SIGTERM,
)
UVICORN_HTTPTOOLS = Kind(
    "uvicorn-httptools",
    ("uvicorn", "httptools"),
    ("-m", "uvicorn", "--http", "httptools", "--timeout-keep-alive", "60"),
    _UVICORN_BIND,
    exit_code=-signal.SIGTERM,
)
HYPERCORN = Kind(
    "hypercorn",
    ("hypercorn",),
    ("-m", "hypercorn", "--keep-alive", "60"),
    ("--bind", "127.0.0.1:{port}"),
)
# Granian and daphne as their console scripts start them. Their `__main__` starts a server
# whenever it is imported, and worker processes import the main module.
GRANIAN = Kind(
    "granian",
    ("granian",),
    ("-c", "from granian.cli import entrypoint; entrypoint()", "--interface", "asgi"),
    ("--host", "127.0.0.1", "--port", "{port}"),
)
DAPHNE = Kind(
    "daphne",
    ("daphne",),
    ("-c", "from daphne.cli import CommandLineInterface; CommandLineInterface.entrypoint()"),
    ("-b", "127.0.0.1", "-p", "{port}"),
    has_lifespan=False,
)

SUPERVISING = [UVICORN, UVICORN_HTTPTOOLS, HYPERCORN, GRANIAN]
ALL = [*SUPERVISING, DAPHNE]


class Server:
    """One running server, and the record of what happens in it.

    Attributes:
        kind: Which one it is.
        port: Where it listens, on the loopback interface.
    """

    def __init__(
        self, kind: Kind, directory: Path, app: str = "app", *options: str, is_up: bool = True
    ) -> None:
        self.kind = kind.need()
        self._directory = directory
        self._app = app
        self._options = options
        self._read = 0
        self._events: list[dict[str, Any]] = []
        for _ in range(3):
            self._start()
            try:
                if not is_up or self._is_accepting():
                    return
            except BaseException:
                self.kill()
                raise
            # It has ended: most likely another process was faster to take the port.
        pytest.fail(f"{kind} does not come up\n{self.report()}")

    def _start(self) -> None:
        self.port = free_port()
        environment = {
            **os.environ,
            "ASGI_BG_SERVER_TEST": str(self._directory),
            "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{ROOT}",
            "PYTHONUNBUFFERED": "1",
        }
        with open(self._directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                self.kind.arguments(self.port, self._app, self._options),
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _is_accepting(self) -> bool:
        """Wait until it accepts connections; False if it ends instead."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    pytest.fail(f"{self.kind} does not accept connections\n{self.report()}")
                time.sleep(POLL_INTERVAL)
            else:
                return True
        return False

    # What it is told.

    def open(self, gate: str) -> None:
        """Let whoever waits for this gate go on: ``ID.app``, ``ID.task`` or another name."""
        (self._directory / gate).touch()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and all processes that it has started, at once."""
        for pid in self._group():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and make sure that it does."""
        if self.is_alive():
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.kill()

    def _group(self) -> list[int]:
        """Its processes that are alive, however they descend from it."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    os.getpgid(process.pid) == self.process.pid
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process.pid)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        return found

    # What is known of it.

    def log(self) -> str:
        """All that it has written."""
        return (self._directory / "server.log").read_text(errors="replace")

    def events(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """What has been recorded so far, in order; all, or what matches."""
        with open(self._directory / "record.jsonl", "a+b") as file:
            file.seek(self._read)
            written = file.read()
        # A line that is just being written has no end yet, so it is read the next time.
        whole = written[: written.rfind(b"\n") + 1]
        self._read += len(whole)
        self._events += map(json.loads, whole.splitlines())
        return [
            found
            for found in self._events
            if event in (None, found["event"]) and fields.items() <= found.items()
        ]

    def story(self, id: str) -> list[str]:
        """The names of the events of one request, in order."""
        return [found["event"] for found in self.events(id=id)]

    def has(self, event: str, **fields: Any) -> bool:
        """Whether that has happened."""
        return bool(self.events(event, **fields))

    def at(self, event: str, **fields: Any) -> float:
        """Wait for something to happen, and return when it first did, in monotonic seconds."""
        self.until(lambda: self.has(event, **fields), f"{event} {fields or ''}")
        found: float = self.events(event, **fields)[0]["at"]
        return found

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until something is so, or fail and show what the server has said and done."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{self.kind}: no {what} in {DEADLINE} seconds\n{self.report()}")
            time.sleep(POLL_INTERVAL)

    def until_ended(self, call: str, count: int) -> None:
        """Wait until so many tasks of a request have ended."""
        self.until(
            lambda: len(self.events("task-ended", id=call)) == count, f"end of {count} tasks"
        )

    def until_logged(self, text: str) -> None:
        """Wait until the log has this text."""
        self.until(lambda: text in self.log(), f"log line with {text!r}")

    def exit_code(self) -> int:
        """Wait until it has ended by itself, with all its processes."""
        self.until(lambda: self.process.poll() is not None, "end of the process")
        self.until(lambda: not self._group(), "end of its child processes")
        code: int = self.process.returncode
        return code

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def report(self) -> str:
        """The end of the log and of the record."""
        events = "\n".join(str(found) for found in self.events()[-60:])
        return f"--- its log\n{self.log()[-8000:]}\n--- the record\n{events}"

    # What is asked of it.

    def connect(self) -> Connection:
        return Connection(self.port)

    def get(self, path: str, **query: Any) -> Reply:
        """Make one request on a connection of its own."""
        with self.connect() as connection:
            return connection.get(path, **query)

    def settle(self) -> None:
        """Return when whatever was to run at once before this call has been started.

        Jobs start in the order in which their requests end.
        """
        call = unique("settle")
        self.get("/plain", id=call, task=["async", "sync"])
        self.until_ended(call, 2)


@dataclass(frozen=True)
class Reply:
    """A whole response."""

    status: int
    body: bytes


class Connection:
    """A client's HTTP/1.1 connection, kept alive, and never opened again by itself."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._response: http.client.HTTPResponse | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def send(self, path: str, **query: Any) -> None:
        """Send a request, and wait for nothing."""
        target = f"{path}?{urlencode(query, doseq=True)}"
        host = f"127.0.0.1:{self.port}"
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    def head(self) -> http.client.HTTPResponse:
        """Read the head of the response."""
        self._response = http.client.HTTPResponse(self.socket, method="GET")
        self._response.begin()
        return self._response

    def read(self) -> Reply:
        """Read the whole response, to its last byte."""
        with self.head() as response:
            return Reply(response.status, response.read())

    def get(self, path: str, **query: Any) -> Reply:
        self.send(path, **query)
        return self.read()

    def is_closed_by_server(self) -> bool:
        """Wait until the server closes the connection; False if it does not."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def leave(self) -> None:
        """Close the connection, in the middle of whatever is going on."""
        if self._response is not None:
            self._response.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave with a TCP reset instead of a goodbye."""
        reset_on_close(self.socket)
        self.leave()


def reset_on_close(sock: socket.socket) -> None:
    """Make closing this socket reset the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Leave = Callable[[Connection], None]

leaving = pytest.mark.parametrize(
    "leave", [Connection.leave, Connection.reset], ids=["close", "reset"]
)


def http2_request(server: Server, path: str) -> socket.socket:
    """Send a request over HTTP/2 without TLS, which both sides know of beforehand."""
    connection = need("h2.connection").H2Connection(
        config=need("h2.config").H2Configuration(client_side=True)
    )
    connection.initiate_connection()
    headers = {":method": "GET", ":path": path, ":authority": "127.0.0.1", ":scheme": "http"}
    connection.send_headers(1, list(headers.items()), end_stream=True)
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    sock.sendall(connection.data_to_send())
    return sock


def in_turn(directory: Path) -> Iterator[Path]:
    """Directories below this one, each of them new."""
    for number in itertools.count():
        found = directory / str(number)
        found.mkdir()
        yield found
