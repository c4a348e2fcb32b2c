"""Encryption of what a job's row says of its call and its outcome (J10)."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import Any

from asgi_bg.exceptions import JournalError

# No JSON text begins so, and what tasks say that does is shown with a blank before.
_MARK = "\x02"


class Sealer:
    """Seals texts with the first key, by AES-GCM, and opens them with any.

    Args:
        keys: Keys of 16, 24 or 32 bytes. The first one writes, all read, so a new key
            goes to the front. Without any, texts are left as they are.

    Raises:
        TypeError, ValueError: A key is none.
        ImportError: The package ``cryptography`` is missing.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        listed = (keys,) if isinstance(keys, bytes) else tuple(keys)
        self._ciphers: list[Any] = []
        if not listed:
            return
        AESGCM = _cipher()  # noqa: N806 - the name of a class
        for key in listed:
            if not isinstance(key, bytes):
                raise TypeError(f"keys must hold bytes, got {type(key).__name__}")
            if len(key) not in (16, 24, 32):
                raise ValueError(
                    f"a key must have 16, 24 or 32 bytes, got {len(key)}; "
                    "make one with: os.urandom(32)"
                )
            self._ciphers.append(AESGCM(key))

    @property
    def is_active(self) -> bool:
        """Whether texts are sealed."""
        return bool(self._ciphers)

    def is_sealed(self, text: str) -> bool:
        """Whether a stored text can be read only with a key."""
        return text[:1] == _MARK

    def seal(self, text: str | None) -> str | None:
        """Return a text as it is to be stored."""
        if text is None or not self._ciphers:
            return f" {text}" if text and text[0] == _MARK else text
        nonce = os.urandom(12)  # 96 bits, as NIST SP 800-38D, section 8.2, recommends
        sealed = self._ciphers[0].encrypt(nonce, text.encode("utf-8", "surrogatepass"), None)
        return _MARK + base64.b64encode(nonce + sealed).decode()

    def open(self, text: str | None) -> str | None:
        """Return a stored text as it was.

        Raises:
            JournalError: None of the keys opens it.
        """
        if not text or text[0] != _MARK:
            return text
        try:
            data = base64.b64decode(text[1:], validate=True)
        except ValueError:
            data = b""
        for cipher in self._ciphers:
            try:
                opened: bytes = cipher.decrypt(data[:12], data[12:], None)
            except Exception:  # noqa: S112 - the wrong key, or edited by hand: try the next
                continue
            return opened.decode("utf-8", "surrogatepass")
        raise JournalError(
            "none of the journal's keys opens this text; give the key it was written with, "
            "after the new one: SQLiteJournal(path, keys=[new, old])"
        )


def _cipher() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as exc:
        raise ImportError(
            "keys= needs the package cryptography; install it with: "
            "pip install 'asgi_bg[encryption]'"
        ) from exc
    return AESGCM
