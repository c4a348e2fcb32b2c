"""The statements of the journal, one in a file."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def query(name: str) -> str:
    """Return the statement of this name."""
    return (Path(__file__).parent / f"{name}.sql").read_text("utf-8")
