"""Shows the figures: as tables in the terminal and in README.md, and as a plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import Results, targets

START = "<!-- figures -->"
END = "<!-- /figures -->"
README = Path(__file__).with_name("README.md")
PLOT = Path(__file__).with_name("throughput.svg")
_PACKAGES = ("asgi_bg", "starlette", "uvicorn", "uvloop", "httptools", "anyio", "asgi-background")

Table = Sequence[Sequence[str]]


def sections(results: Results) -> list[tuple[str, Table]]:
    """Return all tables with their titles; the first row of each is its head."""
    http = [
        (
            *("over HTTP", "requests/s", "best", "spread", "share"),
            *("p99 ms", "/ plain", "peak MB", "/ plain"),
        ),
        *(
            (
                row.variant.label,
                f"{row.rate:,.0f}",
                f"{row.best:,.0f}",
                f"{row.spread:.0%}",
                f"{row.share:.3f}",
                f"{row.p99:.2f}",
                f"{row.p99_ratio:.2f}",
                f"{row.memory / 1e6:.1f}",
                f"{row.memory_ratio:.2f}",
            )
            for row in results.rows
        ),
    ]
    costs = [
        ("in process", "µs over the bare app"),
        *((label, f"{cost:.2f}") for label, cost in results.costs.items()),
    ]
    memory = results.memory
    rest = [
        ("other", "figure"),
        (f"memory after {memory.jobs // 10:,} jobs", f"{memory.early:.1f} MB"),
        (f"memory after {memory.jobs:,} jobs", f"{memory.late:.1f} MB"),
        ("import asgi_bg, over asyncio and anyio", f"{results.import_ms:.1f} ms"),
    ]
    goals = [
        ("target", "wanted", "measured", "reached"),
        *(
            (target.what, target.wanted, target.measured, "yes" if target.is_reached else "no")
            for target in targets(results)
        ),
    ]
    return [
        ("Over HTTP", http),
        ("In process", costs),
        ("Memory and import", rest),
        ("Targets", goals),
    ]


def as_text(results: Results) -> str:
    """Return all figures as one table for the terminal."""
    tables = [table for _, table in sections(results)]
    first = max(len(row[0]) for table in tables for row in table)
    lines: list[str] = []
    for table in tables:
        widths = [max(map(len, column)) for column in list(zip(*table, strict=True))[1:]]
        for number, row in enumerate(table):
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True)]
            lines.append("  ".join((row[0].ljust(first), *cells)))
            if number == 0:
                lines.append("-" * len(lines[-1]))
        lines.append("")
    return "\n".join(lines)


def as_markdown(results: Results, command: str) -> str:
    """Return all figures as Markdown, with what they were measured on."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    date = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    machine = f"{os.cpu_count()} CPUs, Python {platform.python_version()}"
    lines = [f"Measured on {date} with `{command}`: {machine}, {versions}.", ""]
    for title, (head, *body) in sections(results):
        lines += [f"### {title}", ""]
        lines.append("| " + " | ".join(head) + " |")
        lines.append("|---" + "|--:" * (len(head) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in body]
        lines.append("")
    return "\n".join(lines)


def write_readme(results: Results, command: str, path: Path = README) -> None:
    """Put the figures between the markers of the README.

    Raises:
        ValueError: The markers are not there.
    """
    text = path.read_text()
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{path} must hold the markers {START} and {END}")
    path.write_text(f"{before}{START}\n{as_markdown(results, command)}{END}{after}")
