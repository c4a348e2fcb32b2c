"""A client for HTTP/2 without TLS, which both sides know of beforehand."""

from __future__ import annotations

import socket

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from tests.matrix.links import Answer, StreamsLink
from tests.servers.harness import DEADLINE


class Http2Link(StreamsLink):
    """One connection of HTTP/2."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        config = H2Configuration(client_side=True, header_encoding=None)
        self._h2 = H2Connection(config)
        self._is_settled = False
        self._h2.initiate_connection()
        self._flush()
        # Whether there are websockets stands in the settings.
        self.until(lambda: self._is_settled)

    def open(self, headers: list[tuple[str, str]], *, is_whole: bool) -> int:
        stream = self._h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self._h2.send_headers(stream, headers, end_stream=is_whole)
        self._flush()
        return stream

    def write(self, stream: int, data: bytes) -> None:
        self._h2.send_data(stream, data)
        self._flush()

    def pump(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionError("the server has closed the connection")
        for event in self._h2.receive_data(data):
            self._take(event)
        self._flush()

    def _take(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                self._is_settled = True
            case ResponseReceived():
                status = dict(event.headers)[b":status"]
                self.answers[event.stream_id].status = int(status)
            case DataReceived():
                self.answers[event.stream_id].body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self.answers[event.stream_id].is_over = True
            case StreamReset():
                raise ConnectionError(f"the server has reset the stream ({event.error_code})")
            case ConnectionTerminated():
                raise ConnectionError(f"the server has gone away ({event.error_code})")
            case _:
                pass

    def leave(self) -> None:
        self._socket.close()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())
