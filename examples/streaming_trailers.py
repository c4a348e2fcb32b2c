"""An export that is streamed, with its checksum in HTTP trailers, and recorded after them.

    pip install asgi_bg hypercorn
    hypercorn streaming_trailers:app        # here; from above: examples.streaming_trailers:app

    curl -v --http2-prior-knowledge -H 'te: trailers' localhost:8000/export
    curl localhost:8000/                    # the checksums of all exports that went out whole

Trailers end a response when the server has them, as hypercorn does over HTTP/2. Where it has
not, as uvicorn over HTTP/1.1, the last part of the body does. Tasks wait for either: what is
recorded here has been given to the server whole.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from asgi_bg import BackgroundTaskMiddleware, add_task

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

recorded: list[str] = []


async def record(checksum: str) -> None:
    recorded.append(checksum)


async def export(scope: Event, send: Send) -> None:
    has_trailers = "http.response.trailers" in (scope.get("extensions") or {})
    headers = [(b"content-type", b"text/csv")]
    if has_trailers:
        headers.append((b"trailer", b"checksum-sha256"))
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": headers,
            "trailers": has_trailers,
        }
    )
    digest = hashlib.sha256()
    for number in range(1_000):
        row = b"%d,%d\n" % (number, number**2)
        digest.update(row)
        await send({"type": "http.response.body", "body": row, "more_body": True})
    checksum = digest.hexdigest()
    add_task(record, checksum)
    await send({"type": "http.response.body", "body": b""})
    if has_trailers:
        trailers = [(b"checksum-sha256", checksum.encode())]
        await send({"type": "http.response.trailers", "headers": trailers})


async def exports(scope: Event, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/export":
        await export(scope, send)
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(recorded).encode()})


app = BackgroundTaskMiddleware(exports)
