"""How jobs look in a list: as wide rows, as cards in narrow terminals, as lines in pipes."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg.cli._session import Session, now
from asgi_bg.cli._words import age, bar, shown

WIDE = 110
"""From how many columns on a job is a row; below it is a card, so that ids stay whole."""

STYLES = {
    "queued": "cyan",
    "running": "bold blue",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "handed over": "magenta",
}

COLUMNS = ("id", "status", "task", "queued_at", "attempt", "progress", "error")
"""The columns of lines in pipes, separated by tabs."""


def standing(job: JobInfo) -> str:
    """Return in words how a job stands; one that an engine has is ``handed over``."""
    is_away = job.handed_over_at is not None and not job.status.is_final
    return "handed over" if is_away else job.status.value


def standing_text(job: JobInfo) -> Text:
    """Return how a job stands, in its colour."""
    word = standing(job)
    return Text(word, style=STYLES[word])


def is_ascii(session: Session) -> bool:
    """Whether the terminal shows letters only."""
    return not session.out.encoding.lower().startswith("utf")


def progress_of(session: Session, job: JobInfo, width: int) -> str:
    """Return a job's progress as a bar; nothing if it told none, or has done its work."""
    if job.progress is None or job.status is JobStatus.succeeded:
        return ""
    return bar(job.progress, width, is_ascii=is_ascii(session))


def show_lines(session: Session, jobs: Iterable[JobInfo], *, is_first: bool) -> None:
    """Write jobs for other programs: a line each, in full, after a line of names."""
    if is_first:
        session.write("\t".join(COLUMNS) + "\n")
    for job in jobs:
        values = (
            job.id,
            standing(job),
            job.task,
            session.at(job.queued_at),
            str(job.attempt),
            "" if job.progress is None else f"{job.progress:.3f}",
            job.error or "",
        )
        session.write("\t".join(shown(value) for value in values) + "\n")


def show_jobs(session: Session, jobs: Iterable[JobInfo], *, is_first: bool) -> None:
    """Write jobs for people, as wide as the terminal is."""
    if session.out.width >= WIDE:
        session.out.print(rows_of(session, jobs, session.out.width, is_first=is_first))
    else:
        for job in jobs:
            for line in card_of(session, job):
                session.out.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def rows_of(
    session: Session, jobs: Iterable[JobInfo], width: int, *, is_first: bool = True
) -> Table:
    """Return jobs as rows; columns are as wide on every page, so that pages align."""
    fixed = {"id": 32, "status": 11, "age": 8, "attempt": 7, "progress": 12}
    free = width - sum(fixed.values()) - 6
    task = max(10, min(40, free // 2))
    widths = {**fixed, "task": task, "error": max(free - task, 5)}
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=is_first)
    for name in ("id", "status", "task", "age", "attempt", "progress", "error"):
        table.add_column(
            name,
            width=widths[name],
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if name == "attempt" else "left",
        )
    moment = now()
    for job in jobs:
        table.add_row(
            job.id,
            standing_text(job),
            Text(shown(job.task)),
            age(job.queued_at, moment),
            str(job.attempt),
            progress_of(session, job, fixed["progress"]),
            Text(shown(job.error or ""), style="red"),
        )
    return table


def card_of(session: Session, job: JobInfo) -> list[Text]:
    """Return a job as two or three short lines."""
    first = standing_text(job)
    first.append(f"  {shown(job.task)}", style="bold")
    second = Text(f"  {job.id}", style="dim")
    third = [age(job.queued_at, now())]
    if job.attempt > 1:
        third.append(f"attempt {job.attempt}")
    if progress := progress_of(session, job, 16):
        third.append(progress)
    lines = [first, second, Text("  " + "  ".join(third))]
    if job.error:
        lines.append(Text(f"  {shown(job.error)}", style="red"))
    return lines
