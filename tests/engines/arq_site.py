"""An ARQ project, as the processes of its tests import it: tasks, worker settings, and an app.

Where Redis is stands in the environment. What happens is written to a file, one line each.
"""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.engines.arq import ArqEngine

_settings = os.environ


@dataclass
class Item:
    """Something whose parts want to come back as they were."""

    number: int
    when: datetime


def tell(*words: object) -> None:
    """Append a line to the record."""
    with open(_settings["SITE_RECORD"], "a") as record:
        record.write(" ".join(map(str, words)) + "\n")


@task(name="arq-site:note")
async def note(word: str) -> str:
    """The simplest task."""
    tell("note", word)
    return word


@task(name="arq-site:elsewhere", queue="arq-site:other-queue")
async def elsewhere(word: str) -> None:
    """Has a queue of its own."""


@task(name="arq-site:plain")
def plain(number: int) -> list[Any]:
    """A plain function."""
    return [2 * number, threading.current_thread() is threading.main_thread()]


@task(name="arq-site:rich")
async def rich(when: datetime, who: UUID, item: Item) -> Item:
    """Takes and returns what JSON does not know."""
    tell("rich", type(when).__name__, type(who).__name__, type(item.when).__name__)
    return Item(item.number + 1, when)


@task(name="arq-site:about")
async def about() -> list[Any]:
    """Says what it knows of itself."""
    job = current_job()
    return [job.id, job.task_name, job.attempt]


@task(name="arq-site:flaky", retries=2, retry_delay=0.2)
def flaky(fails: int) -> int:
    """Fails some times."""
    attempt = current_job().attempt
    tell("flaky", current_job().id, attempt)
    if attempt <= fails:
        raise ValueError(f"failure {attempt}")
    return attempt


@task(name="arq-site:picky", retries=2, retry_delay=0.1, retry_on=(OSError,))
def picky() -> None:
    """Fails in a way that is not to be tried again."""
    tell("picky", current_job().id)
    raise ValueError("not to be tried again: \udcff")


@task(name="arq-site:late", timeout=0.2)
async def late() -> None:
    """Takes too long."""
    await asyncio.sleep(60)


@task(name="arq-site:parent")
async def parent(word: str) -> None:
    """Adds another job."""
    add_task(note, word)


@task(name="arq-site:secret", redact=("card",))
async def secret(card: str) -> None:
    """Has an argument that nobody should read in a log."""


@task(name="arq-site:held", retries=1, retry_delay=0.1)
async def held(gate: str, fails: bool = False) -> str:
    """Goes on when a file is there."""
    tell("start", gate, os.getpid(), current_job().attempt)
    while not Path(gate).exists():
        await asyncio.sleep(0.02)
    tell("end", gate, os.getpid())
    if fails and current_job().attempt == 1:
        raise ValueError("the first attempt fails")
    return gate


@task(name="arq-site:deadly")
async def deadly(word: str) -> None:
    """Takes its worker along."""
    tell("deadly", word)
    os._exit(7)


async def own(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> list[Any]:
    """A function of ARQ's own."""
    tell("own", ctx["job_id"])
    return [ctx["user"], *args, kwargs]


async def own_slow(ctx: dict[Any, Any], seconds: float) -> str:
    """A function of ARQ's own that takes its time."""
    await asyncio.sleep(seconds)
    return "done"


async def startup(ctx: dict[Any, Any]) -> None:
    """Provide what the functions use."""
    ctx["user"] = "started"
    tell("startup")


async def shutdown(ctx: dict[Any, Any]) -> None:
    """End that."""
    tell("shutdown", ctx["user"])


if "SITE_REDIS" in _settings:
    engine = ArqEngine(
        _settings["SITE_REDIS"],
        queue=_settings["SITE_QUEUE"],
        consume=_settings.get("SITE_CONSUME") == "yes",
        lease=float(_settings.get("SITE_LEASE", "60")),
    )
    # Made before some of the tasks are declared.
    WorkerSettings = engine.worker_settings(
        functions=[own, own_slow],
        on_startup=startup,
        on_shutdown=shutdown,
        poll_delay=0.05,
        allow_abort_jobs=True,
        log_results=True,
    )
    runner = Runner(engine=engine, journal=_settings.get("SITE_JOURNAL"), drain_timeout=2.0)

    @task(name="arq-site:declared-later")
    async def declared_later() -> str:
        """A task that is declared when the settings have been made."""
        return "known"

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        """Add the job that the path asks for, and answer with its id."""
        _, name, argument = scope["path"].split("/", 2)
        tasks: dict[str, Any] = {"note": note, "held": held, "own": "own"}
        job = add_task(tasks[name], argument)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": job.id.encode()})

    app = BackgroundTaskMiddleware(answer, runner=runner)
