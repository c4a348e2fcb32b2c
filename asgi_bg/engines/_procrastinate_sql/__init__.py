"""The statements about Procrastinate's tables that its own functions lack, one in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["FIND", "FIND_ENDED", "FORGET", "KNOWN_AMONG", "LOOK", "NOTE", "TABLES"]


def _query(name: str) -> Any:
    # Nothing that comes from outside, which psycopg's types would have said of it as a literal.
    return (Path(__file__).parent / f"{name}.sql").read_text("utf-8")


FIND = _query("find")
FIND_ENDED = _query("find_ended")
FORGET = _query("forget")
KNOWN_AMONG = _query("known_among")
LOOK = _query("look")
NOTE = _query("note")
TABLES = _query("tables")
