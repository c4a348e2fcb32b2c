"""What the server and the application tell each other of the lifespan, for the record."""

from __future__ import annotations

from typing import Any

from tests.servers.stage import record


class Observed:
    """Wraps an application, and records the messages of its lifespan."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def observed_receive() -> Any:
            message = await receive()
            record("server-says", type=message["type"])
            return message

        async def observed_send(message: Any) -> None:
            record("server-told", type=message["type"])
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, observed_receive, observed_send)
        else:
            await self._app(scope, receive, send)
