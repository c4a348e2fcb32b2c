"""Shows the figures: as tables in the terminal and in README.md, and as a plot."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import Distribution, version
from pathlib import Path

from benchmarks import postgres_server
from benchmarks.results import Results
from benchmarks.tables import sections

START = "<!-- figures -->"
END = "<!-- /figures -->"
README = Path(__file__).with_name("README.md")
PLOT = Path(__file__).with_name("throughput.svg")
_PACKAGES = (
    *("asgi_bg", "starlette", "uvicorn", "uvloop", "httptools", "anyio", "asgi-background"),
    *("fastapi", "fastapi-taskflow", "fastapi-jobs", "celery", "taskiq", "taskiq-redis"),
    "procrastinate",
)
_APART = ("arq", "saq")
"""Packages that have an environment of that name."""


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
    versions = ", ".join(_versions())
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


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        yield f"{name} {version(name)}"
    for name in _APART:
        packages = [str(path) for path in Path(sys.prefix, name).glob("lib/*/site-packages")]
        for found in Distribution.discover(name=name, path=packages):
            yield f"{name} {found.version}"
    redis = subprocess.run(
        ("redis-server", "--version"), capture_output=True, text=True, check=True
    )
    yield f"Redis {redis.stdout.partition('v=')[2].partition(' ')[0]}"
    postgres = postgres_server.program("postgres")
    if postgres is not None:
        told = subprocess.run((postgres, "--version"), capture_output=True, text=True, check=True)
        yield f"PostgreSQL {told.stdout.split()[2]}"
    yield f"SQLite {sqlite3.sqlite_version}"


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
