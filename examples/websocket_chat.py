"""A chat over websockets: what a session queues is run when the session is over.

    pip install 'asgi_bg[starlette]' 'uvicorn[standard]'
    uvicorn websocket_chat:app      # here, or from above: uvicorn examples.websocket_chat:app

    python -m websockets ws://localhost:8000/chat/ada      # in two terminals, as ada and bob
    curl localhost:8000/transcripts                        # once one of them has left

For a websocket the response is the whole session. A task added at its beginning, as the
farewell is here, waits for its end just like one added later, whoever hangs up.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_bg import BackgroundTaskMiddleware, add_task

TRANSCRIPTS = Path(tempfile.gettempdir(), "transcripts")

room: dict[str, WebSocket] = {}


async def tell_everyone(line: str) -> None:
    for other in tuple(room.values()):
        with suppress(WebSocketDisconnect):  # somebody who is just leaving
            await other.send_text(line)


def save_transcript(name: str, lines: list[str]) -> None:
    TRANSCRIPTS.mkdir(exist_ok=True)
    (TRANSCRIPTS / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")


async def chat(websocket: WebSocket) -> None:
    name = websocket.path_params["name"]
    if not name.isalnum() or name in room:
        await websocket.close(reason="that name is taken")
        return
    await websocket.accept()
    room[name] = websocket
    add_task(tell_everyone, f"* {name} has left")
    lines: list[str] = []
    try:
        await tell_everyone(f"* {name} is here")
        async for text in websocket.iter_text():
            lines.append(text)
            await tell_everyone(f"{name}: {text}")
    finally:
        del room[name]
        add_task(save_transcript, name, lines)


def transcripts(request: Request) -> JSONResponse:
    files = sorted(TRANSCRIPTS.glob("*.txt"))
    return JSONResponse({file.stem: file.read_text(encoding="utf-8") for file in files})


routes = [WebSocketRoute("/chat/{name}", chat), Route("/transcripts", transcripts)]
app = BackgroundTaskMiddleware(Starlette(routes=routes))
