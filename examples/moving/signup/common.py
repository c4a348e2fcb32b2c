"""What the project does, whoever runs it."""

from __future__ import annotations

import os
from pathlib import Path

OUTBOX = Path(os.environ.get("OUTBOX", "outbox.txt"))


def send_mail(to: str, subject: str) -> None:
    """Stand in for a mail server: one line a mail."""
    with OUTBOX.open("a") as file:
        file.write(f"{to}: {subject}\n")


async def log_visit(path: str) -> None:
    """Stand in for a service that counts visits."""
    with OUTBOX.open("a") as file:  # noqa: ASYNC230 - one line
        file.write(f"visit of {path}\n")
