"""The command ``watch``: a view that stays up to date, or a line for every change."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg.cli._exits import INTERRUPTED, TERMINATED
from asgi_bg.cli._finding import complete_task
from asgi_bg.cli._following import Follower
from asgi_bg.cli._listing import progress_of, standing, standing_text
from asgi_bg.cli._opening import need_file
from asgi_bg.cli._session import Session, as_json, now
from asgi_bg.cli._situation import count_words, percentile_words, process_words, rate_words
from asgi_bg.cli._words import age, duration, shown, span
from asgi_bg.views import Overview

LATELY = 60.0
"""How many seconds back the rates go."""

SHARE = 4
"""How many times as long as a look takes is the least pause after it."""


def watch_jobs(
    session: Session,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Only jobs of this task.", autocompletion=complete_task),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="How often to look.")
    ] = 1.0,
) -> int:
    """Watch the jobs until Ctrl-C: live in a terminal, else a line for every change."""
    desk = session.desk
    with _until_signal() as end:
        end.journal = session.path
        if session.is_terminal and not (session.settings.is_json or session.out.is_dumb_terminal):
            _show_live(session, task, interval, end)
        else:
            follower = Follower(desk, task)
            write = _write_json if session.settings.is_json else _write_line
            end.repeat(lambda: _write_changes(session, follower, write), interval)
    return end.code


class _End:
    """When to stop: set by a signal, which is acted upon between two looks.

    Attributes:
        code: The exit code.
        journal: The path of the journal, without which there is nothing to look at.
    """

    def __init__(self) -> None:
        self.code = INTERRUPTED
        self.journal = ""
        self._event = threading.Event()

    def hear(self, number: int, _: Any) -> None:
        """Be the handler of a signal."""
        self.code = INTERRUPTED if number == signal.SIGINT else TERMINATED
        self._event.set()

    def repeat(self, look: Callable[[], None], interval: float) -> None:
        """Look again and again, with pauses.

        Raises:
            Problem: The journal is there no more.
        """
        while not self._event.is_set():
            begun = time.monotonic()
            need_file(self.journal)
            look()
            took = time.monotonic() - begun
            self._event.wait(max(interval - took, SHARE * took))


@contextlib.contextmanager
def _until_signal() -> Generator[_End]:
    end = _End()
    former = {each: signal.signal(each, end.hear) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield end
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _write_changes(
    session: Session, follower: Follower, write: Callable[[Session, JobInfo], None]
) -> None:
    for job in follower.look():
        write(session, job)
    session.out.file.flush()


def _write_json(session: Session, job: JobInfo) -> None:
    session.write(f"{as_json(job)}\n")


def _write_line(session: Session, job: JobInfo) -> None:
    words = [session.at(now()), standing(job), shown(job.task), job.id]
    if job.attempt > 1:
        words.append(f"attempt {job.attempt}")
    if job.progress is not None and not job.status.is_final:
        words.append(f"{job.progress:.0%}")
    if job.message and not job.status.is_final:
        words.append(shown(job.message))
    took = _took(job)
    if took:
        words.append(took)
    if job.error is not None and _is_told(job):
        words.append(shown(job.error))
    session.write("  ".join(words) + "\n")


def _is_told(job: JobInfo) -> bool:
    """Whether a job's error is of how it stands, and not of a former attempt."""
    return job.status.is_final or (job.status is JobStatus.queued and job.attempt > 0)


def _took(job: JobInfo) -> str:
    if job.started_at is None or job.finished_at is None:
        return ""
    return duration((job.finished_at - job.started_at).total_seconds())


# In a terminal.


def _show_live(session: Session, task: str | None, interval: float, end: _End) -> None:
    with Live(console=session.out, screen=True, auto_refresh=False) as live:
        end.repeat(lambda: live.update(view_of(session, task), refresh=True), interval)


def view_of(session: Session, task: str | None) -> Group:
    """Return what is seen now, as large as the terminal is."""
    lines = _head(session, session.desk.overview(LATELY, 6))
    room = max(session.out.height - len(lines) - 3, 2)
    running = session.desk.search(status="running", task=task, limit=max(room // 2, 1)).jobs
    newest = session.desk.search(task=task, limit=max(room - len(running) - 2, 1)).jobs
    lines += [Text("Running", style="bold"), *(_row(session, job) for job in running)]
    if not running:
        lines.append(Text("  nothing", style="dim"))
    lines += [Text("Newest", style="bold"), *(_row(session, job) for job in newest)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines[: session.out.height - 1])


def _head(session: Session, overview: Overview) -> list[Text]:
    counts = [f"{name} {number}" for name, number in count_words(overview.counts)]
    oldest = overview.oldest
    waiting = "nothing waits" if oldest is None else f"oldest waits {span(_since(oldest))}"
    processes = "; ".join(process_words(process) for process in overview.processes)
    ended = [bucket.durations for bucket in overview.buckets if bucket.durations is not None]
    return [
        Text(f"{shown(session.path)}  {session.at(overview.at)[11:19]}  Ctrl-C ends", style="bold"),
        *packed(counts, session.out.width),
        Text(f"{waiting}  processes: {processes or 'none'}"),
        Text(f"last {span(LATELY)}: {rate_words(overview)}"),
        Text(f"took: {percentile_words(ended[-1] if ended else None)}"),
        Text(),
    ]


def packed(words: list[str], width: int) -> list[Text]:
    """Return words in as few lines as hold them whole."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += f"  {word}"
        else:
            lines.append(word)
    return [Text(line) for line in lines]


def _since(moment: Any) -> float:
    return float((now() - moment).total_seconds())


def _row(session: Session, job: JobInfo) -> Text:
    """Return a job in one line, what matters most first, as the end may be cut."""
    line = Text("  ").append_text(standing_text(job))
    line.append(" " * (12 - len(standing(job))))
    if job.progress is not None and not job.status.is_final:
        line.append(f"{progress_of(session, job, 16)} ")
    line.append(f"{shown(job.task)} ", style="bold")
    moment = job.finished_at or job.started_at or job.queued_at
    line.append(_took(job) or age(moment, now()))
    if job.message and not job.status.is_final:
        line.append(f"  {shown(job.message)}")
    if job.error is not None and _is_told(job):
        line.append(f"  {shown(job.error)}", style="red")
    line.append(f"  {job.id}", style="dim")
    return line
