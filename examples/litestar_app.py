"""Litestar: orders that are charged after the response, from a journal that outlives a crash.

    pip install 'asgi_bg[litestar]' uvicorn
    uvicorn litestar_app:app        # here, or from above: uvicorn examples.litestar_app:app

    curl -X POST localhost:8000/orders/7    # {"job": "..."}; it is on disk by now
    curl localhost:8000/jobs/...            # how it went: the first attempt fails
    curl localhost:8000/stock               # one less, counted by code that sees no request

The plugin gives handlers the request's collector as `background_tasks`, and starts and drains
the runner with the application.
"""

import tempfile
from pathlib import Path

from litestar import Litestar, get, post
from litestar.exceptions import NotFoundException

from asgi_bg import JobStatus, add_task, current_job, task
from asgi_bg.exceptions import JobNotFound
from asgi_bg.litestar import BackgroundTasks, BackgroundTasksPlugin

background = BackgroundTasksPlugin(journal=Path(tempfile.gettempdir()) / "litestar_app.db")
stock = {"socks": 100}


@task(retries=3, retry_delay=0.1, tags=("money",))
async def charge(order: int) -> str:
    """Charge the card; the bank does not answer at first."""
    if current_job().attempt == 1:
        raise ConnectionError("the bank does not answer")
    return f"order {order} is paid"


def count() -> None:
    stock["socks"] -= 1


def reserve() -> None:
    """Do something deep below the handler, where nobody has passed the request."""
    add_task(count)


@post("/orders/{order:int}", status_code=202, sync_to_thread=True)
def take_order(order: int, background_tasks: BackgroundTasks) -> dict[str, str]:
    job = background_tasks.add_task(charge, order)
    reserve()
    return {"job": job.id}


@get("/jobs/{job:str}")
async def show_job(job: str) -> dict[str, JobStatus | int | str | None]:
    try:
        info = await background.runner.info(job)
    except JobNotFound:
        raise NotFoundException("no such job") from None
    return {"status": info.status, "attempt": info.attempt, "result": info.result}


@get("/stock", sync_to_thread=False)
def show_stock() -> dict[str, int]:
    return stock


app = Litestar([take_order, show_job, show_stock], plugins=[background])
