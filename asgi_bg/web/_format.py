"""How instants, durations, numbers and values read on a page."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import msgspec

VALUE_LIMIT = 10_000
"""To how many characters a value is shortened."""

_UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float | None) -> str:
    """Return a length of time in two figures or so: ``3.4 ms``, ``12 s``, ``2 h 5 min``."""
    if seconds is None:
        return "–"  # noqa: RUF001 # a dash for nothing
    seconds = max(0.0, seconds)
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    size, unit, small, small_unit = next(one for one in _UNITS if whole >= one[0])
    count, rest = divmod(whole, size)
    more = f" {rest // small} {small_unit}" if rest >= small else ""
    return f"{count} {unit}{more}"


def span(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two instants; None where one is not known."""
    return None if start is None or end is None else (end - start).total_seconds()


def instant(at: datetime) -> str:
    """Return an instant as a page shows it, in UTC."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def iso(at: datetime) -> str:
    """Return an instant as programs read it, in UTC."""
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def count(number: int) -> str:
    """Return a count with its thousands set apart."""
    return f"{number:,}"


def capped(number: int, cap: int) -> str:
    """Return a count that was not taken further than the cap."""
    return f"{number:,}+" if number >= cap else f"{number:,}"


def rate(per_second: float) -> str:
    """Return a rate, in the unit in which it is no tiny fraction."""
    if per_second >= 1:
        return f"{per_second:,.3g}/s" if per_second < 100 else f"{per_second:,.0f}/s"
    if per_second * 60 >= 1:
        return f"{per_second * 60:.3g}/min"
    return f"{per_second * 3600:.3g}/h"


def value(anything: Any) -> str:
    """Return a value as indented JSON, or as `repr` where it cannot be written so."""
    try:
        text = msgspec.json.format(msgspec.json.encode(anything), indent=2).decode()
    except Exception:  # whatever the objects of a user's raise
        try:
            text = repr(anything)
        except Exception as exc:
            text = f"<a {type(anything).__name__} that cannot be shown: {type(exc).__name__}>"
    return shortened(text, VALUE_LIMIT)


def shortened(text: str, limit: int) -> str:
    """Return the text, or its beginning with a note of what is missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def ending(text: str, limit: int) -> str:
    """Return the text, or its end with a note of what is missing.

    For tracebacks, whose end says what has happened.
    """
    if len(text) <= limit:
        return text
    return f"({len(text) - limit:,} characters before) …{text[-limit:]}"


def pretty(text: str) -> str:
    """Return JSON text with line breaks, if it is long; anything else as it is."""
    if len(text) < 60 or text[:1] not in "{[":
        return text
    try:
        return msgspec.json.format(text, indent=2)
    except msgspec.DecodeError:
        return text
