"""The commands that change something: ``retry``, ``cancel`` and ``purge``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg.cli._exits import FINE, UNUSABLE, USAGE, WRONG, Problem
from asgi_bg.cli._finding import complete_id, complete_task, id_of
from asgi_bg.cli._listing import standing
from asgi_bg.cli._reading import span_of
from asgi_bg.cli._session import Session
from asgi_bg.cli._words import counted, shown
from asgi_bg.exceptions import JobNotFound, JournalError
from asgi_bg.journal.checking import count_ended, count_failed

_LONGEST_PAUSE = 1.0  # seconds

Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID...", help="The jobs' ids, or how they begin.", autocompletion=complete_id
    ),
]


def retry_jobs(
    session: Session,
    ids: Ids = None,
    is_failed: Annotated[bool, typer.Option("--failed", help="All jobs that failed.")] = False,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", "-t", help="With --failed: of this task.", autocompletion=complete_task
        ),
    ] = None,
) -> int:
    """Let failed or cancelled jobs wait again, all their attempts before them."""
    if bool(ids) == is_failed:
        raise Problem("retry takes the ids of jobs, or --failed for all that failed", USAGE)
    if task is not None and not is_failed:
        raise Problem("--task goes with --failed", USAGE)
    if ids:
        code = _each(session, ids, session.desk.retry, lambda job: "waits again")
        _tell_who_runs(session)
        return code
    desk = session.desk
    total = count_failed(session.path, task)
    retried = _in_pieces(session, "retrying", desk.retry_failed(task), total)
    if session.settings.is_json:
        session.give({"retried": retried})
    else:
        session.line(f"{counted(retried, 'job')} will be tried again")
    if retried:
        _tell_who_runs(session)
    return FINE


def _tell_who_runs(session: Session) -> None:
    if not any(process.is_alive for process in session.desk.overview(1.0, 1).processes):
        session.say("no process has the journal open: they run when the app starts")


def cancel_jobs(session: Session, ids: Ids = None) -> int:
    """Cancel jobs that wait; ask the processes of those that run to cancel them."""
    if not ids:
        raise Problem("cancel takes the ids of jobs", USAGE)
    return _each(session, ids, lambda each: _cancel(session, each), _cancelled_words)


def _cancel(session: Session, id: str) -> JobInfo:
    job = session.desk.info(id)
    if not job.status.is_final:
        job = session.desk.cancel(id)
    if job.status.is_final and job.status is not JobStatus.cancelled:
        raise ValueError(f"job {id} has already ended: it {_past(job)}")
    return job


def _past(job: JobInfo) -> str:
    return "failed" if job.status is JobStatus.failed else f"has {job.status}"


def _cancelled_words(job: JobInfo) -> str:
    if job.status is JobStatus.cancelled:
        return "cancelled"
    return f"{standing(job)}; the process that has it, {job.owner}, is asked to cancel it"


def _each(
    session: Session,
    typed: list[str],
    action: Callable[[str], JobInfo],
    words: Callable[[JobInfo], str],
) -> int:
    """Do something with each job; one with which it cannot be done does not stop the rest."""
    desk = session.desk  # no journal, no rest
    code = FINE
    done: list[JobInfo] = []
    errors: list[dict[str, str]] = []
    for word in typed:
        try:
            job = action(id_of(desk, word))
        except (Problem, ValueError, JobNotFound) as exc:
            code = WRONG
            errors.append({"id": word, "error": str(exc)})
            session.say(f"asgi-bg: {shown(str(exc))}")
        except JournalError as exc:  # nor would it be better with the next one
            code = UNUSABLE
            errors.append({"id": word, "error": str(exc)})
            session.say(f"asgi-bg: {shown(str(exc))}")
            break
        else:
            done.append(job)
            if not session.settings.is_json:
                session.line(f"{job.id} {shown(job.task)}: {shown(words(job))}")
    if session.settings.is_json:
        session.give({"jobs": done, "errors": errors})
    return code


def purge_jobs(
    session: Session,
    status: Annotated[
        JobStatus | None, typer.Option("--status", "-s", help="Only jobs that ended so.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="SPAN", help="Only jobs that ended so long ago."),
    ] = None,
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove jobs that have ended, for good."""
    if status is not None and not status.is_final:
        raise Problem(
            f"only jobs that have ended are purged: --status succeeded, failed or cancelled, "
            f"got {status}",
            USAGE,
        )
    span = 0.0 if older_than is None else span_of("--older-than", older_than)
    before = max(time.time() - span, 0.0)
    if not is_sure and not (sys.stdin.isatty() and session.err.is_terminal):
        raise Problem("purge asks first, and there is no terminal to ask in: add --yes", USAGE)
    word = None if status is None else status.value
    desk = session.desk
    total = count_ended(session.path, word, before)
    is_agreed = is_sure or not total or _is_agreed(session, total)
    gone = 0
    if total and is_agreed:
        gone = _in_pieces(session, "removing", desk.purge(word, before), total)
    if session.settings.is_json:
        session.give({"purged": gone})
    else:
        session.line(f"{counted(gone, 'job')} removed")
    return FINE if is_agreed else WRONG


def _is_agreed(session: Session, total: int) -> bool:
    question = f"Remove {counted(total, 'job')} from {shown(session.path)} for good?"
    session.err.print(f"{question} [y/N] ", end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _in_pieces(session: Session, verb: str, pieces: Iterator[int], total: int) -> int:
    """Go through a long work, and return how far it came.

    After each piece comes a pause as long as it took, so that the app, whose commits wait for
    the same lock, has at least half of the time.
    """
    done = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    is_hidden = not session.err.is_terminal
    with Progress(*columns, console=session.err, transient=True, disable=is_hidden) as progress:
        row = progress.add_task(verb, total=total)
        begun = time.monotonic()
        try:
            for done in pieces:
                progress.update(row, completed=done)
                time.sleep(min(time.monotonic() - begun, _LONGEST_PAUSE))
                begun = time.monotonic()
        except BaseException:
            progress.stop()
            session.say(f"{verb}: stopped after {counted(done, 'job')}")
            raise
    return done
