"""Tasks that note what they do, in the process of the application."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

LOG: list[str] = []
visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


def note(word: str) -> None:
    LOG.append(word)


async def anote(word: str) -> None:
    await asyncio.sleep(0)
    LOG.append(word)


def note_visitor() -> None:
    """It sees the context of its `add_task` (R4)."""
    LOG.append(f"visitor {visitor.get()}")


def fail() -> None:
    raise ValueError("task")
