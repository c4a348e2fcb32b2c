"""Server-sent events, as a client reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

STREAM = {"accept": "text/event-stream"}
"""The header that asks for them."""


def events_in(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the id of each event, and what it says."""
    tag = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            tag = value
        elif name == "data":
            yield tag, json.loads(value)
