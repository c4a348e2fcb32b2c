"""A shop's jobs, and a dashboard to look at them: tasks that work, fail, wait and take long.

    pip install 'asgi_bg[web]' uvicorn
    uvicorn dashboard:app           # here, or from above: uvicorn examples.dashboard:app

    curl -X POST 'localhost:8000/orders?n=20'    # twenty orders, each with some jobs
    open http://localhost:8000/jobs/             # in a browser: the dashboard

The jobs are kept in "dashboard-example.db" in the system's temporary folder. Without
`authorize=` the dashboard serves this machine only; with `DASHBOARD_PASSWORD` set it asks
everybody for a name and that password, from wherever they come.
"""

import asyncio
import base64
import logging
import os
import random
import secrets
import tempfile
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.web import Dashboard

PASSWORD = os.environ.get("DASHBOARD_PASSWORD", "")

log = logging.getLogger("shop")
log.setLevel(logging.INFO)

runner = Runner(journal=Path(tempfile.gettempdir(), "dashboard-example.db"), max_threads=4)


@task(name="shop.send_receipt", redact=("card",), tags=("mail",))
async def send_receipt(order: int, email: str, card: str) -> str:
    await asyncio.sleep(random.uniform(0.02, 0.3))
    log.info("receipt of order %d sent to %s", order, email)
    return f"receipt-{order}.pdf"


@task(name="shop.charge", retries=3, retry_delay=2.0, retry_on=(ConnectionError,))
def charge(order: int, cents: int) -> dict[str, int]:
    """Fails now and then, and is tried again."""
    time.sleep(random.uniform(0.05, 0.4))
    if random.random() < 0.4:
        raise ConnectionError("the bank does not answer")
    return {"order": order, "charged": cents}


@task(name="shop.resize_photos", concurrency=3)
async def resize_photos(order: int, names: list[str]) -> int:
    """Tells how far it is."""
    for done, name in enumerate(names):
        current_job().progress(done / len(names), f"resizing {name}")
        await asyncio.sleep(random.uniform(0.2, 0.6))
    return len(names)


@task(name="shop.check_stock")
def check_stock(order: int, article: str) -> int:
    """Fails for one article, and is not tried again."""
    stock = {"chair": 7, "table": 2}
    log.warning("stock of %s is low", article)
    return stock[article]


@task(name="shop.ask_for_review")
async def ask_for_review(order: int) -> None:
    """Is put off until the customer has had a look."""


async def order(request: Request) -> JSONResponse:
    for _ in range(min(int(request.query_params.get("n", "1")), 1000)):
        number = random.randrange(10_000, 100_000)
        add_task(send_receipt, number, "ada@example.com", card="4111 1111 1111 1111")
        add_task(charge, number, random.randrange(500, 20_000))
        add_task(check_stock, number, random.choice(["chair", "table", "lamp"]))
        add_task(ask_for_review.using(delay=3600), number)
        if random.random() < 0.3:
            add_task(resize_photos, number, [f"photo-{one}.jpg" for one in range(12)])
    return JSONResponse({"status": "accepted"}, status_code=202)


def staff_only(request: Request) -> str | Response:
    """Ask for a name and the password, and return the name."""
    kind, _, sent = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            name, _, password = base64.b64decode(sent).decode().partition(":")
        except ValueError:
            name = password = ""
        if name and secrets.compare_digest(password.encode(), PASSWORD.encode()):
            return name
    return Response("who is there?", 401, {"www-authenticate": 'Basic realm="jobs"'})


async def home(request: Request) -> RedirectResponse:
    return RedirectResponse("/jobs/")


app = Starlette(
    routes=[
        Route("/", home),
        Route("/orders", order, methods=["POST"]),
        Mount("/jobs", Dashboard(runner, authorize=staff_only if PASSWORD else None)),
    ],
    middleware=[Middleware(BackgroundTaskMiddleware, runner=runner)],
)
