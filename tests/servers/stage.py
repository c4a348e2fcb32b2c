"""What goes on in a server's process, told to the test, and told when to go on.

Imported by the apps that the tests serve. What has happened goes to a record file that all
processes append to, and what shall wait waits for a file to appear (a gate). So tests decide
when things go on, and compare what happened where and when.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

DIRECTORY = Path(os.environ["ASGI_BG_SERVER_TEST"])
POLL_INTERVAL = 0.02
CHUNK = b"x" * 65_536


def record(event: str, **fields: Any) -> None:
    """Append one line to the record; a single write, so that processes do not mix theirs."""
    line = json.dumps({"event": event, "at": time.monotonic(), "pid": os.getpid(), **fields})
    with open(DIRECTORY / "record.jsonl", "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def is_open(gate: str) -> bool:
    return (DIRECTORY / gate).exists()


async def passing(gate: str) -> None:
    """Wait for a gate on the event loop."""
    while not is_open(gate):
        await asyncio.sleep(POLL_INTERVAL)


def pass_in_thread(gate: str) -> None:
    """Wait for a gate in a thread or a process of one's own."""
    while not is_open(gate):
        time.sleep(POLL_INTERVAL)


async def parts_until(gate: str) -> AsyncIterator[bytes]:
    """Give parts of a stream until a gate opens, and then the last."""
    while not is_open(gate):
        yield b"more"
        await asyncio.sleep(POLL_INTERVAL)
    yield b"last"
