"""JSON text that SQLite reads as it is meant."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

_encode = msgspec.json.Encoder().encode
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def rows(items: Any) -> str | None:
    """Return a list as the parameter of a statement; None if there is nothing in it."""
    return text_of(items) if items else None


def text_of(items: Any) -> str:
    """Return JSON that SQLite reads as it is meant."""
    try:
        text = _encode(items).decode()
    except UnicodeEncodeError:  # half a surrogate pair, as file names in errors have
        text = _encode(_replace_surrogates(msgspec.to_builtins(items))).decode()
    if "\\u0000" in text:
        text = _NUL.sub(r"\1\\ufffd", text)  # for SQLite's JSON functions a string ends there
    return text


def stored(text: str) -> str:
    """Return a text as `text_of` leaves it."""
    return text.replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode()


def _replace_surrogates(items: Any) -> Any:
    if isinstance(items, str):
        return stored(items)
    if isinstance(items, list | tuple):
        return [_replace_surrogates(item) for item in cast("list[Any]", items)]
    return items
