"""Serves one variant on one core: ``python -m benchmarks.serve VARIANT CORE [STORE...]``.

The stores are where the variant keeps its jobs: a file, the address of a server, or both.
The first line it prints is the port, a free one of the loopback interface.
"""

from __future__ import annotations

import os
import socket
import sys

import uvicorn

from benchmarks import apps, durable_apps, engine_apps, queue_apps, telemetry

BUILDERS = (
    apps.BUILDERS
    | durable_apps.BUILDERS
    | queue_apps.BUILDERS
    | engine_apps.BUILDERS
    | telemetry.BUILDERS
)


def main() -> None:
    """Serve until the process is told to end."""
    key, core, *store = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        BUILDERS[key](*store),
        loop="uvloop",
        http="httptools",
        lifespan="auto",
        access_log=False,
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
