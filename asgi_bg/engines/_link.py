"""The way to an engine: from any loop and thread, with a time limit, and anew if it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from asgi_bg.engines.base import Engine, Message, Report
from asgi_bg.exceptions import EngineError

logger = logging.getLogger("asgi_bg")

T = TypeVar("T")

CLOSE_TIMEOUT = 1.0
"""How long an engine may take to let go of its connections, in seconds."""

REASON_LIMIT = 500
"""How many characters of an engine's reason are kept; a client may put a whole message in it."""


class Link:
    """Calls an engine in one event loop, and sees to it that it is open there.

    Args:
        engine: The engine.

    Attributes:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_open = False
        self._opening: asyncio.Lock  # made with the loop, which Python 3.10 wants

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call the engine in this loop, unless there is one already."""
        # Some load their client to know it, which takes a while: now, and not in a request.
        logger.debug("the engine %s supports %s", self.engine.name, sorted(self.engine.supports))
        if self._loop is None or self._loop.is_closed():
            self._adopt(loop)

    async def send(
        self, messages: Sequence[Message], limit: float | None = None
    ) -> Sequence[str | None]:
        """Send jobs; see `Engine.send`.

        Args:
            messages: The jobs.
            limit: How long it may take, in seconds; None for the engine's `Engine.timeout`.

        Raises:
            EngineError: They were not acknowledged, and may have arrived nevertheless.
        """
        return await self._here(lambda: self._send(messages, limit))

    def send_now(self, messages: Sequence[Message], limit: float) -> Sequence[str | None]:
        """Send jobs, and block this thread meanwhile, which must not be the loop's."""
        return self.run(self.send(messages, limit), limit)

    async def fetch(self, id: str) -> Report | None:
        """Return what the engine knows of a job; None if it knows nothing, or keeps nothing.

        Raises:
            EngineError: It could not be asked.
        """
        if "results" not in self.engine.supports:
            return None
        return await self._here(
            lambda: self._within(None, f"tell of job {id}", self.engine.fetch, id)
        )

    async def cancel(self, id: str) -> bool:
        """Cancel a job that waits at the engine; return whether it was.

        Raises:
            EngineError: The engine does not support it, or could not be asked.
        """
        if "cancel" not in self.engine.supports:
            raise EngineError(
                f"job {id} was handed over to the engine {self.engine.name}, which cannot cancel "
                "jobs; cancel it before that, or with the engine's own tools"
            )
        return await self._here(
            lambda: self._within(None, f"cancel job {id}", self.engine.cancel, id)
        )

    async def close(self) -> None:
        """Let go of the engine's connections; they are made anew when they are needed."""
        self._is_open = False
        try:
            await asyncio.wait_for(self.engine.close(), CLOSE_TIMEOUT)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            reason = _shorten(f"{type(exc).__name__}: {exc}")
            logger.debug("closing the engine %s failed: %s", self.engine.name, reason)

    def run(self, call: Coroutine[Any, Any, T], limit: float) -> T:
        """Run a call in the engine's loop, from another thread.

        Raises:
            EngineError: The loop did not come to it in time, or is closed.
        """
        loop = self._loop
        if loop is None or not loop.is_running():
            call.close()
            raise EngineError(f"no event loop runs to reach the engine {self.engine.name} from")
        future = asyncio.run_coroutine_threadsafe(call, loop)
        try:
            # A connection that is stuck has to be closed, too.
            return future.result(limit + CLOSE_TIMEOUT + 1.0)
        except (TimeoutError, asyncio.TimeoutError):
            future.cancel()
            raise EngineError(
                f"the event loop was too busy to reach the engine {self.engine.name} "
                f"within {limit} seconds"
            ) from None

    async def _here(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await a call in the engine's loop, which becomes this one if the other has ended."""
        loop = asyncio.get_running_loop()
        if self._loop is None or not self._loop.is_running():
            self._adopt(loop)
        if self._loop is loop or self._loop is None:
            return await call()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_open = False
        self._opening = asyncio.Lock()

    async def _send(self, messages: Sequence[Message], limit: float | None) -> Sequence[str | None]:
        what = f"acknowledge {len(messages)} job(s)"
        try:
            answers = await self._within(limit, what, self.engine.send, messages)
        except BaseException:
            # Nobody knows what the connection is at; the next call makes another one.
            await asyncio.shield(self.close())
            raise
        return [None if answer is None else _shorten(answer) for answer in answers]

    async def _within(
        self, limit: float | None, what: str, call: Callable[..., Awaitable[T]], *args: Any
    ) -> T:
        name = self.engine.name
        limit = self.engine.timeout if limit is None else limit
        try:
            return await asyncio.wait_for(self._call(call, args), limit)
        except EngineError as exc:
            if len(str(exc)) > REASON_LIMIT:
                raise EngineError(_shorten(str(exc))) from exc
            raise
        except (TimeoutError, asyncio.TimeoutError):
            raise EngineError(
                f"the engine {name} did not {what} within {limit:.1f} seconds; is it running, "
                "and can it be reached?"
            ) from None
        except Exception as exc:
            reason = _shorten(f"{type(exc).__name__}: {exc}")
            raise EngineError(f"the engine {name} did not {what}: {reason}") from exc

    async def _call(self, call: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> T:
        if not self._is_open:
            async with self._opening:
                if not self._is_open:
                    await self.engine.open()
                    self._is_open = True
        return await call(*args)


def _shorten(reason: str) -> str:
    return reason if len(reason) <= REASON_LIMIT else f"{reason[:REASON_LIMIT]}..."
