"""With Falcon."""

from __future__ import annotations

from falcon.asgi import App, Request, Response, WebSocket
from falcon.errors import WebSocketDisconnected

from asgi_bg import add_task
from asgi_bg.falcon import init_app
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed


def call_of(request: Request) -> Call:
    call = Call(request.query_string)
    call.add_with(add_task)
    return call


class Plain:
    async def on_get(self, request: Request, response: Response) -> None:
        response.text = call_of(request).id


class Stream:
    async def on_get(self, request: Request, response: Response) -> None:
        response.stream = call_of(request).chunks()


class Socket:
    async def on_websocket(self, request: Request, socket: WebSocket) -> None:
        call = call_of(request)
        await socket.accept()
        await socket.send_text(call.id)
        try:
            await socket.receive_text()
        except WebSocketDisconnected:
            return


_falcon = App()
_falcon.add_route("/plain", Plain())
_falcon.add_route("/stream", Stream())
_falcon.add_route("/ws", Socket())

app = init_app(_falcon, **OPTIONS)
served = Observed(app)
