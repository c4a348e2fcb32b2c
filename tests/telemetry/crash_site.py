"""A process that adds a job in a request and is killed, and one that runs it: ``ROLE JOURNAL``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, task
from tests.helpers import BODY, START, Connection, responding
from tests.telemetry.sdk import Telemetry

role, journal = sys.argv[1:]


@task
async def fatal() -> None:
    if role == "die":
        os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    telemetry = Telemetry()
    async with Runner(on_event=telemetry.events(), journal=journal) as runner:
        if role == "die":
            app = BackgroundTaskMiddleware(
                responding(START, BODY, before=lambda: add_task(fatal)), runner=runner
            )
            with telemetry.tracer.start_as_current_span("request") as span:
                context = span.get_span_context()
                print(json.dumps([context.trace_id, context.span_id]), flush=True)
                await Connection().call(app)
            await asyncio.sleep(60)  # it is killed meanwhile
        deadline = asyncio.get_running_loop().time() + 40
        while not telemetry.spans():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
    (span,) = telemetry.spans()
    links = [[link.context.trace_id, link.context.span_id] for link in span.links]
    attempt = span.attributes["asgi_bg.attempt"]
    print(json.dumps({"attempt": attempt, "links": links, "traces": len(telemetry.spans())}))
    telemetry.close()


asyncio.run(main())
