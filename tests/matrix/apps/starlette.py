"""With Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_bg.starlette import init_app, tasks_from
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed


def call_of(connection: HTTPConnection) -> Call:
    call = Call(connection.url.query)
    call.add_with(tasks_from(connection).add_task)
    return call


async def plain(request: Request) -> Response:
    return PlainTextResponse(call_of(request).id)


async def stream(request: Request) -> Response:
    return StreamingResponse(call_of(request).chunks())


async def websocket(websocket: WebSocket) -> None:
    call = call_of(websocket)
    await websocket.accept()
    await websocket.send_text(call.id)
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        return


app = Starlette(
    routes=[
        Route("/plain", plain),
        Route("/stream", stream),
        WebSocketRoute("/ws", websocket),
    ]
)
init_app(app, **OPTIONS)
served = Observed(app)
