"""The engine's connections to Procrastinate's tables, and those of a worker in its process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from procrastinate import App, PsycopgConnector
from procrastinate.connector import BaseAsyncConnector
from psycopg import AsyncConnection, AsyncCursor, Error
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

__all__ = ["Line", "Opening"]

T = TypeVar("T")

Connection = AsyncConnection[Any]


class Line(BaseAsyncConnector):
    """A connector for a `procrastinate.manager.JobManager`, with a connection of its own.

    A connection that comes from a pool goes back to it when a call is cancelled, and psycopg
    asks the server first to let go of the call. A server that is frozen does not answer that
    either. Here the connection is cut instead, and nobody waits.

    Unlike Procrastinate's own connectors it raises the errors of psycopg as they are.

    Args:
        connector: Knows where PostgreSQL is, and how values become JSON; its own connections
            are left alone.
    """

    def __init__(self, connector: PsycopgConnector) -> None:
        self._connector = connector
        self._dumps: Any = getattr(connector, "_json_dumps", None)
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def connect(self) -> None:
        """Connect, unless that is so already."""
        await self._connected()

    def drop(self) -> None:
        """Cut the connection; calls that wait for it fail. The next call makes another one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.lock.locked():
            _cut(connection)  # whoever waits for it closes it
        else:
            connection.pgconn.finish()

    async def execute_query_async(self, query: str, **arguments: Any) -> None:
        await self._execute(query, arguments, _nothing)

    async def execute_query_one_async(self, query: str, **arguments: Any) -> dict[str, Any]:
        found = await self._execute(query, arguments, AsyncCursor[DictRow].fetchone)
        return cast("dict[str, Any]", found)

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]:
        return await self._execute(query, arguments, AsyncCursor[DictRow].fetchall)

    async def _execute(
        self,
        query: str,
        arguments: dict[str, Any],
        fetch: Callable[[AsyncCursor[DictRow]], Awaitable[T]],
    ) -> T:
        connection = await self._connected()
        values = {name: self._as_sql(value) for name, value in arguments.items()}

        async def execute() -> T:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(cast("Any", query), values)
                return await fetch(cursor)

        try:
            return await _patiently(connection, execute())
        except asyncio.CancelledError:
            if self._connection is connection:
                self._connection = None
            raise

    def _as_sql(self, value: Any) -> Any:
        if isinstance(value, dict):
            return Jsonb(value, dumps=self._dumps)
        if isinstance(value, list):
            return [self._as_sql(part) for part in cast("Any", value)]
        if isinstance(value, tuple):  # also a named one, which psycopg would not take
            return tuple(self._as_sql(part) for part in cast("Any", value))
        return value

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # What was opened in a loop that has ended is of no use any more.
            self._loop, former, self._connection = loop, self._connection, None
            if former is not None:
                former.pgconn.finish()
        if self._connection is not None and not _is_alive(self._connection):
            self.drop()
        if self._connection is None:
            made = await _connect(self._connector)
            if self._connection is None:
                self._connection = made
            else:
                made.pgconn.finish()  # another call was faster
        return self._connection


class Opening:
    """Has an app open as long as a worker runs in the process of its owner.

    Args:
        app: The app.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._pool: Any = None
        self._closing: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Open the app, unless its owner has; then it is closed in the end."""
        connector = self._app.connector
        await self._closed(connector)
        if _pool_of(connector) is not None:
            yield
            return
        try:
            await connector.open_async()
            yield
        finally:
            self._pool = _pool_of(connector)
            self._closing = asyncio.get_running_loop().create_task(connector.close_async())
            # Broken off, it would leave tasks behind that do not heed a cancellation.
            await asyncio.shield(self._closing)

    async def _closed(self, connector: Any) -> None:
        """Wait until what was opened before is closed."""
        closing = self._closing
        if closing is not None and closing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((closing,))
        if self._pool is not None and _pool_of(connector) is self._pool:
            connector._async_pool = None  # noqa: SLF001 - its loop ended before it was closed


def _pool_of(connector: object) -> Any:
    """Return the pool of a connector that is open; None if it is not."""
    return getattr(connector, "_async_pool", None)


async def _connect(connector: PsycopgConnector) -> Connection:
    """Connect as the pool of a connector would."""
    pool: Any = _pool_of(connector) or _pool_like(connector)
    where = await _resolved(pool.conninfo)
    options: dict[str, Any] = await _resolved(pool.kwargs) or {}
    made: Connection = await pool.connection_class.connect(where, **{**options, "autocommit": True})
    if pool._configure is not None:  # noqa: SLF001
        try:
            await _patiently(made, pool._configure(made))  # noqa: SLF001
        except Exception:
            made.pgconn.finish()
            raise
    return made


def _pool_like(connector: PsycopgConnector) -> AsyncConnectionPool[Any]:
    """Return a pool as the connector would make it, only to see what is in it."""
    return connector._pool_factory(**connector._pool_args, open=False)  # noqa: SLF001


async def _resolved(value: Any) -> Any:
    """Return what a pool is given, which may be a function that knows it."""
    if callable(value):
        value = value()
    return await value if inspect.isawaitable(value) else value


async def _patiently(connection: Connection, call: Coroutine[Any, Any, T]) -> T:
    """Await a call; if that is cancelled, cut the connection and leave the call to its end."""
    calling = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        calling.add_done_callback(lambda over: _bury(connection, over))
        _cut(connection)
        raise


def _bury(connection: Connection, call: asyncio.Future[Any]) -> None:
    if not call.cancelled():
        call.exception()  # seen, so that asyncio does not speak of it
    connection.pgconn.finish()


def _is_alive(connection: Connection) -> bool:
    """Whether nobody has closed it, as far as this side has heard."""
    if connection.lock.locked():
        return True  # who uses it will find out
    with contextlib.suppress(Error):
        for _ in range(2):  # what the server says before it goes, and then that it has gone
            connection.pgconn.consume_input()
    return not connection.closed


def _cut(connection: Connection) -> None:
    """End the transport of a connection, so that its call is told and does not wait on.

    Closing it would leave the event loop with a socket that is no more.
    """
    with contextlib.suppress(Error, OSError):
        transport = socket.socket(fileno=connection.fileno())
        try:
            transport.shutdown(socket.SHUT_RDWR)
        finally:
            transport.detach()


async def _nothing(cursor: AsyncCursor[DictRow]) -> None:
    """Fetch no rows, of a statement that returns none."""
