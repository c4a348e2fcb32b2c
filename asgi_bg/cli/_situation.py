"""How all jobs stand, as text: counts, processes, rates, and the tasks."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from asgi_bg.cli._listing import STYLES
from asgi_bg.cli._session import Session
from asgi_bg.cli._words import counted, duration, shown, span
from asgi_bg.views import CAP, Counts, Overview, Percentiles, ProcessInfo

_TASKS = 20
"""How many tasks are shown in a terminal."""

_WIDE = 100  # columns
_ENDED = ("succeeded", "failed", "cancelled")
_STANDINGS = ("queued", "running", "retrying", "handed_over", *_ENDED)


def count_words(counts: Counts) -> list[tuple[str, str]]:
    """Return each way to stand, and how many jobs stand so."""
    return [
        (
            name.replace("_", " "),
            f"{getattr(counts, name):,}"
            + ("+" if name in ("retrying", "handed_over") and getattr(counts, name) >= CAP else ""),
        )
        for name in _STANDINGS
    ]


def process_words(process: ProcessInfo) -> str:
    """Return what to say of a process."""
    held = f"holds {counted(process.held, 'job')}"
    if process.is_alive:
        return f"{process.pid} {held}"
    return f"{process.pid} is gone, {held}; the next process takes them over"


def percentile_words(times: Percentiles | None) -> str:
    """Return how long attempts took, in words."""
    if times is None:
        return "-"
    named = (("p50", times.p50), ("p95", times.p95), ("p99", times.p99))
    return "  ".join(f"{name} {duration(value)}" for name, value in named)


def rate_words(overview: Overview) -> str:
    """Return how many jobs came and ended, of the overview's time."""
    added = sum(bucket.added for bucket in overview.buckets)
    ends = [f"{sum(getattr(b, name) for b in overview.buckets):,} {name}" for name in _ENDED]
    about = "about " if overview.is_estimate else ""
    per_second = f"{added / overview.seconds:.3g}/s"
    return f"{about}{added:,} added ({per_second}): {', '.join(ends)}"


def show_overview(session: Session, overview: Overview) -> None:
    """Write how all jobs stand."""
    _head(session, f"Jobs, {session.at(overview.at)}", is_first=True)
    for name, number in count_words(overview.counts):
        style = STYLES.get(name, "") if session.is_terminal else ""
        session.line(Text(f"  {name:<13}").append(f"{number:>12}", style=style))
    oldest = overview.oldest
    session.line(f"  oldest waiting {'none' if oldest is None else session.when(oldest)}")
    _head(session, "Processes")
    for process in overview.processes:
        style = "" if process.is_alive else "yellow"
        session.line(Text(f"  {process_words(process)}", style=style))
    if not overview.processes:
        session.line("  none has the journal open")
    _head(session, f"Of the last {span(overview.seconds)}")
    session.line(f"  {rate_words(overview)}")
    if session.is_terminal:
        _show_tasks(session, overview)
    else:
        _write_tasks(session, overview)


def _show_tasks(session: Session, overview: Overview) -> None:
    if not overview.tasks:
        return
    is_wide = session.out.width >= _WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("task", no_wrap=True, overflow="ellipsis", min_width=10)
    columns = ("queued", "running", *_ENDED) if is_wide else ("succeeded", "failed")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    if is_wide:
        for name in ("p50", "p95", "p99"):
            table.add_column(name, justify="right", no_wrap=True)
    for task in overview.tasks[:_TASKS]:
        cells = [f"{getattr(task, name):,}" for name in columns]
        if is_wide:
            times = task.durations
            cells += (
                ["-", "-", "-"]
                if times is None
                else [duration(times.p50), duration(times.p95), duration(times.p99)]
            )
        table.add_row(Text(shown(task.task)), *cells)
    session.line()
    session.out.print(table)
    if len(overview.tasks) > _TASKS:
        session.say(f"and {counted(len(overview.tasks) - _TASKS, 'task')} more; --json has all")


def _write_tasks(session: Session, overview: Overview) -> None:
    """Write the tasks for other programs: a line each, in full, durations in seconds."""
    names = ("queued", "running", "handed_over", *_ENDED)
    session.line()
    session.line("\t".join(("task", *names, "p50", "p95", "p99")))
    for task in overview.tasks:
        times = task.durations
        values = ("", "", "")
        if times is not None:
            values = (f"{times.p50:.6f}", f"{times.p95:.6f}", f"{times.p99:.6f}")
        counts = (str(getattr(task, name)) for name in names)
        session.line("\t".join((shown(task.task), *counts, *values)))


def _head(session: Session, title: str, *, is_first: bool = False) -> None:
    if not is_first:
        session.line()
    session.line(Text(title, style="bold"))
