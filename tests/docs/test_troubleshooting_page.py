"""What the pages quote of errors and of the log is what the code says."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bg import exceptions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()

HOLE = "\0"
"""Where a value is filled in."""

BY_SQLITE = ("database or disk is full", "database is locked", "readonly", "unable to open")

QUOTES = [
    quote
    for line in PAGE.splitlines()
    if line.startswith("**`")
    for quote in re.findall(r"`([^`]+)`", line.partition(" — ")[0])
]


MODULES = [ast.parse(file.read_text()) for file in (ROOT / "asgi_bg").rglob("*.py")]

NAMED = {
    ast.unparse(node.targets[0]): node.value.value
    for module in MODULES
    for node in module.body
    if isinstance(node, ast.Assign)
    and isinstance(node.value, ast.Constant)
    and isinstance(node.value.value, str)
}
"""Words that have a name of their own, such as that of Django's setting."""


def said(part: ast.expr) -> str:
    """What a part of a text says before it is filled in."""
    match part:
        case ast.Constant():
            return str(part.value)
        case ast.FormattedValue(value=ast.Name(id=name)):
            return NAMED.get(name, HOLE)
        case _:
            return HOLE


def texts() -> Iterator[str]:
    """Every text in the package, as it is written there, with a hole for each value."""
    for module in MODULES:
        for node in ast.walk(module):
            if isinstance(node, ast.JoinedStr):
                yield "".join(map(said, node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%(\(\w+\))?[.\d]*[sdrfg]", HOLE, node.value)


TEXTS = list(texts())


def is_said(quote: str) -> bool:
    """Whether one text has all the parts of a quote in their order; ``...`` is any value."""
    parts = [re.escape(part.strip()) for part in quote.split("...") if part.strip()]
    said_so = re.compile(".*".join(parts), re.DOTALL)
    return any(said_so.search(text) for text in TEXTS)


@pytest.mark.parametrize("quote", QUOTES)
def test_code_says_what_the_page_quotes(quote: str) -> None:
    """The class, if one is named, and the words after it."""
    if found := re.match(r"(\w+): ", quote):
        kind = found[1]
        assert kind in {*exceptions.__all__, *vars(builtins), "ImproperlyConfigured"}, kind
        quote = quote[found.end() :]
    assert is_said(quote)


def test_quotes_are_found_out_that_nobody_says() -> None:
    """The test's own test."""
    assert len(QUOTES) > 25
    assert is_said("task ... cannot keep ... of type ...")
    assert not is_said("task ... cannot keep a secret of type ...")
    assert not is_said("of type ... cannot keep task ...")


def test_code_says_what_the_table_about_the_file_quotes() -> None:
    """But for what SQLite says itself."""
    _, _, table = OPERATING.partition("| What | What `JournalError` says |")
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| ", table.partition("\n\n")[0], re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    assert len(quotes) > 8
    for quote in quotes:
        if not quote.startswith(BY_SQLITE):
            assert is_said(quote), quote
