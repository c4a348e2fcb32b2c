"""Speaks the lifespan protocol around an app, and for one that does not (R6)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asgi_bg._supervision import Serving, Supervision
from asgi_bg._types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from asgi_bg._runner import Runner

logger = logging.getLogger("asgi_bg")


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
        self._supervision = Supervision(runner, serving)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._received = 0  # messages of the server: startup, then shutdown
        self._answered = 0
        self._has_failed = False
        self._refusal: Exception | None = None

    async def run(self, app: ASGIApp) -> None:
        """See the app through the protocol, and the runner with it."""
        try:
            await self._see_through(app)
        except Exception as exc:
            if exc is not self._refusal:  # of which the server has been told
                raise

    async def _see_through(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._app_receive, self._app_send)
        except Exception as exc:
            if self._has_failed or self._received == 2:
                await self._supervision.close()
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
            await self._start()
        elif message["type"] == "lifespan.shutdown":
            await self._supervision.drain()
        return message

    async def _start(self) -> None:
        try:
            await self._supervision.start()
        except Exception as exc:
            # Not the app's failure: it is told by the server, which then does not serve.
            self._refusal = exc
            self._has_failed = True
            await self._send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise

    async def _app_send(self, message: Message) -> None:
        kind = message["type"]
        if not kind.startswith("lifespan."):
            # A plain function, that answers whatever comes as if it were a request.
            raise RuntimeError(f"expected a lifespan message of the app, got {kind!r}")
        if self._refusal is not None:
            return  # nothing more is to be said
        self._answered += 1
        if kind.endswith(".failed"):
            self._has_failed = True
        if self._has_failed or kind == "lifespan.shutdown.complete":
            await self._supervision.close()
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
            await self._supervision.close()
            await self._send({"type": "lifespan.shutdown.complete"})

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
