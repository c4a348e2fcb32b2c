"""What the project does, whoever runs it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

STORE = Path(os.environ.get("STORE", "store"))


def make_thumbnail(name: str) -> None:
    """Stand in for an image library: the smaller one is the checksum of the larger one."""
    content = (STORE / name).read_bytes()
    (STORE / f"{name}.thumb").write_text(f"{zlib.crc32(content):08x}")


async def announce(name: str) -> None:
    """Stand in for a webhook: one line an upload."""
    with (STORE / "announced.txt").open("a") as file:
        file.write(f"{name}\n")
