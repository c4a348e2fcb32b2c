"""With Falcon; beside what all sites have, the application of its test client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from asgi_bg import add_task
from asgi_bg.falcon import init_app, tasks_from
from tests.integrations import falcon_site
from tests.integrations.notes import LOG
from tests.servers.observed import Observed
from tests.servers.stage import DIRECTORY, parts_until, record
from tests.servers.tasks import durable_sync_task, durable_task


class Durable:
    """Jobs that are kept."""

    async def on_get_async(self, req: Any, resp: Any) -> None:
        name = req.get_param("id")
        job = tasks_from(req).add_task(durable_task, name, f"{name}.task")
        resp.media = {"job": job.id}

    async def on_get_sync(self, req: Any, resp: Any) -> None:
        name = req.get_param("id")
        resp.media = {"job": add_task(durable_sync_task, name, f"{name}.task").id}

    async def on_get_parts(self, req: Any, resp: Any) -> None:
        name = req.get_param("id")

        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            add_task(durable_task, name, f"{name}.task")
            async for part in parts_until(f"{name}.app"):
                yield part

        resp.stream = parts()


class Words:
    """What the application's own routes have noted."""

    async def on_get(self, req: Any, resp: Any) -> None:
        resp.media = LOG


class Lifespan:
    """What Falcon has for startup and shutdown."""

    async def process_startup(self, scope: Any, event: Any) -> None:
        record("opened")

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        record("closed")


_falcon = falcon_site.make_app()
_falcon.add_middleware(Lifespan())
_durable = Durable()
for name in ("async", "sync", "parts"):
    _falcon.add_route(f"/{name}", _durable, suffix=name)
_falcon.add_route("/words", Words())

app = init_app(_falcon, journal=DIRECTORY / "jobs.db")
served = Observed(app)
