"""W1, W3: what people are shown hides nothing, and does not pretend to be something else."""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_bg import Runner, current_job, task
from asgi_bg._visible import visible, visible_on_page
from tests.helpers import need, until

MakeRunner = Callable[..., Awaitable[Runner]]

HIDDEN = [
    *("\u202e", "\u202a", "\u2066", "\u2067", "\u2068", "\u2069", "\u200e", "\u200f", "\u061c"),
    *("\u200b", "\u2060", "\ufeff", "\xad", "\u034f", "\u180e", "\u3164", "\uffa0", "\u115f"),
    *("\x00", "\x1b", "\x7f", "\x9b", "\u2028", "\u206a", "\ufff9", "\U000e0041", "\U0001d173"),
]
SHOWN = [
    *(
        "plain",
        "äöü",
        "漢字",
        "a\xa0b",
        "a\u3000b",
        "שלום",
        "سلام",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "👍🏽",
    ),
    "葛\U000e0100",
]
JOINED = ["می\u200cخواهم", "👩\u200d👩\u200d👧"]  # noqa: RUF001 - letters as they are


@pytest.mark.parametrize("char", HIDDEN, ids=ascii)
def test_what_hides_is_written(char: str) -> None:
    """W1, W3: on a page and in a terminal, as it is written in Python."""
    for show in (visible, visible_on_page):
        shown = show(f"pay{char}ments")
        assert shown == f"pay{char.encode('unicode_escape').decode()}ments"
        assert shown.encode().decode("unicode_escape") == f"pay{char}ments"


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_seen_stays(text: str) -> None:
    """Also letters of other scripts, and signs that are made of several."""
    assert visible(text) == visible_on_page(text) == text


@pytest.mark.parametrize("text", JOINED)
def test_pages_join_letters_and_emoji(text: str) -> None:
    """A terminal may not know how; and between letters of ASCII there is nothing to join."""
    assert visible_on_page(text) == text
    assert visible(text) != text
    assert visible_on_page("pay\u200dments\u200c") == "pay\\u200dments\\u200c"
    assert visible_on_page("pay\ufe0fments") == "pay\\ufe0fments"


def test_pages_break_lines_by_themselves() -> None:
    """In a terminal a break could be taken for the end of what a job has said."""
    assert visible_on_page("a\n\tb\r") == "a\n\tb\\r"
    assert visible("a\n\tb\r") == "a\\n\\tb\\r"


@given(st.text(st.characters(codec=None)))
def test_nothing_turns_the_writing_around(text: str) -> None:
    """Whatever comes: what is left is no control character, and has no direction of its own."""
    for char in (*visible(text), *visible_on_page(text).replace("\n", "").replace("\t", "")):
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(char) not in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        )


EVIL = "invoice\u202efdp.exe\u2069\u200b"
SEEN = "invoice\\u202efdp.exe\\u2069\\u200b"


@pytest.mark.anyio
async def test_no_page_hides_anything(make_runner: MakeRunner) -> None:
    """W1: names, words, errors, arguments, results and logs; forms keep the name as it is."""
    need("starlette")
    need("jinja2")
    site = need("tests.web.dashboard_site")

    @task(name=EVIL)
    async def evil(value: str) -> str:
        current_job().progress(0.5, EVIL)
        if value == "fail":
            raise ValueError(EVIL)
        return value

    runner = await make_runner()
    good, bad = await runner.add_task(evil, EVIL), await runner.add_task(evil, "fail")
    await runner.drain(10)
    dashboard = need("asgi_bg.web").Dashboard(runner)
    async with site.visiting(dashboard) as visitor:
        for path in ("/", "/list", f"/job/{good.id}", f"/job/{bad.id}", f"/job/{bad.id}/retry"):
            page = (await visitor.get(site.ROOT + path)).text
            assert SEEN in page
            assert not set(page) & set("\u202e\u2069\u200b")
        answer = await site.confirm(visitor, f"/retry-failed?task={EVIL}", task=EVIL)
        assert answer.headers["location"] == "./?done=retry-failed&n=1"
        filtered = (await visitor.get(f"{site.ROOT}/list", params={"task": EVIL})).text
        assert f'name="task" value="{EVIL}"' in filtered
        assert good.id in filtered
    stream: Any = site.Stream(dashboard, "/live/list")
    await until(lambda: stream.events)
    assert "\u202e" not in stream.text
    assert "\\u202e" in str(stream.events)
    await stream.leave()
