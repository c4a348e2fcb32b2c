"""Opening a journal to look at it: what must be true before, and its keys."""

from __future__ import annotations

import base64
import contextlib
import os
import sqlite3
import stat
from pathlib import Path

from asgi_bg.cli._exits import UNUSABLE, USAGE, Problem
from asgi_bg.exceptions import JournalError
from asgi_bg.journal.schema import MIGRATIONS, version_of
from asgi_bg.journal.sqlite import SQLiteJournal

JOURNAL = "ASGI_BG_JOURNAL"
KEYS = "ASGI_BG_KEYS"

_PATIENCE = 5.0  # seconds


def path_of(given: str | None) -> str:
    """Return the path of the journal: the one given, or the environment's.

    Raises:
        Problem: There is none.
    """
    path = given or os.environ.get(JOURNAL)
    if not path:
        raise Problem(f"which journal? Give --journal FILE, or set {JOURNAL}", USAGE)
    return path


def keys_of(file: str | None) -> tuple[bytes, ...]:
    """Return the keys to open sealed jobs with, of a file or the environment.

    Raises:
        Problem: They cannot be read. No message tells anything of a key.
    """
    if file is not None:
        source = f"the key file {file}"
        try:
            text = Path(file).read_text("ascii")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no text of base64"
            raise Problem(f"{source} cannot be read: {reason}", USAGE) from None
    else:
        source, text = KEYS, os.environ.get(KEYS, "")
    keys: list[bytes] = []
    for number, word in enumerate(text.replace(",", " ").split(), 1):
        try:
            key = base64.b64decode(word, validate=True)
        except ValueError:
            key = b""
        if len(key) not in (16, 24, 32):
            raise Problem(
                f"key {number} in {source} must be 16, 24 or 32 bytes in base64; several are "
                "separated by commas or line breaks",
                USAGE,
            )
        keys.append(key)
    if file is not None and not keys:
        raise Problem(f"{source} has no key in it", USAGE)
    return tuple(keys)


def open_journal(path: str, keys: tuple[bytes, ...]) -> SQLiteJournal:
    """Return a journal that is there and of this version; nothing is made or changed.

    Raises:
        Problem: It cannot be used; says what to do.
    """
    version = look_at(path)
    if version != len(MIGRATIONS):
        raise Problem(explain_version(path, version), UNUSABLE)
    return SQLiteJournal(path, keys=keys)


def explain_version(path: str, version: int) -> str:
    """Return what to say of a journal that an older asgi_bg has written."""
    if version == 0:
        return f"{path} is empty: no app has begun a journal in it yet"
    return (
        f"the journal {path} is of version {version}, and this asgi-bg reads version "
        f"{len(MIGRATIONS)}; looking does not change it: start the app with this asgi_bg once, "
        "which brings it up to date, or look with the asgi-bg of the version that wrote it"
    )


def look_at(path: str) -> int:
    """Return the version of a journal's schema, by a connection that cannot write.

    Raises:
        Problem: There is no journal there that can be read.
    """
    need_file(path)
    try:
        with contextlib.closing(connect(path)) as connection:
            return version_of(connection, path)
    except JournalError as exc:
        raise Problem(str(exc), UNUSABLE) from exc
    except sqlite3.Error as exc:
        raise Problem(explain(path, exc), UNUSABLE) from exc


def connect(path: str) -> sqlite3.Connection:
    """Return a connection that reads, never makes a file, and waits for others a while.

    Where nobody has the database open, even a connection that cannot write would make
    SQLite's files beside it, and leave them; not so with ``immutable``.
    """
    uri = Path(os.path.abspath(path)).as_uri() + "?mode=ro"
    if not os.path.exists(f"{os.path.realpath(path)}-wal"):
        uri += "&immutable=1"
    return sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)


def explain(path: str, error: sqlite3.Error) -> str:
    """Return what an error of SQLite means for who looks at a journal."""
    text = str(error)
    if isinstance(error, sqlite3.OperationalError):
        if "locked" in text or "busy" in text:
            return f"the journal {path} is locked by another program for long; try again"
        if "open" in text or "readonly" in text:
            return (
                f"the journal {path} cannot be read ({text}): SQLite needs to write beside it, "
                f"so run this as a user who may write in {_folder(path)}, best the app's"
            )
        if "no such table" in text:
            return (
                f"{path} is no journal any more ({text}): it was emptied or replaced; put a backup "
                "in its place, or start the app, which begins a new one"
            )
        return f"the journal {path} cannot be read: {text}"
    return (
        f"the journal {path} is damaged or no SQLite file ({text}), and is left as it is; put a "
        "backup in its place, or move it away (with its -wal and -shm) to begin a new one"
    )


def need_file(path: str) -> None:
    """Raise where there is no file that this process may read."""
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
        if is_file:
            with open(path, "rb"):
                pass
    except FileNotFoundError:
        raise Problem(
            f"there is no journal {path}; give the file that the app has as journal=", UNUSABLE
        ) from None
    except OSError as exc:
        raise Problem(
            f"the journal {path} cannot be read: {exc.strerror}; run this as the user of the app",
            UNUSABLE,
        ) from None
    if not is_file:  # which it may be worse than useless to open
        raise Problem(f"{path} is no file, but a directory or device; give the file", UNUSABLE)


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))
