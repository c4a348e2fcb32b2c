"""Runs the Redis that some of the peers need: its own, empty, and writing nothing to disk."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager

START_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0


@contextmanager
def running(core: int) -> Generator[str]:
    """Run Redis on one core, and give its address.

    Raises:
        RuntimeError: It did not start.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            (
                *("taskset", "--cpu-list", str(core), "redis-server"),
                *("--bind", "127.0.0.1", "--port", str(port), "--dir", directory),
                *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
            ),
            stdout=subprocess.DEVNULL,
        )
        try:
            _await_ready(process, port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError("redis-server did not start; it has said above why")
        time.sleep(0.05)
