"""The engine's connections to Redis, beside those of its workers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, TypeAlias

from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio.sentinel import SentinelConnectionPool

__all__ = ["Line", "Target", "connect", "disconnect", "target_of", "twin_of"]

Target: TypeAlias = RedisSettings | ArqRedis
"""Where Redis is, or a client that knows it, and is not used itself."""

CLOSE_TIMEOUT = 1.0
"""How many seconds connections get to be closed."""


class Line:
    """A client of Redis, made when it is needed, and anew in each event loop.

    Args:
        target: Where Redis is.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._redis: ArqRedis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def client(self) -> ArqRedis:
        """Return the client."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # What was opened in a loop that has ended is of no use any more.
            self._loop, self._redis = loop, None
        if self._redis is None:
            made = await connect(self._target)
            if self._redis is not None:
                await disconnect(made)  # another call was faster
            else:
                self._redis = made
        return self._redis

    async def drop(self) -> None:
        """Close its connections. The next call makes others."""
        redis, self._redis = self._redis, None
        if redis is not None:
            await disconnect(redis)


def target_of(redis: object) -> Target:
    """Return where Redis is, which may be given as a URL.

    Raises:
        TypeError, ValueError: It is nothing that says so.
    """
    if isinstance(redis, str):
        try:
            return RedisSettings.from_dsn(redis)
        except (RuntimeError, ValueError) as exc:
            # Not the URL itself, as there may be a password in it.
            raise ValueError(
                f"redis must be a URL such as redis://127.0.0.1:6379/0, got another text: {exc}"
            ) from exc
    if not isinstance(redis, RedisSettings | ArqRedis):
        raise TypeError(f"redis must be RedisSettings, a URL or an ArqRedis, got {redis!r}")
    return redis


async def connect(target: Target) -> ArqRedis:
    """Return a client with connections of its own; it is tried once."""
    if isinstance(target, RedisSettings):
        return await create_pool(replace(target, conn_retries=0))
    made = twin_of(target)
    client: Any = made
    await client.ping()
    return made


def twin_of(client: ArqRedis) -> ArqRedis:
    """Return a client of the same Redis, with connections of its own."""
    pool: Any = client.connection_pool
    manager = _sentinels_of(pool)
    if manager is not None:
        asked = [each.connection_pool.connection_kwargs for each in manager.sentinels]
        own = type(manager)(
            [(each["host"], each["port"]) for each in asked],
            manager.min_other_sentinels,
            manager.sentinel_kwargs,
            **manager.connection_kwargs,
        )
        made: ArqRedis = own.master_for(pool.service_name, redis_class=ArqRedis)
        return made
    twin = type(pool)(
        connection_class=pool.connection_class,
        max_connections=pool.max_connections,
        **pool.connection_kwargs,
    )
    return ArqRedis(twin)


async def disconnect(client: ArqRedis) -> None:
    """Close all connections of a client, whatever state they are in."""
    pool: Any = client.connection_pool
    manager = _sentinels_of(pool)
    others = [] if manager is None else [each.connection_pool for each in manager.sentinels]
    for each in (pool, *others):
        with contextlib.suppress(Exception):
            await asyncio.wait_for(each.disconnect(), CLOSE_TIMEOUT)


def _sentinels_of(pool: Any) -> Any:
    # Unlike `isinstance`, this leaves the type of the pool as unknown as it is.
    return pool.sentinel_manager if issubclass(type(pool), SentinelConnectionPool) else None
