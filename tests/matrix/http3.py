"""A client for HTTP/3, over a UDP socket that blocks."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamReset

from tests.matrix.links import Answer, StreamsLink
from tests.servers.harness import DEADLINE


class Http3Link(StreamsLink):
    """One connection of HTTP/3; the server's certificate is taken as it is."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._address = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._is_connected = False
        config = QuicConfiguration(
            is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE
        )
        config.server_name = "localhost"
        self._quic = QuicConnection(configuration=config)
        self._h3 = H3Connection(self._quic)
        self._quic.connect(self._address, now=time.monotonic())
        self._flush()
        try:
            self.until(lambda: self._is_connected)
        except BaseException:
            self._socket.close()
            raise

    def open(self, headers: list[tuple[str, str]], *, is_whole: bool) -> int:
        stream = self._quic.get_next_available_stream_id()
        self.answers[stream] = Answer()
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        self._h3.send_headers(stream, encoded, end_stream=is_whole)
        self._flush()
        return stream

    def write(self, stream: int, data: bytes) -> None:
        self._h3.send_data(stream, data, end_stream=False)
        self._flush()

    def pump(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while True:
            self._wait_until(deadline)
            try:
                data, address = self._socket.recvfrom(65_536)
            except TimeoutError:
                self._ring(deadline)
                continue
            self._quic.receive_datagram(data, address, now=time.monotonic())
            self._take_all()
            return

    def _wait_until(self, deadline: float) -> None:
        timer = self._quic.get_timer()
        until = deadline if timer is None else min(timer, deadline)
        self._socket.settimeout(max(0.001, until - time.monotonic()))

    def _ring(self, deadline: float) -> None:
        """Do what is due, as nothing has come."""
        now = time.monotonic()
        timer = self._quic.get_timer()
        # It takes it badly to be asked when nothing is due.
        if timer is not None and now >= timer:
            self._quic.handle_timer(now=now)
            self._take_all()
        if now > deadline:
            raise TimeoutError(f"the server has said nothing for {DEADLINE} seconds")

    def _take_all(self) -> None:
        while (event := self._quic.next_event()) is not None:
            self._take(event)
        self._flush()

    def _take(self, event: QuicEvent) -> None:
        match event:
            case HandshakeCompleted():
                self._is_connected = True
            case ConnectionTerminated():
                raise ConnectionError(f"the server has gone away ({event.reason_phrase})")
            case StreamReset():
                raise ConnectionError(f"the server has reset the stream ({event.error_code})")
            case _:
                pass
        for found in self._h3.handle_event(event):
            self._sort_in(found)

    def _sort_in(self, event: H3Event) -> None:
        match event:
            case HeadersReceived():
                answer = self.answers[event.stream_id]
                answer.status = int(dict(event.headers)[b":status"])
                answer.is_over = event.stream_ended
            case DataReceived():
                answer = self.answers[event.stream_id]
                answer.body += event.data
                answer.is_over = event.stream_ended
            case _:
                pass

    def leave(self) -> None:
        self._quic.close()
        with contextlib.suppress(OSError):
            self._flush()
        self._socket.close()

    def _flush(self) -> None:
        for data, address in self._quic.datagrams_to_send(now=time.monotonic()):
            self._socket.sendto(data, address)
