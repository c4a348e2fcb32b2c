"""What the project does, whoever runs it."""

from __future__ import annotations

import os
from pathlib import Path

OUTBOX = Path(os.environ.get("OUTBOX", "outbox.txt"))
REDIS = os.environ.get("REDIS", "redis://127.0.0.1:6379")
READERS = ("ada", "bob")


def deliver(reader: str, issue: int) -> None:
    """Stand in for a mail server: one line a mail."""
    with OUTBOX.open("a") as file:
        file.write(f"{reader} reads issue {issue}\n")
