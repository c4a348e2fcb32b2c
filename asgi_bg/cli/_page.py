"""One job in full, as text."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from rich.text import Text

from asgi_bg._job import JobInfo
from asgi_bg.cli._listing import progress_of, standing_text
from asgi_bg.cli._session import Session
from asgi_bg.cli._words import duration, shown, shown_lines
from asgi_bg.views import AttemptInfo, JobDetails

_LABEL = 13  # columns


def show_page(session: Session, details: JobDetails) -> None:
    """Write all that is known of a job."""
    session.line(Text(shown(details.job.task), style="bold"))
    for label, value in _facts(session, details):
        session.line(_labelled(label, value))
    _show_arguments(session, details)
    _show_attempts(session, details)
    _show_end(session, details.job)
    if details.job.logs:
        _head(session, "Logs")
        for log in details.job.logs:
            words = shown_lines(log.message)
            session.line(
                f"  {session.at(log.at)} {shown(log.level)} {shown(log.logger)}: {words[0]}"
            )
            for rest in words[1:]:
                session.line(f"    {rest}")


def _facts(session: Session, details: JobDetails) -> Iterator[tuple[str, str | Text]]:
    job = details.job
    yield "id", job.id
    yield "status", standing_text(job)
    yield "queued", session.when(job.queued_at)
    for label, moment in (
        ("not before", job.run_after),
        ("handed over", job.handed_over_at),
        ("started", job.started_at),
        ("finished", job.finished_at),
    ):
        if moment is not None:
            yield label, session.when(moment)
    if job.started_at is not None and job.finished_at is not None:
        yield "took", duration((job.finished_at - job.started_at).total_seconds())
    yield "attempt", str(job.attempt)
    if progress := progress_of(session, job, 30):
        yield "progress", progress
    if job.message:
        yield "message", shown(job.message)
    if job.owner is not None:
        yield "held by", shown(job.owner)
    for label, value in (("key", details.key), ("queue", details.queue)):
        if value is not None:
            yield label, shown(value)
    if details.priority:
        yield "priority", str(details.priority)
    if details.tags:
        yield "tags", ", ".join(shown(tag) for tag in details.tags)
    origin = details.origin
    if origin is not None:
        if origin.path is not None:
            yield "request", shown(f"{origin.method} {origin.path}")
        if origin.request_id is not None:
            yield "request id", shown(origin.request_id)
        if origin.trace is not None:
            yield "trace", shown(origin.trace)


def _show_arguments(session: Session, details: JobDetails) -> None:
    if details.arguments is None:
        _head(session, "Arguments")
        session.line("  not known any more")
        return
    if not details.arguments:
        return
    _head(session, "Arguments")
    for argument in details.arguments:
        value = "(redacted)" if argument.is_redacted else shown(argument.value)
        session.line(f"  {shown(argument.name)} = {value}")


def _show_attempts(session: Session, details: JobDetails) -> None:
    if not details.attempts:
        return
    _head(session, "Attempts")
    for attempt in details.attempts:
        session.line(f"  {_attempt_line(session, attempt)}")
        # The job's own error and traceback follow, as those of its last attempt.
        if attempt.error is not None and attempt.error != details.job.error:
            session.line(Text(f"     {shown(attempt.error)}", style="red"))
        if attempt.traceback is not None and attempt.traceback != details.job.traceback:
            _show_text(session, attempt.traceback, "     ")


def _attempt_line(session: Session, attempt: AttemptInfo) -> str:
    words = [f"{attempt.number}."]
    if attempt.started_at is not None:
        words.append(session.at(attempt.started_at))
    if attempt.finished_at is None:
        words.append("has not ended" if attempt.started_at is not None else "")
    elif attempt.started_at is None:
        words.append(f"ended {session.at(attempt.finished_at)}")
    else:
        took = (attempt.finished_at - attempt.started_at).total_seconds()
        words.append(f"took {duration(took)}")
    if attempt.error is not None:
        words.append("failed")
    return " ".join(word for word in words if word)


def _show_end(session: Session, job: JobInfo) -> None:
    if job.error is not None:
        _head(session, "Error")
        session.line(Text(f"  {shown(job.error)}", style="red"))
    if job.traceback is not None:
        _head(session, "Traceback")
        _show_text(session, job.traceback, "  ")
    if job.result is not None:
        _head(session, "Result")
        encoded = msgspec.json.encode(job.result, enc_hook=str)
        _show_text(session, msgspec.json.format(encoded, indent=2).decode(), "  ")


def _show_text(session: Session, text: str, indent: str) -> None:
    for line in shown_lines(text):
        session.line(f"{indent}{line}")


def _head(session: Session, title: str) -> None:
    session.line()
    session.line(Text(title, style="bold"))


def _labelled(label: str, value: str | Text) -> Text:
    text = Text(f"  {label:<{_LABEL}}", style="")
    text.append_text(value if isinstance(value, Text) else Text(value))
    return text
