"""Pages that change while they are looked at: one look a second for all who see the same."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from starlette.responses import Response

from asgi_bg._types import Message, Receive, Scope, Send
from asgi_bg.exceptions import JobNotFound, JournalError
from asgi_bg.web._ending import is_server_ending, lasting
from asgi_bg.web._panels import Panel, State

logger = logging.getLogger("asgi_bg")

STREAM_SECONDS = 30.0
"""How long a stream goes on, at most. Then its client asks again, and so authorize is, too."""

HEARTBEAT = 15.0
"""After how many seconds of silence a line shows that the connection lives."""

TICK = 0.5
"""How many seconds lie between two looks whether the server is about to end."""

WATCHES = 100
"""How many different panels are looked at, at most; each search for another text is one."""

REST = 4
"""How many times as long as a look took there is a rest after it, at least."""


class Watch:
    """Looks at a panel again and again, for all who want to know."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._changed = asyncio.Event()
        self._state: State | None = None
        self._step: tuple[str, bytes] | None = None
        self.error: Exception | None = None
        self.viewers = 0
        self.task = asyncio.create_task(self._look(), name=f"asgi_bg: dashboard {panel.key[0]}")

    @property
    def state(self) -> State:
        """How it is now."""
        if self.error is not None:
            raise self.error
        assert self._state is not None  # noqa: S101 # `ready` comes first
        return self._state

    async def ready(self) -> State:
        """Wait for the first look, and return how it is.

        Raises:
            Exception: What the look has raised.
        """
        while self._state is None and self.error is None:
            await self.wait(TICK)
        return self.state

    async def wait(self, timeout: float) -> None:
        """Wait for a change, for a while."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def change(self, before: State | None) -> bytes:
        """Return what has changed since a state, made once for all who come from the last."""
        if before is not None and self._step is not None and self._step[0] == before.digest:
            return self._step[1]
        return self.state.since(before)

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while True:
                start = clock()
                state = await self._panel.state()
                if self._state is None or state.digest != self._state.digest:
                    self._turn_to(state)
                await asyncio.sleep(max(self._panel.interval, REST * (clock() - start)))
        except Exception as exc:
            self.error = exc
            self._wake()
            # Where nothing was seen yet, those who wait for it answer, and tell of it.
            if self._state is not None:
                _tell_end(exc)

    def _turn_to(self, state: State) -> None:
        before, self._state = self._state, state
        self._step = None if before is None else (before.digest, state.since(before))
        self._wake()

    def _wake(self) -> None:
        # Those who wait hold the old one; whoever comes later waits for the next change.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _tell_end(exc: Exception) -> None:
    text = "dashboard: live updates have stopped"
    if isinstance(exc, JournalError):
        logger.warning(f"{text}: %s", exc)
    elif not isinstance(exc, JobNotFound):
        logger.warning(text, exc_info=exc)


class Watches:
    """The panels that somebody looks at. Nobody looking means no task and no query."""

    def __init__(self) -> None:
        self._watches: dict[tuple[object, ...], Watch] = {}

    def has_room_for(self, panel: Panel) -> bool:
        """Whether one more viewer of a panel can join."""
        return len(self._watches) < WATCHES or _key_of(panel) in self._watches

    def join(self, panel: Panel) -> Watch:
        """Return what looks at a panel, for one more viewer; `leave` it in the end."""
        key = _key_of(panel)
        watch = self._watches.get(key)
        if watch is None or watch.task.done():  # one that ended is nothing for anybody
            watch = self._watches[key] = Watch(panel)
        watch.viewers += 1
        return watch

    def leave(self, watch: Watch) -> None:
        """Count one viewer less; after the last one nothing is looked at any more."""
        watch.viewers -= 1
        if not watch.viewers:
            watch.task.cancel()
            self._watches = {key: one for key, one in self._watches.items() if one is not watch}


def _key_of(panel: Panel) -> tuple[object, ...]:
    # An event loop's tasks are nothing for another one.
    return (asyncio.get_running_loop(), *panel.key)


class EventStream(Response):
    """Server-sent events: each carries what has changed since the last.

    Source: HTML, 9.2, server-sent events.

    Args:
        watches: Where the panel is looked at.
        panel: What the client sees.
        seen: The digest of the state that it has; that is not sent again.
    """

    media_type = "text/event-stream"

    def __init__(self, watches: Watches, panel: Panel, seen: str) -> None:
        # A proxy that buffers would hold the events back.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(None, 200, headers)
        del self.headers["content-length"]
        self._watches = watches
        self._panel = panel
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client has left, the time is up, or the server ends."""
        watch = self._watches.join(self._panel)
        leaving = asyncio.ensure_future(_disconnect(receive))
        telling: asyncio.Future[None] | None = None
        try:
            await watch.ready()
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] != "HEAD":
                telling = asyncio.ensure_future(self._tell(watch, send))
                await asyncio.wait((leaving, telling), return_when=asyncio.FIRST_COMPLETED)
                if not telling.done():
                    return
                telling.result()
            await send({"type": "http.response.body", "body": b""})
        except OSError:
            pass  # the client has left
        finally:
            self._watches.leave(watch)
            for task in (leaving, telling):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError, OSError):
                        await task

    async def _tell(self, watch: Watch, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        last = clock()
        end = last + lasting(STREAM_SECONDS)
        await send(_part(b"retry: 1000\n\n"))
        before = watch.state if watch.state.digest == self._seen else None
        while clock() < end and not is_server_ending() and watch.error is None:
            state = watch.state
            if before is None or state.digest != before.digest:
                # Taken before the sending, which lasts as long as the client is slow: it then
                # gets all that came in between as one.
                change = watch.change(before)
                before, last = state, clock()
                await send(_part(b"id: %b\ndata: %b\n\n" % (state.digest.encode(), change)))
            elif clock() - last >= HEARTBEAT:
                last = clock()
                await send(_part(b": still here\n\n"))
            else:
                await watch.wait(TICK)
        if isinstance(watch.error, JobNotFound):
            await send(_part(b"event: gone\ndata: {}\n\n"))


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}
