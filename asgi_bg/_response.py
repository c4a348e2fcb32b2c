"""When a response has ended, and what it means that the client left (M3, M5, M6)."""

from __future__ import annotations

import asyncio

from asgi_bg._types import Message, Receive, RunOn, Send

ASK_TIMEOUT = 0.1
"""For how many seconds a call that is being cancelled waits to hear whether the client left."""

# What `Response.permitted` returns.
FAILED: frozenset[RunOn] = frozenset({"always"})
ENDED: frozenset[RunOn] = frozenset({"always", "response"})
SUCCEEDED: frozenset[RunOn] = frozenset({"always", "response", "success"})


class Response:
    """Watches the messages of one request or websocket go by, and passes them on untouched.

    Attributes:
        status: The status of the response that was started: 101 for an accepted websocket,
            403 for one that was closed instead; None before that.
        ended: Whether the app has sent its last message, in any of the forms of M3.
        client_left: Whether the app was told so, by `receive` or by a failing `send`.
        accepted: Whether it is a websocket that the app has accepted.
        is_watched: Whether `on_end` is to be called.
        is_held: Whether `hold` is to be awaited before a message goes on (J1).
    """

    __slots__ = (
        "_receive",
        "_send",
        "_trailers",
        "accepted",
        "client_left",
        "ended",
        "is_held",
        "is_watched",
        "status",
    )

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._trailers = False
        self.status: int | None = None
        self.ended = False
        self.client_left = False
        self.accepted = False
        self.is_watched = False
        self.is_held = False

    async def receive(self) -> Message:
        """Receive, and note a disconnect."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.disconnect":
            self.client_left = True
        elif kind == "websocket.disconnect":
            self.client_left = True
            if not self.ended:
                self.ended = True
                if self.is_watched:
                    self.on_end()
        return message

    async def send(self, message: Message) -> None:
        """Send, and note what the message does to the response."""
        kind = message["type"]
        # The two that nearly every response consists of come first.
        if kind == "http.response.body":
            is_last = not (message.get("more_body") or self._trailers or self.ended)
        elif kind == "http.response.start":
            is_last = False
            self.status = message.get("status")
            if "trailers" in message:
                self._trailers = bool(message["trailers"])
        else:
            is_last = self._note(kind, message) and not self.ended
        if self.is_held:
            await self.hold()
        if is_last:
            # Before the send: on one server the last one never returns when the client has
            # gone (hypercorn, HTTP/2), and the response has ended all the same.
            self.ended = True
            if self.is_watched:
                self.on_end()
        try:
            await self._send(message)
        except OSError:
            # The server's way to say that the client is gone (ASGI HTTP spec 2.4).
            self.client_left = True
            raise
        except asyncio.CancelledError:
            # On one server no `send` returns when the client has gone (hypercorn, HTTP/2): so a
            # call that is cancelled within one may be cancelled because of that.
            if self.is_watched and not self.counts_as_ended:
                self.client_left = await self._has_client_left()
            raise
        except Exception:
            # The server refused the message, so this was not the end.
            if is_last:
                self.ended = False
            raise

    async def _has_client_left(self) -> bool:
        """Whether the server says, when it is asked, that the client has left (M6)."""
        try:
            message = await asyncio.wait_for(self._receive(), ASK_TIMEOUT)
        except (Exception, asyncio.CancelledError):
            return False
        return message["type"] in ("http.disconnect", "websocket.disconnect")

    def _note(self, kind: str, message: Message) -> bool:
        """Note what a rarer message does; return whether it is the last one."""
        match kind:
            case "http.response.trailers":
                return self._trailers and not message.get("more_trailers")
            case "http.response.pathsend":
                return True
            case "http.response.zerocopysend":
                return not message.get("more_body")
            case "websocket.accept":
                self.status = 101
                self.accepted = True
            case "websocket.close":
                # Closing a handshake instead of accepting it answers it with 403.
                self.status = self.status or 403
                return True
            case "websocket.http.response.start":
                self.status = message.get("status")
            case "websocket.http.response.body":
                return not message.get("more_body")
        return False

    async def hold(self) -> None:
        """Called before a message goes on, while `is_held`; for subclasses."""

    def on_end(self) -> None:
        """Called when the response ends, if it is watched; for subclasses."""

    def app_returned(self) -> None:
        """Note that the app returned without raising.

        From an accepted websocket that is as good as closing it: most servers do it then,
        and the app is through with it in any case.
        """
        if self.accepted:
            self.ended = True

    @property
    def counts_as_ended(self) -> bool:
        """Whether the response is over, also where the app gave up as the client left (M6)."""
        return self.ended or self.client_left

    def permitted(self) -> frozenset[RunOn]:
        """Return for which values of ``run_on`` jobs are to run on this response (M5).

        A client that left before there was a status decides nothing, so that counts as
        success.
        """
        if not self.counts_as_ended:
            return FAILED
        return SUCCEEDED if self.status is None or self.status < 400 else ENDED
