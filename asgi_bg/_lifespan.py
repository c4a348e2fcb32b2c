"""Speaks the lifespan protocol around an app, and for one that does not (R6)."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from asgi_bg._types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from asgi_bg._runner import Runner

logger = logging.getLogger("asgi_bg")

LOOK_INTERVAL = 0.02
"""How many seconds lie between two looks whether requests are still being served."""


class Serving:
    """Counts the requests being served, so that a shutdown can wait for the last.

    Attributes:
        count: How many there are. Whoever waits looks at it now and then, so that requests
            need not tell anybody of their end.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    async def is_over(self, timeout: float) -> bool:
        """Wait until no request is being served; False if it takes more seconds than that."""
        deadline = time.monotonic() + timeout
        while self.count:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(LOOK_INTERVAL)
        return True


class Lifespan:
    """One run of the lifespan protocol, between the server and the app.

    The runner starts before the app does, and drains before the app shuts down: while jobs
    run, what the app has opened is open. Where the app does not answer, because it knows no
    lifespan or because its lifespan has died, this answers for it.
    """

    def __init__(
        self,
        runner: Runner,
        serving: Serving,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._runner = runner
        self._serving = serving
        self._scope = scope
        self._receive = receive
        self._send = send
        self._received = 0  # messages of the server: startup, then shutdown
        self._answered = 0
        self._has_failed = False
        self._deadline = 0.0

    async def run(self, app: ASGIApp) -> None:
        """See the app through the protocol, and the runner with it."""
        try:
            await app(self._scope, self._app_receive, self._app_send)
        except Exception as exc:
            if self._has_failed or self._received == 2:
                await self._close()
                raise
            self._explain(exc)
        except BaseException:
            # The server cancels: it will not ask for a shutdown any more.
            await self._runner.aclose(0)
            raise
        if not self._has_failed:
            await self._go_on_alone()

    async def _app_receive(self) -> Message:
        message = await self._receive()
        self._received += 1
        if message["type"] == "lifespan.startup":
            await self._runner.start()
        elif message["type"] == "lifespan.shutdown":
            await self._drain()
        return message

    async def _app_send(self, message: Message) -> None:
        kind = message["type"]
        if not kind.startswith("lifespan."):
            # A plain function, that answers whatever comes as if it were a request.
            raise RuntimeError(f"expected a lifespan message of the app, got {kind!r}")
        self._answered += 1
        if kind.endswith(".failed"):
            self._has_failed = True
        if self._has_failed or kind == "lifespan.shutdown.complete":
            await self._close()
        await self._send(message)

    async def _go_on_alone(self) -> None:
        """Say what is left to say, once the app no longer does."""
        if self._answered == 0:
            if self._received == 0:
                await self._app_receive()
            await self._send({"type": "lifespan.startup.complete"})
            self._answered = 1
        if self._answered == 1:
            if self._received == 1:
                await self._app_receive()
            await self._close()
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _drain(self) -> None:
        """Wait for requests and jobs, for at most `drain_timeout` in all; cancel the rest."""
        self._deadline = time.monotonic() + self._runner.drain_timeout
        if not await self._serving.is_over(self._runner.drain_timeout):
            logger.warning(
                "%d request(s) still being served at shutdown after %g seconds (drain_timeout); "
                "their jobs will be cancelled",
                self._serving.count,
                self._runner.drain_timeout,
            )
        await self._runner.finish_held(self._time_left())
        # Now, and not after the app has closed what they may be using.
        await self._runner.cancel_all()

    async def _close(self) -> None:
        await self._runner.aclose(self._time_left())

    def _time_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _explain(self, exc: Exception) -> None:
        if self._received == 0:
            # Usual: Django and plain functions refuse the scope before they read anything.
            logger.debug("the app does not speak lifespan (%r); asgi_bg answers for it", exc)
        else:
            logger.error(
                "the app's lifespan ended with an error; asgi_bg answers for it, so that "
                "background tasks are drained at shutdown all the same",
                exc_info=exc,
            )
