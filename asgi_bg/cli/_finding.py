"""Jobs by what people type: their ids, or the beginnings of those; and words to choose from."""

from __future__ import annotations

import os

import typer

from asgi_bg._looking.desk import Desk
from asgi_bg.cli._exits import Problem
from asgi_bg.cli._opening import JOURNAL, keys_of, open_journal
from asgi_bg.cli._words import shown

ID_LENGTH = 32
CANDIDATES = 50
"""How many words a shell is offered."""

_AFTER_ALL = "g"  # comes after every hexadecimal digit


def id_of(desk: Desk, typed: str) -> str:
    """Return the id of the one job whose id begins as typed.

    Raises:
        Problem: There is none, or more than one.
    """
    start = typed.strip().lower().replace("-", "")
    if len(start) >= ID_LENGTH:
        return start
    found = ids_from(desk, start, 6) if start else []
    if not found:
        raise Problem(f"there is no job whose id begins with {shown(typed)!r}")
    if len(found) > 1:
        listed = ", ".join(found[:5]) + (", and more" if len(found) > 5 else "")
        raise Problem(f"the ids of several jobs begin with {shown(typed)}: {listed}; type more")
    return found[0]


def ids_from(desk: Desk, start: str, limit: int) -> list[str]:
    """Return the ids of the newest jobs that begin so; it is quick in any journal."""
    page = desk.search(after=start + _AFTER_ALL, limit=limit)
    return [job.id for job in page.jobs if job.id.startswith(start)]


def complete_id(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer a shell the newest jobs whose ids begin so."""
    page = _offer(ctx, after=incomplete.lower() + _AFTER_ALL)
    return [(job, f"{status} {task}") for job, status, task in page if job.startswith(incomplete)]


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer a shell the tasks of the newest jobs."""
    tasks = {task for _, _, task in _offer(ctx, limit=1000)}
    return sorted(task for task in tasks if task.startswith(incomplete))


def _offer(
    ctx: typer.Context, *, after: str | None = None, limit: int = CANDIDATES
) -> list[tuple[str, str, str]]:
    contexts = [one for one in (ctx, ctx.parent) if one is not None]
    given = {
        name: next((one.params[name] for one in contexts if one.params.get(name)), None)
        for name in ("journal", "key_file")
    }
    path = given["journal"] or os.environ.get(JOURNAL)
    if not path:
        return []
    try:
        journal = open_journal(path, keys_of(given["key_file"]))
        try:
            page = Desk(journal).search(after=after, limit=limit)
        finally:
            journal.close()
    except Exception:  # a shell that completes has no place for messages
        return []
    return [(job.id, job.status.value, shown(job.task)) for job in page.jobs]
