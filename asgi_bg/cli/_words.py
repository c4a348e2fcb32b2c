"""What values look like to people: times, ages, durations, sizes, and texts from outside."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from asgi_bg._visible import visible

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_LONGEST = 100 * 365 * 86_400.0


def shown(text: str) -> str:
    """Return a text as one line in which a terminal acts on nothing, and hides nothing.

    What jobs say comes from anywhere: an escape sequence in it must not reach the terminal.
    """
    return visible(text)


def shown_lines(text: str) -> list[str]:
    """Return the lines of a text, each of them as `shown` has it."""
    return [shown(line.expandtabs(4)) for line in text.rstrip("\n").split("\n")]


def span(seconds: float) -> str:
    """Return a rough time span, such as ``3m``."""
    seconds = max(seconds, 0.0)
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit]:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{int(seconds)}s"


def age(instant: datetime, now: datetime) -> str:
    """Return how long ago an instant is, or how far ahead: ``3m ago``, ``in 5s``."""
    seconds = (now - instant).total_seconds()
    return f"{span(seconds)} ago" if seconds > -0.5 else f"in {span(0.5 - seconds)}"


def duration(seconds: float) -> str:
    """Return how long something took, such as ``1.2 s``."""
    if seconds < 0.00095:
        return f"{max(seconds, 0.0) * 1000:.2g} ms"
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def instant(moment: datetime, *, is_utc: bool) -> str:
    """Return an instant to the millisecond, in UTC or local time, with its offset."""
    zoned = moment.astimezone(timezone.utc if is_utc else None)
    return zoned.isoformat(sep=" ", timespec="milliseconds")


def size(count: int) -> str:
    """Return a number of bytes, such as ``4.2 MB``."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 job``, ``1,204 jobs``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def bar(fraction: float, width: int, *, is_ascii: bool = False) -> str:
    """Return a progress bar with its percentage, ``width`` characters in all."""
    percent = f" {int(fraction * 100):3d}%"
    room = max(width - len(percent), 1)
    done = int(fraction * room + 0.5)
    full, empty = ("#", "-") if is_ascii else ("━", "╌")
    return full * done + empty * (room - done) + percent


def seconds_in(text: str) -> float:
    """Read a time span: ``90``, ``90s``, ``15m``, ``12h``, ``7d``, ``2w``, ``1d12h``.

    Raises:
        ValueError: It is none.
    """
    compact = text.strip().lower()
    try:
        seconds = float(compact) if compact.replace(".", "", 1).isdecimal() else None
    except ValueError:
        seconds = None
    if seconds is None and _SPAN.fullmatch(compact):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact))
    if seconds is None:
        raise ValueError(f"a time span is written like 90s, 15m, 12h, 7d or 1d12h, got {text!r}")
    if seconds > _LONGEST:
        raise ValueError(f"a time span may be up to 100 years, got {text!r}")
    return seconds
