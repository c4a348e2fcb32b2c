"""The server that demo.py starts, and kills: its jobs are kept in a file.

pip install 'asgi_bg[starlette]' uvicorn
uvicorn demo_server:app         # here, or from above: uvicorn examples.demo_server:app

curl -X POST localhost:8000/poster
curl localhost:8000/jobs
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_bg import BackgroundTaskMiddleware, Job, Runner, add_task, current_job, task

DIRECTORY = Path(os.environ.get("DEMO_DIRECTORY") or f"{tempfile.gettempdir()}/asgi_bg_demo")
DIRECTORY.mkdir(exist_ok=True)

runner = Runner(journal=DIRECTORY / "jobs.db", max_jobs=8, max_processes=1)

# What the tasks themselves say of where and when they run: the demo does not take the
# journal's word for it.
notebook = os.open(DIRECTORY / "notebook", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@contextmanager
def noted(process: int = os.getpid()) -> Generator[None, None, None]:
    """Write down that an attempt begins, and how it ends, if it comes to that."""

    def note(word: str) -> None:
        os.write(notebook, f"{word} {current_job().id} {process} {time.time()}\n".encode())

    note("begins")
    try:
        yield
    except BaseException:
        note("fails")
        raise
    note("ends")


# The tasks. They have names of their own, as a job that is kept finds its task by the name.


@task(name="send_mail")
async def send_mail(to: str) -> str:
    with noted():
        await asyncio.sleep(0.4)
    return f"mail sent to {to}"


@task(name="resize_photo")
def resize_photo(name: str) -> str:
    with noted():
        time.sleep(1)  # blocks its thread, and nobody else
    return f"{name} resized"


@task(name="charge_card", retries=3, retry_delay=0.8)
async def charge_card(amount: int) -> str:
    with noted():
        await asyncio.sleep(0.1)
        if (attempt := current_job().attempt) < 3:
            raise ConnectionError(f"the bank is not answering, attempt {attempt}")
    return f"{amount} euros charged"


@task(name="draw_poster", executor="process")
def draw_poster(width: int, height: int) -> str:
    """Draw the Mandelbrot set, which keeps a processor busy for a second or two."""
    with noted(os.getppid()):
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


@task(name="send_reminder")
async def send_reminder(to: str) -> str:
    with noted():
        return f"{to} reminded"


@task(name="count_visit")
async def count_visit() -> None:
    with noted():
        await asyncio.sleep(0.05)


# The endpoints. Not one of them waits for its task, and none answers before the job is on
# disk: the middleware sees to both.


def accepted(job: Job) -> JSONResponse:
    about = {"job": job.id, "task": job.task_name, "process": os.getpid()}
    return JSONResponse(about, status_code=202)


async def mail(request: Request) -> JSONResponse:
    return accepted(add_task(send_mail, "ada@example.com"))


async def photo(request: Request) -> JSONResponse:
    return accepted(add_task(resize_photo, "cat.jpg"))


async def payment(request: Request) -> JSONResponse:
    return accepted(add_task(charge_card, 99))


async def poster(request: Request) -> JSONResponse:
    return accepted(add_task(draw_poster, 72, 22))


async def reminder(request: Request) -> JSONResponse:
    return accepted(add_task(send_reminder.using(delay=4), "ada@example.com"))


async def visit(request: Request) -> JSONResponse:
    return accepted(add_task(count_visit))


# What there is to see.


async def show_jobs(request: Request) -> Response:
    return as_json(await runner.jobs(limit=int(request.query_params.get("limit", "20"))))


async def show_job(request: Request) -> Response:
    return as_json(await runner.info(request.path_params["id"]))


async def show_stats(request: Request) -> Response:
    return as_json(runner.stats())


def as_json(value: object) -> Response:
    text = msgspec.json.format(msgspec.json.encode(value))
    return Response(text + b"\n", media_type="application/json")


app = Starlette(
    routes=[
        Route("/mail", mail, methods=["POST"]),
        Route("/photo", photo, methods=["POST"]),
        Route("/payment", payment, methods=["POST"]),
        Route("/poster", poster, methods=["POST"]),
        Route("/reminder", reminder, methods=["POST"]),
        Route("/visit", visit, methods=["POST"]),
        Route("/jobs", show_jobs),
        Route("/jobs/{id}", show_job),
        Route("/stats", show_stats),
    ],
    middleware=[Middleware(BackgroundTaskMiddleware, runner=runner)],
)
