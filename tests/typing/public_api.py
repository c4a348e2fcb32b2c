"""Checked by the type checkers, never run: what fits, what does not, and what comes back."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from asgiref.typing import ASGI3Application
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from typing_extensions import assert_type

from asgi_bg import (
    BackgroundTaskMiddleware,
    BackgroundTasks,
    Job,
    JobEvent,
    JobInfo,
    Runner,
    Task,
    add_task,
    current_job,
    task,
)
from asgi_bg.fastapi import BackgroundTasks as FastAPITasks
from asgi_bg.fastapi import init_app
from asgi_bg.journal import Journal, SQLiteJournal


def send(to: str, *, copies: int = 1) -> bool: ...  # type: ignore[empty-body]


async def asend(to: str, copies: int = 1) -> bool: ...  # type: ignore[empty-body]


async def adding(tasks: BackgroundTasks, runner: Runner) -> None:
    assert_type(tasks.add_task(send, "me", copies=2), Job)
    assert_type(tasks.add_task(asend, "me", 2), Job)
    assert_type(add_task(send, to="me"), Job)
    assert_type(await runner.add_task(asend, "me"), Job)
    tasks.add_task(lambda: asend("me"))

    tasks.add_task(send)  # type: ignore[call-overload]  # pyright: ignore
    tasks.add_task(send, 5)  # type: ignore[call-overload]  # pyright: ignore
    add_task(asend, "me", "two")  # type: ignore[call-overload]  # pyright: ignore
    add_task(send, "me", copy=2)  # type: ignore[call-arg]  # pyright: ignore
    await runner.add_task(send, "me", 2)  # type: ignore[call-overload]  # pyright: ignore


@task
def declared(to: str) -> int: ...  # type: ignore[empty-body]


@task(retries=3, timeout=2.5, retry_on=(OSError,), executor="process", run_on="success")
def with_options(to: str) -> int: ...  # type: ignore[empty-body]


@task(concurrency=2)
async def on_loop(to: str) -> int: ...  # type: ignore[empty-body]


def declaring(tasks: BackgroundTasks) -> None:
    assert_type(declared("me"), int)
    assert_type(with_options("me"), int)
    called: Coroutine[Any, Any, int] = on_loop("me")
    called.close()
    assert_type(declared.name, str)
    changed: Task[[str], int] = declared.using(delay=5, key="k")
    tasks.add_task(changed, "me")

    declared(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tasks.add_task(changed, 5)  # type: ignore[call-overload]  # pyright: ignore
    declared.using(retry=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    task(retries="3")(send)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    task(delay=3)(send)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]


async def looking(runner: Runner, job: Job) -> None:
    assert_type(job.id, str)
    assert_type(await job.info(), JobInfo)
    assert_type(await runner.jobs(status="failed", limit=5), list[JobInfo])
    assert_type(await runner.drain(5), bool)
    assert_type(runner.stats()["queued"], int)
    assert_type(current_job().attempt, int)
    assert_type(current_job().cancelled, bool)


def listening(event: JobEvent) -> None:
    assert_type(event.name, str)
    assert_type(event.job, JobInfo)


def installing(starlette: Starlette, fastapi: FastAPI, raw: ASGI3Application) -> None:
    BackgroundTaskMiddleware(starlette)
    BackgroundTaskMiddleware(fastapi, runner=Runner(on_event=listening))
    BackgroundTaskMiddleware(raw, max_jobs=5, run_on="always")
    starlette.add_middleware(BackgroundTaskMiddleware, max_jobs=5)
    fastapi.add_middleware(BackgroundTaskMiddleware, runner=Runner())
    Starlette(middleware=[Middleware(BackgroundTaskMiddleware, run_on="success")])
    assert_type(init_app(fastapi, history=5), Runner)

    BackgroundTaskMiddleware(raw, max_job=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BackgroundTaskMiddleware(raw, run_on="ok")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def endpoint(tasks: FastAPITasks) -> None:
    assert_type(tasks, BackgroundTasks)
    tasks.add_task(send, "me")
    tasks.add_task(send, 5)  # type: ignore[call-overload]  # pyright: ignore


async def keeping(app: ASGI3Application) -> None:
    journal: Journal = SQLiteJournal("jobs.db", durability="normal", retention={"failed": None})
    assert_type(Runner(journal=journal), Runner)
    Runner(journal=Path("jobs.db"))
    BackgroundTaskMiddleware(app, journal="jobs.db")
    Runner(journal=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    SQLiteJournal("jobs.db", durability="none")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
