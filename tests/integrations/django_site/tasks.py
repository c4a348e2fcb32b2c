"""Its tasks: they write through the ORM."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextvars import ContextVar
from pathlib import Path

from asgiref.sync import async_to_sync

from asgi_bg import current_job, task
from tests.integrations.django_site.models import Note

visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


def note(word: str) -> None:
    """A plain function with the ORM."""
    Note.objects.create(word=word, thread=threading.current_thread().name)


def note_visitor() -> None:
    """It sees the context of its `add_task` (R4)."""
    note(f"visitor {visitor.get()}")


async def anote(word: str) -> None:
    """An async one: the ORM runs in a thread."""
    await Note.objects.acreate(word=word)
    assert await Note.objects.filter(word=word).aexists()


async def anote_and_fail(word: str) -> None:
    """One that fails, and whose context is kept for a retry by hand."""
    await anote(word)
    raise ValueError(word)


def note_through_async(word: str) -> None:
    """A plain function that calls async code."""
    async_to_sync(anote)(word)


@task
def durable_note(word: str) -> str:
    """One that a journal keeps. It may be told to wait for a file."""
    gate = Path(os.environ.get("ASGI_BG_SERVER_TEST", ""), f"{word}.gate")
    Note.objects.create(word=f"{word} begun")
    while word.startswith("wait") and not gate.exists():
        time.sleep(0.02)
    Note.objects.create(word=word, thread=threading.current_thread().name)
    return word


@task
async def durable_anote(word: str) -> str:
    """The same, async."""
    gate = Path(os.environ.get("ASGI_BG_SERVER_TEST", ""), f"{word}.gate")
    await Note.objects.acreate(word=f"{word} begun")
    while word.startswith("wait") and not gate.exists():
        await asyncio.sleep(0.02)
    await Note.objects.acreate(word=word)
    return word


@task(retries=2, retry_delay=0.01)
def flaky_note(word: str) -> None:
    """One that succeeds the second time, when its request is long over."""
    if current_job().attempt == 1:
        raise ValueError("not yet")
    note(word)
