"""The commands that look: ``list``, ``show`` and ``stats``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.status import Status

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg.cli._exits import USAGE, Problem
from asgi_bg.cli._finding import complete_id, complete_task, id_of
from asgi_bg.cli._listing import show_jobs, show_lines
from asgi_bg.cli._page import show_page
from asgi_bg.cli._session import Session, as_json
from asgi_bg.cli._situation import show_overview
from asgi_bg.cli._words import seconds_in, shown

PAGE = 500
"""How many jobs are asked for at a time where all are listed."""

BUCKETS = 60


def list_jobs(
    session: Session,
    status: Annotated[
        JobStatus | None, typer.Option("--status", "-s", help="Only jobs that stand so.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Only jobs of this task.", autocompletion=complete_task),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text",
            help="Only jobs with this in their id, task, key, error, message, arguments or "
            "request, in upper or lower case.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    after: Annotated[
        str | None, typer.Option("--after", metavar="ID", help="Go on after this job.")
    ] = None,
    is_all: Annotated[bool, typer.Option("--all", help="All of them, without limit.")] = False,
) -> None:
    """List jobs, the newest first."""
    pages = _Pages(session, status, task, text, after, None if is_all else limit)
    if session.settings.is_json:
        _write_document(session, pages)
        return
    show = show_jobs if session.is_terminal else show_lines
    is_first = True
    for jobs in pages:
        if jobs or (is_first and not session.is_terminal):
            show(session, jobs, is_first=is_first)
            is_first = False
    if pages.next is not None:
        session.say(f"there may be more; for the next page add: --after {pages.next}")
    elif not pages.count and session.is_terminal:
        session.say("no such jobs" if status or task or text or after else "no jobs")


class _Pages:
    """The jobs of a search, in pieces; what takes long says so meanwhile.

    Attributes:
        count: How many there were so far.
        next: After which job there may be more; None if all have been seen.
    """

    def __init__(
        self,
        session: Session,
        status: JobStatus | None,
        task: str | None,
        text: str | None,
        after: str | None,
        limit: int | None,
    ) -> None:
        self._session = session
        self._status = None if status is None else status.value
        self._task = task
        self._text = text
        self._limit = limit
        self.next: str | None = after
        self.count = 0

    def __iter__(self) -> Iterator[tuple[JobInfo, ...]]:
        while self._limit is None or self.count < self._limit:
            jobs = self._look()
            self.count += len(jobs)
            yield jobs
            if self.next is None:
                return

    def _look(self) -> tuple[JobInfo, ...]:
        """Return the next jobs, the last of them or at least one."""
        wanted = PAGE if self._limit is None else min(PAGE, self._limit - self.count)
        # In many short looks, each of its own moment: a long one would keep SQLite from
        # taking its WAL back.
        jobs = self._search(wanted)
        if self._goes_on(jobs):
            with Status("looking...", console=self._session.err):
                while self._goes_on(jobs):
                    jobs = self._search(wanted)
        return jobs

    def _goes_on(self, jobs: tuple[JobInfo, ...]) -> bool:
        return not jobs and self.next is not None

    def _search(self, limit: int) -> tuple[JobInfo, ...]:
        page = self._session.desk.search(
            status=self._status,
            task=self._task,
            text=self._text,
            after=self.next,
            limit=limit,
        )
        self.next = page.next
        return page.jobs


def _write_document(session: Session, pages: _Pages) -> None:
    """Write ``{"jobs": [...], "next": ...}`` piece by piece, however many there are."""
    separator = '{"jobs":[\n'
    for jobs in pages:
        for job in jobs:
            session.write(f"{separator}{as_json(job)}")
            separator = ",\n"
    session.write("\n" if pages.count else separator)
    session.write(f'],"next":{as_json(pages.next)}}}\n')


def show_job(
    session: Session,
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The job's id, or how it begins.", autocompletion=complete_id
        ),
    ],
) -> None:
    """Show one job: arguments, attempts, traceback, logs and its request."""
    details = session.desk.details(id_of(session.desk, id))
    if session.settings.is_json:
        session.give(details)
    else:
        show_page(session, details)


def show_stats(
    session: Session,
    since: Annotated[
        str,
        typer.Option("--since", metavar="SPAN", help="How far rates and durations go back."),
    ] = "1h",
) -> None:
    """Show how many jobs stand how, and what has come of those of the last hour."""
    seconds = span_of("--since", since)
    if seconds < 1:
        raise Problem(f"--since must be a second or more, got {shown(since)!r}", USAGE)
    overview = session.desk.overview(seconds, BUCKETS)
    if session.settings.is_json:
        session.give(overview)
    else:
        show_overview(session, overview)


def span_of(option: str, text: str) -> float:
    """Return the seconds of a time span that was typed.

    Raises:
        Problem: It is none.
    """
    try:
        return seconds_in(text)
    except ValueError as exc:
        raise Problem(f"{option}: {exc}", USAGE) from None
