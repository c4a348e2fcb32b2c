"""What the browser's tests look at: a server with a dashboard, and tasks that they steer."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.web import Dashboard

FOLDER = Path(os.environ["ASGI_BG_DASHBOARD_TEST"])
NASTY = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"

runner = Runner(journal=FOLDER / "jobs.db", drain_timeout=1)
level = [0.2]


@task(name="shop.send_receipt", redact=("card",))
async def send_receipt(order: int, email: str, card: str = "4111") -> str:
    logging.getLogger("shop").warning("the mail server is slow today")
    await asyncio.sleep(0.01 * (order % 7))
    return f"receipt-{order}.pdf"


@task(name="shop.charge")
def charge(order: int, text: str = "the bank does not answer") -> None:
    raise ConnectionError(text)


@task(name="shop.resize_photos")
async def resize_photos(names: list[str]) -> int:
    """Is as far as the test says."""
    while level[0] < 1:
        current_job().progress(level[0], f"photo {round(level[0] * 100)} of 100")
        await asyncio.sleep(0.05)
    return len(names)


@task(name="shop.ask_for_review")
async def ask_for_review(order: int) -> None:
    pass


async def add(request: Request) -> JSONResponse:
    query = request.query_params
    ids: list[str] = []
    for number in range(int(query.get("n", "1"))):
        match query["kind"]:
            case "good":
                ids.append(add_task(send_receipt, number, query.get("text", "ada@example.com")).id)
            case "bad":
                text = query.get("text", "the bank does not answer")
                ids.append(add_task(charge, number, text).id)
            case "long":
                ids.append(add_task(resize_photos, ["a.jpg", "b.jpg"]).id)
            case _:
                ids.append(add_task(ask_for_review.using(delay=3600), number).id)
    return JSONResponse(ids)


async def set_level(request: Request) -> JSONResponse:
    level[0] = float(request.query_params["to"])
    return JSONResponse({})


async def evil(request: Request) -> HTMLResponse:
    """A page of another site, which sends a form of the dashboard."""
    target = request.query_params["target"]
    return HTMLResponse(
        f'<form method="post" action="{target}"><input name="status" value="">'
        '<input name="older_than" value="0"><input name="token" value="x">'
        "<button>win a prize</button></form>"
    )


search = runner.search


async def hasty(**options: Any) -> Any:
    """Stop after two jobs where this text is looked for, as if there were millions."""
    if options["text"] != "rare":
        return await search(**options)
    page = await search(**{**options, "text": None, "limit": 2})
    return msgspec.structs.replace(page, is_cut=page.next is not None)


runner.search = hasty  # type: ignore[method-assign]

app = Starlette(
    routes=[
        Route("/add", add, methods=["POST"]),
        Route("/level", set_level, methods=["POST"]),
        Route("/evil", evil),
        Mount("/jobs", Dashboard(runner)),
    ],
    middleware=[Middleware(BackgroundTaskMiddleware, runner=runner)],
)
