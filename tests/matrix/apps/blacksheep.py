"""With BlackSheep."""

from blacksheep import Application, Request, Response, StreamedContent, WebSocket, text
from blacksheep.server.websocket import WebSocketDisconnectError

from asgi_bg import add_task
from asgi_bg.blacksheep import init_app
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed

app = Application()


@app.router.get("/plain")
async def plain(request: Request) -> Response:
    call = Call(request.url.query or b"")
    call.add_with(add_task)
    return text(call.id)


@app.router.get("/stream")
async def stream(request: Request) -> Response:
    call = Call(request.url.query or b"")
    call.add_with(add_task)
    return Response(200, content=StreamedContent(b"text/plain", call.chunks))


@app.router.ws("/ws")
async def socket(websocket: WebSocket) -> None:
    call = Call(websocket.scope["query_string"])
    call.add_with(add_task)
    await websocket.accept()
    await websocket.send_text(call.id)
    try:
        await websocket.receive_text()
    except WebSocketDisconnectError:
        return


init_app(app, **OPTIONS)
served = Observed(app)
