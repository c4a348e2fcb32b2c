"""How a client of the matrix speaks, whatever the version of HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any, Protocol
from urllib.parse import urlencode

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from wsproto.frame_protocol import FrameProtocol, Opcode

from tests.servers.harness import DEADLINE, Connection, Reply


class Refused(Exception):
    """A handshake for a websocket was answered with another status."""


class Socket(Protocol):
    """An accepted websocket."""

    def text(self) -> str:
        """Wait for a message."""
        ...

    def close(self) -> None:
        """Close it as one does."""
        ...


class Link(ABC):
    """One connection to a server, never opened again by itself."""

    @abstractmethod
    def send(self, path: str, **query: Any) -> None:
        """Send a request, and wait for nothing."""

    @abstractmethod
    def first(self) -> bytes:
        """Wait for the first bytes of the last request's response."""

    @abstractmethod
    def rest(self) -> Reply:
        """Wait for the end of the last request's response."""

    @abstractmethod
    def websocket(self, path: str, **query: Any) -> Socket:
        """Open a websocket.

        Raises:
            Refused: The server does not want it.
        """

    @abstractmethod
    def leave(self) -> None:
        """Close the connection, in the middle of whatever is going on."""

    def get(self, path: str, **query: Any) -> Reply:
        """Make a request, and wait for its response."""
        self.send(path, **query)
        return self.rest()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()


class Http1Link(Link):
    """HTTP/1.1, kept alive."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port)
        self._response: HTTPResponse | None = None
        self._socket: _Http1Socket | None = None

    def send(self, path: str, **query: Any) -> None:
        self._response = None
        self._connection.send(path, **query)

    def first(self) -> bytes:
        self._response = self._connection.head()
        return self._response.read1(1024)

    def rest(self) -> Reply:
        with self._response or self._connection.head() as response:
            return Reply(response.status, response.read())

    def websocket(self, path: str, **query: Any) -> Socket:
        # The library opens a connection of its own.
        self._socket = _Http1Socket(self._connection.port, target(path, query))
        return self._socket

    def leave(self) -> None:
        self._connection.leave()
        if self._socket is not None:
            self._socket.close()


class _Http1Socket:
    def __init__(self, port: int, path: str) -> None:
        self._stack = ExitStack()
        address = f"ws://127.0.0.1:{port}{path}"
        try:
            self._websocket = self._stack.enter_context(
                connect(address, open_timeout=DEADLINE, proxy=None)
            )
        except InvalidStatus as exc:
            raise Refused(exc.response.status_code) from exc

    def text(self) -> str:
        return str(self._websocket.recv(DEADLINE))

    def close(self) -> None:
        self._stack.close()


@dataclass
class Answer:
    """What has come of a response."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    is_over: bool = False


class StreamsLink(Link):
    """A connection of many streams: HTTP/2 or HTTP/3."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self._current = 0

    @abstractmethod
    def open(self, headers: list[tuple[str, str]], *, is_whole: bool) -> int:
        """Begin a stream, and return its number."""

    @abstractmethod
    def write(self, stream: int, data: bytes) -> None:
        """Send data on a stream."""

    @abstractmethod
    def pump(self) -> None:
        """Wait for something to come, and sort it in."""

    @property
    def answer(self) -> Answer:
        """The response of the last request."""
        return self.answers[self._current]

    def send(self, path: str, **query: Any) -> None:
        headers = [(":method", "GET"), *_headers(target(path, query))]
        self._current = self.open(headers, is_whole=True)

    def first(self) -> bytes:
        self.until(lambda: self.answer.body or self.answer.is_over)
        return bytes(self.answer.body)

    def rest(self) -> Reply:
        self.until(lambda: self.answer.is_over)
        return Reply(self.answer.status, bytes(self.answer.body))

    def websocket(self, path: str, **query: Any) -> Socket:
        headers = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            *_headers(target(path, query)),
            ("sec-websocket-version", "13"),
        ]
        self._current = self.open(headers, is_whole=False)
        self.until(lambda: self.answer.status)
        if self.answer.status != 200:
            raise Refused(self.answer.status)
        return _StreamSocket(self, self._current)

    def until(self, condition: Callable[[], Any]) -> None:
        """Take in what comes until something is so."""
        while not condition():
            self.pump()


class _StreamSocket:
    """A websocket within a stream."""

    def __init__(self, link: StreamsLink, stream: int) -> None:
        self._link = link
        self._stream = stream
        self._frames = FrameProtocol(client=True, extensions=[])

    def text(self) -> str:
        body = self._link.answers[self._stream].body
        while True:
            self._link.until(lambda: body)
            self._frames.receive_bytes(bytes(body))
            body.clear()
            for frame in self._frames.received_frames():
                if frame.opcode is Opcode.TEXT:
                    return str(frame.payload)

    def close(self) -> None:
        self._link.write(self._stream, bytes(self._frames.close(1000)))
        answer = self._link.answers[self._stream]
        self._link.until(lambda: answer.body or answer.is_over)


def target(path: str, query: dict[str, Any]) -> str:
    """Return the path with its query."""
    return f"{path}?{urlencode(query, doseq=True)}"


def _headers(path: str) -> list[tuple[str, str]]:
    return [(":scheme", "https"), (":authority", "127.0.0.1"), (":path", path)]
