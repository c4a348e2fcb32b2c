"""Texts from outside, made safe to look at: what hides, or turns the writing around, is seen."""

from __future__ import annotations

import re
from typing import Final

# Controls; what turns the direction of writing; what takes no room, letters that look like
# nothing (Hangul fillers) among it; halves of surrogate pairs; tags.
_HIDING: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
# Variation selectors belong to signs and emoji, and to digits that become keys of a telephone.
_HIDDEN: Final = re.compile(f"[{_HIDING}]|(?<=[\0-\x7f])[\ufe00-\ufe0f](?!\u20e3)")
# A page breaks lines by itself, and knows how to join emoji, and the letters of Persian words.
_HIDDEN_ON_PAGES: Final = re.compile(
    f"(?![\n\t])(?!(?<=[^\0-\xff])[\u200c\u200d](?=[^\0-\xff]))(?:{_HIDDEN.pattern})"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""Return a text as one line in which nothing hides, or acts on a terminal.

    Control characters are written as ``\x1b``, those that turn the direction of writing or
    take no room as ``\u202e``, and halves of surrogate pairs as ``\ud800``.
    """
    return text if _is_plain(text) else _HIDDEN.sub(_written, text)


def visible_on_page(text: str) -> str:
    """Return a text as `visible` does, but with its line breaks, tabs, and joined letters."""
    return text if _is_plain(text) else _HIDDEN_ON_PAGES.sub(_written, text)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _written(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
