"""How figures read, and where they are drawn (W1)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_bg.views import Bucket, Percentiles
from tests.helpers import need

need("starlette")
need("jinja2")

from starlette.datastructures import QueryParams  # noqa: E402

from asgi_bg.web import _charts, _format, _query  # noqa: E402

NOON = datetime(2024, 5, 17, 12, tzinfo=timezone.utc)


def bucket(number: int, added: int = 0, seconds: float = 60.0, **fields: Any) -> Bucket:
    values = {"succeeded": 0, "failed": 0, "cancelled": 0, "durations": None, "waits": None}
    return Bucket(
        start=NOON + timedelta(seconds=number * seconds),
        seconds=seconds,
        added=added,
        is_estimate=False,
        **{**values, **fields},
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"),
        (-1.0, "0 µs"),
        (0.0000004, "0 µs"),
        (0.00012, "120 µs"),
        (0.0034, "3.4 ms"),
        (0.9994, "999 ms"),
        (0.99951, "1 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86_400 * 3 + 7200, "3 d 2 h"),
    ],
)
def test_duration_reads_well(seconds: float | None, text: str) -> None:
    """In two figures or so, of the units that fit."""
    assert _format.duration(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(0, "0/h"), (0.001, "3.6/h"), (0.5, "30/min"), (12.34, "12.3/s"), (1234.5, "1,234/s")],
)
def test_rate_reads_well(per_second: float, text: str) -> None:
    """In the unit in which it is no tiny fraction."""
    assert _format.rate(per_second) == text


class Odd:
    """Raises whatever is done to it."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"a": [1]}, '{\n  "a": [\n    1\n  ]\n}'),
        (1j, "1j"),
        ({1j}, "{1j}"),
        (Odd(), "<a Odd that cannot be shown: RuntimeError>"),
    ],
)
def test_value_is_shown_whatever_it_is(value: Any, text: str) -> None:
    """As JSON where it can be."""
    assert _format.value(value) == text


def test_long_text_is_shortened() -> None:
    """With a note of what is missing."""
    assert _format.shortened("abcdef", 4) == "abcd… (2 more characters)"
    assert len(_format.value("x" * 1_000_000)) < 10_100
    assert _format.pretty('{"a": ' + "1" * 80 + "}").startswith("{\n")
    assert _format.pretty("{" + "1" * 80) == "{" + "1" * 80
    assert _format.capped(10_000, 10_000) == "10,000+"
    assert _format.capped(9_999, 10_000) == "9,999"


counts = st.integers(0, 10**7)
lengths = st.floats(1e-7, 1e6)


@given(st.lists(st.tuples(counts, counts, counts, counts), max_size=70))
def test_bars_stay_within_the_drawing(numbers: list[tuple[int, int, int, int]]) -> None:
    """Whatever the counts are, also those of a sample that do not add up."""
    buckets = [
        bucket(place, added, succeeded=good, failed=bad, cancelled=off)
        for place, (added, good, bad, off) in enumerate(numbers)
    ]
    chart = _charts.outcomes(buckets)
    for bar in chart.bars:
        assert bar.x >= _charts.LEFT
        assert bar.x + bar.width <= _charts.WIDTH - _charts.RIGHT + 0.2
        assert bar.y >= _charts.TOP - 0.2
        assert bar.y + bar.height <= _charts.HEIGHT - _charts.BOTTOM + 0.8
    assert len(chart.table) == sum(any(one) for one in numbers)
    assert chart.is_empty == (not any(any(one) for one in numbers))


@given(st.lists(st.none() | st.tuples(lengths, lengths, lengths).map(sorted), max_size=70))
def test_lines_stay_within_the_drawing(found: list[Any]) -> None:
    """However far the figures lie apart; nothing is drawn where there are none."""
    buckets = [
        bucket(place, durations=one and Percentiles(*one)) for place, one in enumerate(found)
    ]
    chart = _charts.times(buckets, lambda one: one.durations, "Duration")
    points = [
        tuple(map(float, point.split(",")))
        for line in chart.lines
        for path in line.paths
        for point in path.split()
    ]
    points += [dot for line in chart.lines for dot in line.dots]
    assert len(points) == 3 * sum(one is not None for one in found)
    for x, y in points:
        assert _charts.LEFT <= x <= _charts.WIDTH - _charts.RIGHT
        assert _charts.TOP - 0.1 <= y <= _charts.HEIGHT - _charts.BOTTOM + 0.1
    assert len(chart.rows) <= 7


def test_line_is_interrupted_where_nothing_is_known() -> None:
    """Two pieces, and a dot where one figure stands alone."""
    one = Percentiles(1.0, 1.0, 1.0)
    buckets = [bucket(n, durations=d) for n, d in enumerate([one, one, None, one, None, one, one])]
    line = _charts.times(buckets, lambda one: one.durations, "Duration").lines[0]
    assert [len(path.split()) for path in line.paths] == [2, 2]
    assert len(line.dots) == 1


def test_times_of_a_week_are_days() -> None:
    """And those of an hour have minutes."""
    week = _charts.outcomes([bucket(n, 1, 604_800 / 60) for n in range(60)])
    hour = _charts.outcomes([bucket(n, 1) for n in range(60)])
    assert week.columns[0].label == "May 18"
    assert hour.columns[0].label == "12:07"


@pytest.mark.parametrize(("number", "top"), [(0, 4), (4, 4), (5, 8), (13, 20), (401, 800)])
def test_axis_ends_at_a_round_number(number: int, top: int) -> None:
    """That four equal steps lead to."""
    assert _charts._ceiling(number) == top


def test_search_is_written_as_it_is_read() -> None:
    """The links of a page lead to the same search."""
    text = "status=failed&task=a%26b&text=x+%25+y"
    search = _query.search_of(QueryParams(text))
    assert search.query() == text
    assert _query.search_of(QueryParams(search.query("abc"))).after == "abc"
    assert search.is_filtered
    assert not _query.Search().is_filtered
