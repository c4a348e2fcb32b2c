"""With FastAPI."""

from __future__ import annotations

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse, StreamingResponse

from asgi_bg.fastapi import BackgroundTasks, init_app
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed

app = FastAPI()
init_app(app, **OPTIONS)


@app.get("/plain")
def plain(request: Request, tasks: BackgroundTasks) -> PlainTextResponse:
    """In a worker thread, as FastAPI runs plain functions."""
    call = Call(request.url.query)
    call.add_with(tasks.add_task)
    return PlainTextResponse(call.id)


@app.get("/stream")
async def stream(request: Request, tasks: BackgroundTasks) -> StreamingResponse:
    call = Call(request.url.query)
    call.add_with(tasks.add_task)
    return StreamingResponse(call.chunks())


@app.websocket("/ws")
async def websocket(websocket: WebSocket, tasks: BackgroundTasks) -> None:
    call = Call(websocket.url.query)
    call.add_with(tasks.add_task)
    await websocket.accept()
    await websocket.send_text(call.id)
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        return


served = Observed(app)
