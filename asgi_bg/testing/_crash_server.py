"""The server of a `asgi_bg.testing.crash.CrashSite`, which kills itself where it is told to.

Run by that as a program, with three arguments: the app, ``factory`` or ``app``, and the directory
of the site. It serves until it is killed or terminated, or the test is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asgi_bg._runner import Runner
from asgi_bg.events import JobEvent

try:
    import uvicorn
except ImportError as exc:
    raise ImportError(
        "asgi_bg.testing.crash needs uvicorn; install it with: pip install 'asgi_bg[testing]'"
    ) from exc

__all__ = ["main"]


class Trap:
    """Hears of all that happens to jobs, and kills the process at one of these things.

    Args:
        path: A file with the name of an event and, if it is not of any task, that of a task.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: JobEvent) -> None:
        """Kill the process if this is what the file says."""
        try:
            name, task = self._path.read_text().split("\n")
        except FileNotFoundError:
            return
        if event.name == name and task in ("", event.task):
            self._path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # whatever is left of this thread's time


class Server(uvicorn.Server):
    """A server that tells when it serves, and at which port."""

    port_file: Path

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and write the port down."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            written = self.port_file.with_suffix(".new")
            written.write_text(str(port))
            written.replace(self.port_file)


def set_up(trap: Trap) -> None:
    """Have every runner that is made from now on tell the trap, too."""
    make: Callable[..., None] = Runner.__init__

    def make_heard(self: Runner, **options: Any) -> None:
        told: Any = options.pop("on_event", ())
        others: Iterable[Any] = (told,) if callable(told) else tuple(told)
        make(self, **options, on_event=(*others, trap))

    Runner.__init__ = make_heard  # type: ignore[method-assign]


def end_with_the_test() -> None:
    """End once the pipe from the test is closed, which it is however that ends."""
    sys.stdin.buffer.read()
    os._exit(1)


def main(app: str, kind: str, directory: str) -> None:
    """Serve an app."""
    threading.Thread(target=end_with_the_test, daemon=True).start()
    set_up(Trap(Path(directory, "trap")))
    config = uvicorn.Config(app, factory=kind == "factory", host="127.0.0.1", port=0)
    server = Server(config)
    server.port_file = Path(directory, "port")
    server.run()
    if not server.started:
        sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
