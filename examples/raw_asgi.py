"""A webhook receiver in raw ASGI: it answers at once, and does the work after the response.

    pip install asgi_bg uvicorn
    uvicorn raw_asgi:app            # here, or from above: uvicorn examples.raw_asgi:app

    curl -i -d '{"order": 7}' localhost:8000    # 202, before anything has been shipped
    curl localhost:8000                         # what has been shipped since

Senders of webhooks give up after a few seconds and send again, so the answer must not wait
for the work. Here the work even fails the first time, and `retries` sees to that.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

shipped: list[Any] = []


@task(retries=5, retry_delay=0.5)
async def ship(order: Any) -> None:
    if current_job().attempt == 1:
        raise ConnectionError("the warehouse is not answering")
    shipped.append(order)


def accept(body: bytes) -> int:
    """Queue what a webhook asks for; `add_task` finds the request being served."""
    try:
        order = json.loads(body)
    except ValueError:
        return 400
    add_task(ship, order)
    return 202


async def read_body(receive: Receive) -> bytes:
    body = b""
    more_body = True
    while more_body:
        event = await receive()
        body += event.get("body", b"")
        more_body = event.get("more_body", False)
    return body


async def webhooks(scope: Event, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        # Lifespan comes by here too. The middleware answers for apps that do not speak it.
        raise NotImplementedError(scope["type"])
    if scope["method"] == "POST":
        status, answer = accept(await read_body(receive)), b""
    else:
        status, answer = 200, json.dumps(shipped).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


app = BackgroundTaskMiddleware(webhooks)
