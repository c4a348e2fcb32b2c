"""Charts: the figures of an overview as places in a drawing, which a template makes SVG of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from asgi_bg.views import Bucket, Percentiles
from asgi_bg.web import _format

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 12, 24

_INNER_WIDTH = WIDTH - LEFT - RIGHT
_FLOOR = HEIGHT - BOTTOM
_INNER_HEIGHT = _FLOOR - TOP

QUANTILES = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where it is, and what it says."""

    place: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A part of a column; ``kind`` says what it stands for."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """The course of one figure; interrupted where there is none.

    Attributes:
        kind: Which figure.
        paths: Its pieces, as the points of an SVG polyline.
        dots: Pieces of only one point.
    """

    kind: str
    paths: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """All that is drawn, and the figures as a table for who cannot see that.

    Attributes:
        bars, lines: What is drawn; one of them is empty.
        rows: The heights' marks, from below.
        columns: The times' marks.
        head, table: The names of the table's columns, and its rows.
    """

    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    head: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.bars and not self.lines


def outcomes(buckets: Sequence[Bucket]) -> Chart:
    """Return how many jobs were added, by what has become of them."""
    parts = [_parts(bucket) for bucket in buckets]
    top = _ceiling(max((sum(one.values()) for one in parts), default=0))
    width = _INNER_WIDTH / max(1, len(parts))
    bars: list[Bar] = []
    for number, counts in enumerate(parts):
        x, y = LEFT + number * width, float(_FLOOR)
        for kind, count in counts.items():
            if count:
                height = count / top * _INNER_HEIGHT
                y -= height
                bars.append(_bar(kind, x, y, width, height))
    return Chart(
        tuple(bars),
        (),
        _even_ticks(top),
        _time_ticks(buckets),
        ("From (UTC)", "Added", "Succeeded", "Failed", "Cancelled", "Unfinished"),
        tuple(
            (_when(bucket), *map(_format.count, (sum(counts.values()), *_in_words(counts))))
            for bucket, counts in zip(buckets, parts, strict=True)
            if any(counts.values())
        ),
    )


def _parts(bucket: Bucket) -> dict[str, int]:
    ended = bucket.succeeded + bucket.failed + bucket.cancelled
    return {
        "succeeded": bucket.succeeded,
        "cancelled": bucket.cancelled,
        "queued": max(0, bucket.added - ended),
        "failed": bucket.failed,
    }


def _in_words(counts: dict[str, int]) -> tuple[int, ...]:
    return tuple(counts[kind] for kind in ("succeeded", "failed", "cancelled", "queued"))


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Bar:
    gap = min(1.0, width / 5)
    return Bar(kind, round(x, 1), round(y, 1), round(width - gap, 1), round(max(height, 0.6), 1))


def times(
    buckets: Sequence[Bucket], figures: Callable[[Bucket], Percentiles | None], what: str
) -> Chart:
    """Return how long something took, on a logarithmic scale.

    Args:
        buckets: The stretches of time.
        figures: Returns that of a bucket.
        what: What it is, for the head of the table.
    """
    found = [figures(bucket) for bucket in buckets]
    values = [max(getattr(one, kind), 1e-6) for one in found if one for kind in QUANTILES]
    low, high = _decades(values)
    columns = ("From (UTC)", *(f"{what} {kind}" for kind in QUANTILES))
    table = tuple(
        (_when(bucket), *(_format.duration(getattr(one, kind)) for kind in QUANTILES))
        for bucket, one in zip(buckets, found, strict=True)
        if one
    )
    if not values:
        return Chart((), (), (), _time_ticks(buckets), columns, table)
    width = _INNER_WIDTH / len(found)

    def place(number: int, value: float) -> tuple[float, float]:
        share = (math.log10(max(value, 1e-6)) - low) / (high - low)
        return round(LEFT + (number + 0.5) * width, 1), round(_FLOOR - share * _INNER_HEIGHT, 1)

    lines = tuple(
        _line(
            kind,
            [
                None if one is None else place(number, getattr(one, kind))
                for number, one in enumerate(found)
            ],
        )
        for kind in QUANTILES
    )
    return Chart((), lines, _decade_ticks(low, high), _time_ticks(buckets), columns, table)


def _line(kind: str, places: Sequence[tuple[float, float] | None]) -> Line:
    pieces: list[list[tuple[float, float]]] = [[]]
    for place in places:
        if place is not None:
            pieces[-1].append(place)
        elif pieces[-1]:
            pieces.append([])
    return Line(
        kind,
        tuple(" ".join(f"{x},{y}" for x, y in piece) for piece in pieces if len(piece) > 1),
        tuple(piece[0] for piece in pieces if len(piece) == 1),
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten between which all values lie."""
    if not values:
        return 0, 1
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _decade_ticks(low: int, high: int) -> tuple[Tick, ...]:
    step = math.ceil((high - low) / 5)
    return tuple(
        Tick(
            round(_FLOOR - (power - low) / (high - low) * _INNER_HEIGHT, 1),
            _power_of_ten(power),
        )
        for power in range(low, high + 1, step)
    )


def _power_of_ten(power: int) -> str:
    return f"{10**power:,} s" if power >= 0 else _format.duration(10.0**power)


def _ceiling(number: int) -> int:
    """Return a number no smaller that is good to read at an axis, and divides by four."""
    size = 4
    while True:
        for factor in (1, 2, 3, 5):
            if size * factor >= number:
                return size * factor
        size *= 10


def _even_ticks(top: int) -> tuple[Tick, ...]:
    return tuple(
        Tick(round(_FLOOR - part / 4 * _INNER_HEIGHT, 1), _format.count(top * part // 4))
        for part in range(5)
    )


def _time_ticks(buckets: Sequence[Bucket]) -> tuple[Tick, ...]:
    if not buckets:
        return ()
    width = _INNER_WIDTH / len(buckets)
    step = max(1, len(buckets) // 4)
    return tuple(
        Tick(round(LEFT + number * width, 1), _clock(buckets, number))
        for number in range(step // 2, len(buckets), step)
    )


def _clock(buckets: Sequence[Bucket], number: int) -> str:
    is_long = len(buckets) * buckets[0].seconds > 86_400 * 1.5
    form = "%b %d" if is_long else "%H:%M"
    return _utc(buckets[number].start).strftime(form)


def _when(bucket: Bucket) -> str:
    return _utc(bucket.start).strftime("%Y-%m-%d %H:%M:%S")


def _utc(at: datetime) -> datetime:
    return at.astimezone(timezone.utc)
