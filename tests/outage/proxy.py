"""A network between two programs that can be cut, frozen, slow, or unreliable."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK = 64 * 1024

_RESET = struct.pack("ii", 1, 0)
"""Linger for no time: what is closed so is reset."""


class Proxy:
    """Passes TCP connections on to a port of the loopback interface, from one of its own.

    It works in a thread of its own, from the begin of a ``with`` to its end.

    Args:
        target: The port that connections go on to.
        seed: Of the choice which connections are dropped.

    Attributes:
        port: Where it listens; that stays the same.
        delay: For how many seconds each piece of data is on its way, in each direction.
        drop_chance: How likely each piece of data is to have its connection reset instead.
        dropped: How many connections were reset so.
    """

    def __init__(self, target: int, seed: int = 1) -> None:
        self.port = 0
        self.delay = 0.0
        self.drop_chance = 0.0
        self.dropped = 0
        self._target = target
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._call(self._cut())

    def mend(self) -> None:
        """Take connections again, after `cut`."""
        self._call(self._listen())

    def freeze(self) -> None:
        """Pass nothing on, while connections stay open and new ones are accepted."""
        self._loop.call_soon_threadsafe(self._moving.clear)

    def thaw(self) -> None:
        """Go on, with all that has come meanwhile."""
        self._loop.call_soon_threadsafe(self._moving.set)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._begin())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _begin(self) -> None:
        self._moving = asyncio.Event()
        self._moving.set()
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, limit=CHUNK
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.reset()

    async def _end(self) -> None:
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection()
        connection.add(writer)
        self._connections.add(connection)
        try:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self._target, limit=CHUNK
            )
            connection.add(far_writer)
            await asyncio.gather(
                self._pass_on(reader, far_writer, connection),
                self._pass_on(far_reader, writer, connection),
            )
        except (OSError, asyncio.CancelledError):
            connection.reset()  # as the other side has, or refused it
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        """Pass on what goes in one direction, to its end."""
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.ensure_future(self._arrive(on_its_way, writer))
        try:
            data = b" "
            while data and not arriving.done():
                data = await reader.read(CHUNK)
                if self._rng.random() < self.drop_chance:
                    self.dropped += 1
                    connection.reset()
                    return
                on_its_way.put_nowait((self._loop.time() + self.delay, data))
            await arriving
        finally:
            arriving.cancel()

    async def _arrive(
        self, on_its_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await on_its_way.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._moving.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


class _Connection:
    """The two halves of a connection."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []
        self._is_reset = False

    def add(self, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self._is_reset:
            self.reset()

    def reset(self) -> None:
        """End it so that both programs see an error."""
        self._is_reset = True
        for writer in self._writers:
            with contextlib.suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET
                )
            writer.transport.abort()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.close()
