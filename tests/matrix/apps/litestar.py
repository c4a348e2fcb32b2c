"""With Litestar."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, MediaType, Request, WebSocket, get, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.response import Stream

from asgi_bg.litestar import BackgroundTasks, BackgroundTasksPlugin
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed


@get("/plain", media_type=MediaType.TEXT)
async def plain(request: Request[Any, Any, Any], background_tasks: BackgroundTasks) -> str:
    call = Call(request.url.query)
    call.add_with(background_tasks.add_task)
    return call.id


@get("/stream")
async def stream(request: Request[Any, Any, Any], background_tasks: BackgroundTasks) -> Stream:
    call = Call(request.url.query)
    call.add_with(background_tasks.add_task)
    return Stream(call.chunks())


@websocket("/ws")
async def ws(socket: WebSocket[Any, Any, Any], background_tasks: BackgroundTasks) -> None:
    call = Call(socket.url.query)
    call.add_with(background_tasks.add_task)
    await socket.accept()
    await socket.send_text(call.id)
    try:
        await socket.receive_text()
    except WebSocketDisconnect:
        return


app = Litestar([plain, stream, ws], plugins=[BackgroundTasksPlugin(**OPTIONS)])
served = Observed(app)
