"""A small Falcon application, for Falcon's test client; and a part of `sites.falcon`."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi

from asgi_bg import add_task
from asgi_bg.falcon import tasks_from
from tests.integrations.notes import LOG, anote, fail, note, note_visitor, visitor


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
    return app
