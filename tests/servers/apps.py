"""The applications that the server tests serve.

Imported by the servers' processes and by nobody else, as the top-level module ``apps``. What
a request does stands in its path and query, see `Call`; what has happened goes to a record
file, and what shall wait waits for a gate, see `tests.servers.stage`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from asgi_bg import BackgroundTaskMiddleware, Runner, Task, add_task, task
from tests.servers.observed import Observed
from tests.servers.stage import CHUNK, passing, record
from tests.servers.tasks import TASKS, async_task


class Call:
    """One request as its client wants it to go.

    Attributes:
        id: Names the request in the record, and its gates: ``ID.app`` and ``ID.task``.
        tasks: Names of `TASKS` to add.
        hold: What is to wait for its gate: ``app``, ``task``, both or none.
        run_on: The option of this name for the tasks.
        status: The status of the response.
    """

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        query = parse_qs(scope["query_string"].decode())
        self.scope, self.receive, self._send = scope, receive, send
        self.id = query.get("id", ["-"])[0]
        self.tasks = query.get("task", [])
        self.hold = query.get("hold", [])
        self.run_on = query.get("run_on", [None])[0]
        self.status = int(query.get("status", ["200"])[0])

    def record(self, event: str, **fields: Any) -> None:
        record(event, id=self.id, **fields)

    def add_tasks(self) -> None:
        gate = f"{self.id}.task" if "task" in self.hold else ""
        for name in self.tasks:
            func = TASKS[name]
            if self.run_on is not None:
                func = (func if isinstance(func, Task) else task(func)).using(run_on=self.run_on)
            self.record("added", job=add_task(func, self.id, gate).id)

    async def passing(self) -> None:
        """Wait for the app's gate, if the client wants that."""
        self.record("app-waiting")
        if "app" in self.hold:
            await passing(f"{self.id}.app")

    async def send(self, **message: Any) -> None:
        await self._send(message)

    async def start(self, *headers: tuple[bytes, bytes]) -> None:
        await self.send(type="http.response.start", status=self.status, headers=list(headers))

    async def more(self) -> None:
        await self.send(type="http.response.body", body=CHUNK, more_body=True)

    async def end(self, body: bytes = b"") -> None:
        self.record("final-sending")
        await self.send(type="http.response.body", body=body)
        self.record("final-sent")

    async def respond(self) -> None:
        body = f"{self.id} in {os.getpid()}".encode()
        await self.start((b"content-length", str(len(body)).encode()))
        await self.end(body)


# The endpoints. They add the tasks first, unless their name says otherwise.


async def plain(call: Call) -> None:
    await call.passing()
    await call.respond()


async def stream(call: Call) -> None:
    """Send a chunk, wait, and go on sending, whether the client is there or not."""
    await call.start()
    await call.more()
    await call.passing()
    for _ in range(20):
        await call.more()
    await call.end()


async def listen(call: Call) -> None:
    """Send a chunk, wait for the client to leave, and give up: no final message."""
    await call.start()
    await call.more()
    await call.passing()
    while (await call.receive())["type"] != "http.disconnect":
        pass


async def linger(call: Call) -> None:
    """Go on after the response until the gate opens; a cancellation is only noted."""
    await call.respond()
    while True:
        try:
            await call.passing()
        except asyncio.CancelledError:
            call.record("app-cancelled")
        else:
            return


async def yielding(call: Call) -> None:
    """Go on after the response, and end when cancelled, as apps do."""
    await call.respond()
    try:
        await call.passing()
    except asyncio.CancelledError:
        call.record("app-cancelled")
        raise


async def late(call: Call) -> None:
    """Add the tasks again after the response, in a cleanup."""
    await call.respond()
    await call.passing()
    call.add_tasks()


async def error(call: Call) -> None:
    await call.passing()
    raise RuntimeError(f"{call.id} fails on purpose")


async def half(call: Call) -> None:
    """Fail within the response."""
    await call.start()
    await call.more()
    raise RuntimeError(f"{call.id} fails on purpose")


async def late_error(call: Call) -> None:
    await call.respond()
    await call.passing()
    raise RuntimeError(f"{call.id} fails on purpose")


async def late_exit(call: Call) -> None:
    await call.respond()
    await call.passing()
    raise SystemExit(7)


async def scope_facts(call: Call) -> None:
    """Record what the scope is like, and mark it."""
    call.record(
        "scope",
        kind=type(call.scope).__name__,
        is_marked="asgi_bg_test" in call.scope,
        has_state="state" in call.scope,
    )
    call.scope["asgi_bg_test"] = call.id
    await call.respond()


async def ws_close(call: Call) -> None:
    """Accept, and close at once."""
    await call.receive()
    await call.send(type="websocket.accept")
    await call.passing()
    call.record("final-sending")
    await call.send(type="websocket.close", code=1000)


