"""The server that demo.py starts: tasks of every kind, and an endpoint for each.

pip install 'asgi_bg[starlette]' uvicorn
uvicorn demo_server:app         # here, or from above: uvicorn examples.demo_server:app

curl -X POST localhost:8000/poster
curl localhost:8000/jobs
"""

import asyncio
import logging
import os
import threading
import time

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bg import (
    BackgroundTaskMiddleware,
    BackgroundTasks,
    Job,
    JobInfo,
    Runner,
    add_task,
    current_job,
    task,
)

log = logging.getLogger("demo")
log.setLevel(logging.INFO)

runner = Runner(max_processes=1)


def say_where() -> None:
    """Every attempt says where it runs. What is logged inside a job is kept with it."""
    log.info("%d %s", os.getpid(), threading.current_thread().name)


# The tasks.


@task
async def send_mails(count: int) -> str:
    say_where()
    await asyncio.sleep(1)
    return f"{count} mails sent"


@task
def resize_photo(name: str) -> str:
    say_where()
    time.sleep(1)  # blocks its thread, and nobody else
    return f"{name} resized"


@task(executor="process")
def draw_poster(width: int, height: int) -> str:
    """Draw the Mandelbrot set, which keeps a processor busy for a second or two."""
    say_where()
    lines: list[str] = []
    for row in range(height):
        y = 2.3 * (row + 0.5) / height - 1.15
        points = [complex(3.2 * column / width - 2.3, y) for column in range(width)]
        lines.append("".join(shade(point) for point in points))
        current_job().progress((row + 1) / height, f"row {row + 1} of {height}")
    return "\n".join(lines)


def shade(point: complex) -> str:
    value = 0j
    for step in range(50_000):
        value = value * value + point
        if abs(value) > 2:
            return " .:-=+*#%"[min(step // 2, 8)]
    return "@"


@task(retries=3, retry_delay=0.6)
async def charge_card(amount: int) -> str:
    say_where()
    attempt = current_job().attempt
    if attempt < 3:
        raise ConnectionError(f"the bank is not answering, attempt {attempt}")
    return f"{amount} euros charged"


@task
async def print_invoice(order: int) -> None:
    say_where()


@task
async def tell_partner(order: int) -> None:
    say_where()
    raise ValueError(f"the partner does not know order {order}")


@task
async def pack_parcel(order: int) -> None:
    say_where()


@task
async def save_draft(text: str) -> str:
    say_where()
    return f"{len(text)} characters saved"


# The endpoints. Not one of them waits for its task.


def accepted(*jobs: Job) -> JSONResponse:
    return JSONResponse({"jobs": [job.id for job in jobs]}, status_code=202)


async def mail(request: Request) -> JSONResponse:
    return accepted(add_task(send_mails, 3))


async def photo(request: Request) -> JSONResponse:
    return accepted(add_task(resize_photo, "cat.jpg"))


async def poster(request: Request) -> JSONResponse:
    return accepted(add_task(draw_poster, 72, 22))


async def payment(request: Request) -> JSONResponse:
    return accepted(add_task(charge_card, 99))


async def order(request: Request) -> JSONResponse:
    return accepted(
        add_task(print_invoice, 7),
        add_task(tell_partner, 7),
        add_task(pack_parcel, 7),
    )


async def draft(request: Request) -> JSONResponse:
    job = add_task(save_draft, "It was a dark and stormy night.")
    await asyncio.sleep(1.5)  # long enough for a client to lose patience
    return accepted(job)


# What there is to see.


class Exchange(msgspec.Struct):
    """One request: when its answer was given to the server, and the jobs it left behind."""

    answered_at: float | None
    jobs: list[JobInfo]


answered: dict[str, float | None] = {}
queued: dict[str, list[Job]] = {}


class Stopwatch:
    """Notes when each request that has an X-Request-ID was answered.

    It is the outermost middleware, and finds the collector in the scope all the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        name = Headers(scope=scope).get("x-request-id") if scope["type"] == "http" else None
        if name is None:
            await self.app(scope, receive, send)
            return

        async def timed_send(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                queued[name] = list(BackgroundTasks.from_scope(scope))
                answered[name] = time.time()

        answered[name] = None
        await self.app(scope, receive, timed_send)


async def show_exchange(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in answered:
        raise HTTPException(404)
    jobs = [await job.info() for job in queued.get(name, ())]
    return as_json(Exchange(answered[name], jobs))


async def show_jobs(request: Request) -> Response:
    jobs = await runner.jobs(limit=20)
    return as_json([f"{job.id} {job.status:<9} {job.task} {job.message}" for job in jobs])


def as_json(value: object) -> Response:
    text = msgspec.json.format(msgspec.json.encode(value))
    return Response(text + b"\n", media_type="application/json")


app = Starlette(
    routes=[
        Route("/mail", mail, methods=["POST"]),
        Route("/photo", photo, methods=["POST"]),
        Route("/poster", poster, methods=["POST"]),
        Route("/payment", payment, methods=["POST"]),
        Route("/order", order, methods=["POST"]),
        Route("/draft", draft, methods=["POST"]),
        Route("/requests/{name}", show_exchange),
        Route("/jobs", show_jobs),
    ],
    middleware=[
        Middleware(Stopwatch),
        Middleware(BackgroundTaskMiddleware, runner=runner),
    ],
)
