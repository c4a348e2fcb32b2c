"""A small Falcon application, served by real servers and by Falcon's test client."""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi

from asgi_bg import Runner, add_task, task
from asgi_bg.exceptions import JobNotFound
from asgi_bg.falcon import init_app, tasks_from

DIRECTORY = os.environ.get("ASGI_BG_SERVER_TEST")

LOG: list[str] = []
visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


def note(word: str) -> None:
    LOG.append(word)


def note_visitor() -> None:
    LOG.append(f"visitor {visitor.get()}")


async def anote(word: str) -> None:
    LOG.append(word)


def fail() -> None:
    raise ValueError("task")


@task(name="falcon wait")
def wait(word: str) -> str:
    """Note the begin and the end of a job in a file, and wait for another in between."""
    folder = Path(DIRECTORY or "")
    with open(folder / "words", "a") as file:
        file.write(f"{word} begun\n")
    while not (folder / f"{word}.gate").exists():
        time.sleep(0.02)
    with open(folder / "words", "a") as file:
        file.write(f"{word}\n")
    return word


class Items:
    """Tasks by way of the request, and from any depth."""

    async def on_post(self, req: Any, resp: Any) -> None:
        visitor.set("ada")
        job = tasks_from(req).add_task(anote, "item")
        add_task(fail)
        add_task(note_visitor)
        resp.media = {"job": job.id}

    async def on_get(self, req: Any, resp: Any) -> None:
        add_task(note, "before an error")
        raise falcon.HTTPNotFound

    async def on_delete(self, req: Any, resp: Any) -> None:
        add_task(note, "before a crash")
        raise RuntimeError("responder")


class Both:
    """Falcon's own callbacks beside tasks."""

    async def on_get(self, req: Any, resp: Any) -> None:
        async def own() -> None:
            LOG.append("falcon async")

        resp.schedule(own)
        resp.schedule_sync(lambda: LOG.append("falcon sync"))
        add_task(note, "asgi_bg")
        resp.text = "ok"


class Stream:
    """A stream, and server-sent events."""

    async def on_get(self, req: Any, resp: Any) -> None:
        async def parts() -> Any:
            yield b"one"
            add_task(note, "while streaming")
            yield b"two"

        resp.stream = parts()

    async def on_put(self, req: Any, resp: Any) -> None:
        async def events() -> Any:
            yield falcon.asgi.SSEvent(text="one")
            add_task(note, "between events")
            yield falcon.asgi.SSEvent(text="two")

        resp.sse = events()

    async def on_websocket(self, req: Any, ws: Any) -> None:
        await ws.accept()
        tasks_from(req).add_task(note, await ws.receive_text())
        await ws.close()


class Durable:
    """A job that is kept, and how it stands."""

    async def on_get(self, req: Any, resp: Any, word: str) -> None:
        resp.media = {"job": add_task(wait, word).id}

    async def on_get_job(self, req: Any, resp: Any, word: str) -> None:
        try:
            resp.media = {"status": (await runner.info(word)).status}
        except JobNotFound:
            raise falcon.HTTPNotFound from None

    async def on_get_log(self, req: Any, resp: Any) -> None:
        resp.media = LOG


class Lifespan:
    """What Falcon has for startup and shutdown."""

    async def process_startup(self, scope: Any, event: Any) -> None:
        LOG.append("startup")

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        LOG.append("shutdown")


def make_app() -> falcon.asgi.App[Any, Any]:
    app = falcon.asgi.App(middleware=[Lifespan()])
    app.add_route("/items", Items())
    app.add_route("/both", Both())
    app.add_route("/stream", Stream())
    durable = Durable()
    app.add_route("/durable/{word}", durable)
    app.add_route("/jobs/{word}", durable, suffix="job")
    app.add_route("/log", durable, suffix="log")
    return app


runner = Runner(journal=Path(DIRECTORY, "journal.sqlite3") if DIRECTORY else None)
app = init_app(make_app(), runner=runner)
