"""FastAPI: reports that take a processor for a while, made after the response, with progress.

    pip install 'asgi_bg[fastapi]' uvicorn
    uvicorn fastapi_app:app         # here, or from above: uvicorn examples.fastapi_app:app

    curl -X POST localhost:8000/reports/2024    # {"job": "..."}, before it is begun
    curl localhost:8000/jobs/...                # how far it is, and in the end the report
    curl localhost:8000/audit                   # who asked for what, noted by a dependency

`BackgroundTasks` is imported from here instead of from FastAPI; the endpoints are written as
ever. `executor="process"` takes the work to another process: the server goes on answering.
"""

import calendar
import random

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from asgi_bg import JobStatus, current_job, task
from asgi_bg.exceptions import JobNotFound
from asgi_bg.fastapi import BackgroundTasks, init_app

app = FastAPI()
runner = init_app(app, max_processes=2)

audit_log: list[str] = []


class Queued(BaseModel):
    """The job that was queued, to be followed at /jobs."""

    job: str


class JobState(BaseModel):
    """What a client is told of its job."""

    status: JobStatus
    progress: float | None
    message: str
    result: dict[str, float] | None
    error: str | None


@task(executor="process", timeout=60)
def make_report(year: int, orders: int) -> dict[str, float]:
    """Return the average order of each month."""
    job = current_job()
    averages: dict[str, float] = {}
    for month in range(1, 13):
        dice = random.Random(f"{year}-{month}")
        total = sum(dice.paretovariate(3) for _ in range(orders))
        averages[calendar.month_abbr[month]] = round(20 * total / orders, 2)
        job.progress(month / 12, f"{calendar.month_name[month]} is done")
    return averages


async def note(line: str) -> None:
    audit_log.append(line)


async def audited(request: Request, tasks: BackgroundTasks) -> None:
    """Note who asks for what: a dependency can queue tasks as an endpoint can."""
    client = request.client.host if request.client else "somebody"
    tasks.add_task(note, f"{client}: {request.method} {request.url.path}")


@app.post("/reports/{year}", status_code=202, dependencies=[Depends(audited)])
async def order_report(year: int, tasks: BackgroundTasks, orders: int = 200_000) -> Queued:
    job = tasks.add_task(make_report, year, orders)
    return Queued(job=job.id)


@app.get("/jobs/{id}")
async def show_job(id: str) -> JobState:
    try:
        info = await runner.info(id)
    except JobNotFound:
        raise HTTPException(404, "no such job") from None
    return JobState.model_validate(info, from_attributes=True)


@app.get("/audit")
async def show_audit_log() -> list[str]:
    return audit_log
