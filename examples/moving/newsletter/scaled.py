"""The same with ARQ's workers behind it: uvicorn examples.moving.newsletter.scaled:app.

It needs Redis, and a worker: arq examples.moving.newsletter.scaled.WorkerSettings.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.routing import Route

from asgi_bg.engines.arq import ArqEngine
from asgi_bg.starlette import init_app
from examples.moving.newsletter.after import publish
from examples.moving.newsletter.common import REDIS

engine = ArqEngine(REDIS)
WorkerSettings = engine.worker_settings()

app = Starlette(routes=[Route("/{issue:int}", publish, methods=["POST"])])
init_app(app, journal=os.environ.get("JOURNAL", "jobs.db"), engine=engine)
