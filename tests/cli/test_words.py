"""What values look like to people (W3)."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_bg.cli._words import (
    age,
    bar,
    counted,
    duration,
    instant,
    seconds_in,
    shown,
    shown_lines,
    size,
    span,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_000, timezone.utc)


@given(st.text(st.characters(codec=None)))
def test_nothing_shown_acts_on_a_terminal(text: str) -> None:
    """No control character, none that turns the direction of writing, no half of a pair."""
    for char in shown(text):
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(char) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI")
        assert unicodedata.bidirectional(char) not in ("RLI", "FSI", "PDI")
    assert "\n" not in "".join(shown_lines(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain äöü 漢字 🎉", "plain äöü 漢字 🎉"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\tb\r\nc", "a\\tb\\r\\nc"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("\u202eevil", "\\u202eevil"),
        ("\udc80", "\\udc80"),
    ],
)
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-1, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86_400 * 3, "3d")],
)
def test_span(seconds: float, expected: str) -> None:
    assert span(seconds) == expected


def test_ages_go_both_ways() -> None:
    assert age(NOW - timedelta(minutes=3), NOW) == "3m ago"
    assert age(NOW + timedelta(seconds=5), NOW) == "in 5s"
    assert age(NOW, NOW) == "0s ago"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 ms"),
        (0.0000071, "0.0071 ms"),
        (0.0003, "0.3 ms"),
        (0.0042, "4.2 ms"),
        (0.035, "35 ms"),
        (0.9996, "1.0 s"),
        (1.23, "1.2 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (725, "12 min 05 s"),
        (3 * 3600 + 300, "3 h 05 min"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@given(st.floats(0, 1e9))
def test_duration_never_says_sixty(seconds: float) -> None:
    assert " 60 " not in f" {duration(seconds)} "


def test_instants_carry_their_offset() -> None:
    assert instant(NOW, is_utc=True) == "2030-01-02 03:04:05.678+00:00"
    assert datetime.fromisoformat(instant(NOW, is_utc=False)) == NOW


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 bytes"), (999, "999 bytes"), (4_200_000, "4.2 MB")]
)
def test_size(count: int, expected: str) -> None:
    assert size(count) == expected


def test_counted() -> None:
    assert [counted(n, "job") for n in (0, 1, 1204)] == ["0 jobs", "1 job", "1,204 jobs"]
    assert counted(2, "process") == "2 processes"


@given(st.floats(0, 1), st.integers(6, 200), st.booleans())
def test_bar_is_as_wide_as_asked(fraction: float, width: int, is_ascii: bool) -> None:
    text = bar(fraction, width, is_ascii=is_ascii)
    assert len(text) == width
    assert text.isascii() == is_ascii
    assert text.endswith(f"{int(fraction * 100):3d}%")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("7d", 604_800), ("1d12h", 129_600)],
)
def test_spans_that_are_typed(text: str, expected: float) -> None:
    assert seconds_in(text) == expected


@pytest.mark.parametrize(
    "text", ["", "d", "-1", "7 days", "1e9", "nan", "inf", "7d7", "²", "101w1000w9999w"]
)
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a time span"):
        seconds_in(text)
