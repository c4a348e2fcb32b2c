"""The statements of the journal, one in a file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_PART = re.compile(r"\{(_\w+)\}")


@cache
def query(name: str) -> str:
    """Return the statement of this name; ``{_part}`` in it stands for the file of that name."""
    text = (Path(__file__).parent / f"{name}.sql").read_text("utf-8")
    return _PART.sub(lambda part: query(part[1]), text)
