"""Without a framework."""

from __future__ import annotations

from typing import Any

from asgi_bg import BackgroundTaskMiddleware, BackgroundTasks
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed


async def plain(call: Call, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": call.id.encode()})


async def stream(call: Call, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    async for chunk in call.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def websocket(call: Call, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": call.id})
    while (await receive())["type"] != "websocket.disconnect":
        pass


ROUTES = {"/plain": plain, "/stream": stream, "/ws": websocket}


async def service(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")  # as the specification allows
    call = Call(scope["query_string"])
    call.add_with(BackgroundTasks.from_scope(scope).add_task)
    await ROUTES[scope["path"]](call, receive, send)


app = BackgroundTaskMiddleware(service, **OPTIONS)
served = Observed(app)