async def ws_return(call: Call) -> None:
    """Accept, and return without closing."""
    await call.receive()
    await call.send(type="websocket.accept")
    await call.passing()


async def ws_refuse(call: Call) -> None:
    """Close instead of accepting, which answers the handshake with 403."""
    await call.receive()
    await call.send(type="websocket.close", code=1000)


async def ws_listen(call: Call) -> None:
    """Accept, and receive until the client leaves."""
    await call.receive()
    await call.send(type="websocket.accept")
    call.record("app-waiting")
    while (await call.receive())["type"] != "websocket.disconnect":
        pass


ENDPOINTS: dict[str, Callable[[Call], Awaitable[None]]] = {
    "/plain": plain,
    "/stream": stream,
    "/listen": listen,
    "/linger": linger,
    "/yielding": yielding,
    "/late": late,
    "/error": error,
    "/half": half,
    "/late-error": late_error,
    "/late-exit": late_exit,
    "/scope": scope_facts,
    "/ws-close": ws_close,
    "/ws-return": ws_return,
    "/ws-refuse": ws_refuse,
    "/ws-listen": ws_listen,
}


async def serve(scope: Any, receive: Any, send: Any) -> None:
    """Serve one request or websocket."""
    call = Call(scope, receive, send)
    call.record("app-called")
    call.add_tasks()
    try:
        await ENDPOINTS[scope["path"]](call)
    finally:
        call.record("app-returned")


async def service(scope: Any, receive: Any, send: Any) -> None:
    """The app with everything, lifespan too."""
    if scope["type"] != "lifespan":
        await serve(scope, receive, send)
        return
    await receive()
    record("app-startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    record("app-shutdown")
    await send({"type": "lifespan.shutdown.complete"})


# Apps that deal with lifespan in other ways.


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Raises when the scope is not one of its own, as Django does."""
    if scope["type"] == "lifespan":
        raise ValueError("only http is served here")
    await serve(scope, receive, send)


async def ignoring(scope: Any, receive: Any, send: Any) -> None:
    """Returns when the scope is not one of its own."""
    if scope["type"] != "lifespan":
        await serve(scope, receive, send)


async def unaware(scope: Any, receive: Any, send: Any) -> None:
    """Knows of nothing but HTTP, and answers a lifespan scope as if it were that."""
    await serve({"query_string": b"", "path": "/plain", **scope}, receive, send)


async def dying(scope: Any, receive: Any, send: Any) -> None:
    """Has a lifespan that ends with an error, some time after startup."""
    if scope["type"] != "lifespan":
        await serve(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    record("app-startup")
    await passing("lifespan")
    record("app-dying")
    raise RuntimeError("the lifespan fails on purpose")


async def unstartable(scope: Any, receive: Any, send: Any) -> None:
    """Says at startup that it cannot."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "there is no database"})


async def unstoppable(scope: Any, receive: Any, send: Any) -> None:
    """Says at shutdown that something went wrong."""
    if scope["type"] != "lifespan":
        await serve(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the database is gone"})


async def patient(scope: Any, receive: Any, send: Any) -> None:
    """Waits in its shutdown handler until a gate opens, and for a detached task."""
    if scope["type"] != "lifespan":
        await serve(scope, receive, send)
        return
    await receive()
    detached = asyncio.ensure_future(async_task("detached", "detached"))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    record("app-shutdown")
    await detached
    await send({"type": "lifespan.shutdown.complete"})


class Ending:
    """Wraps an app, and records when its calls end."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] != "lifespan":
                Call(scope, receive, send).record("call-ended")


def observed(app: Any) -> Observed:
    """Wrap an app so that the record has what its server gets to see of it."""
    return Observed(Ending(app))


app = observed(BackgroundTaskMiddleware(service))
brief = observed(BackgroundTaskMiddleware(service, drain_timeout=1.0))
success = observed(BackgroundTaskMiddleware(service, run_on="success"))
always = observed(BackgroundTaskMiddleware(service, run_on="always"))

_shared = Runner()
nested = observed(
    BackgroundTaskMiddleware(BackgroundTaskMiddleware(service, runner=_shared), runner=_shared)
)

wrapped_refusing = observed(BackgroundTaskMiddleware(refusing))
wrapped_ignoring = observed(BackgroundTaskMiddleware(ignoring))
wrapped_unaware = observed(BackgroundTaskMiddleware(unaware))
wrapped_dying = observed(BackgroundTaskMiddleware(dying))
wrapped_unstartable = observed(BackgroundTaskMiddleware(unstartable))
wrapped_unstoppable = observed(BackgroundTaskMiddleware(unstoppable))

# Without the middleware, for the facts about servers that it rests on.
bare = observed(service)
bare_dying = observed(dying)
bare_patient = observed(patient)
