"""Clients that leave while they are sent something."""

from __future__ import annotations

from asgi_bg._types import Message, Send


class Sender:
    """The `send` of one request, which knows whether its client has left.

    Servers may say so by an `OSError`, which is then no failure of the application's.

    Args:
        send: The server's.

    Attributes:
        has_left: Whether it has said so.
    """

    __slots__ = ("_send", "has_left")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_left = False

    async def __call__(self, message: Message) -> None:
        """Send a message."""
        try:
            await self._send(message)
        except OSError:
            self.has_left = True
            raise
