"""With Quart."""

from __future__ import annotations

from collections.abc import AsyncIterator

from quart import Quart, request, websocket

from asgi_bg.quart import BackgroundTasks, init_app
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed

app = Quart(__name__)
init_app(app, **OPTIONS)
tasks = BackgroundTasks()


@app.get("/plain")
async def plain() -> str:
    call = Call(request.query_string)
    call.add_with(tasks.add_task)
    return call.id


@app.get("/stream")
async def stream() -> AsyncIterator[bytes]:
    call = Call(request.query_string)
    call.add_with(tasks.add_task)
    return call.chunks()


@app.websocket("/ws")
async def ws() -> None:
    call = Call(websocket.query_string)
    call.add_with(tasks.add_task)
    await websocket.accept()
    await websocket.send(call.id)
    await websocket.receive()  # cancelled when the client leaves


served = Observed(app)
