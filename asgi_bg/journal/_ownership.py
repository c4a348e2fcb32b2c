"""Who owns jobs: a file for each process, locked as long as the process lives (J4).

The lock is the operating system's, so it is dropped with the process, however that dies, and
never before, however busy its event loop is: no heartbeat. It is a POSIX record lock, which
a forked child does not inherit: a child that outlives its parent does not keep it alive.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from asgi_bg.exceptions import JournalError
from asgi_bg.journal._ledger import Entries, Ledger, read_ledger

try:
    from fcntl import LOCK_EX, LOCK_NB, lockf
except ImportError as exc:  # pragma: no cover - Windows
    raise ImportError(
        "asgi_bg's journal needs the file locks of a POSIX system (Linux, macOS, BSD); "
        "without journal= jobs run in memory, on every system"
    ) from exc

# A process does not conflict with its own locks, and loses them when it closes any
# descriptor of the file: so it must know which ones are its own, and not touch them.
_own: set[tuple[int, str]] = set()


class Ownership:
    """One owner: a locked file beside the journal, with the owner's ledger in it."""

    def __init__(self, journal: str) -> None:
        self.token = secrets.token_hex(8)
        self._path = path_of(journal, self.token)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            lockf(descriptor, LOCK_EX | LOCK_NB)
            _own.add((os.getpid(), self._path))
            self.ledger = Ledger(descriptor)
        except BaseException:
            _own.discard((os.getpid(), self._path))
            os.close(descriptor)
            os.unlink(self._path)
            raise
        self._descriptor = descriptor

    def end(self, *, keep: bool = False) -> None:
        """Own nothing any more; with ``keep``, the ledger stays for who recovers the jobs."""
        self.ledger.close()
        if not keep:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        _own.discard((os.getpid(), self._path))
        os.close(self._descriptor)


class DeadOwner:
    """The file of an owner that died, held against others who would recover its jobs too.

    Attributes:
        entries: What its ledger says.
    """

    def __init__(self, path: str, descriptor: int, entries: Entries) -> None:
        self._path = path
        self._descriptor = descriptor
        self.entries: Entries = entries

    def bury(self) -> None:
        """Remove the file, as all that it says has been taken from it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def find_dead(journal: str, token: str) -> DeadOwner | None:
    """Return the owner of this token if it has died and nobody is recovering its jobs.

    One whose file is gone counts as dead, with nothing in its ledger.
    """
    path = path_of(journal, token)
    if (os.getpid(), path) in _own:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise JournalError(f"the owner file {path} cannot be opened: {exc}") from exc
    try:
        lockf(descriptor, LOCK_EX | LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None  # it lives, or somebody else is at it
    try:
        return DeadOwner(path, descriptor, read_ledger(descriptor))
    except OSError as exc:
        os.close(descriptor)
        raise JournalError(f"the owner file {path} cannot be read: {exc}") from exc


def is_alive(journal: str, token: str) -> bool:
    """Whether the owner of this token lives.

    While another process recovers the jobs of a dead one, that counts as alive.
    """
    path = path_of(journal, token)
    if (os.getpid(), path) in _own:
        return True
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's
    try:
        lockf(descriptor, LOCK_EX | LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_leftovers(journal: str, known: set[str]) -> None:
    """Remove the files of owners that the journal does not know (any more).

    To be called in a transaction that writes, as is the making of an `Ownership`: a file
    that has just been made and is not locked yet would be taken for a leftover.
    """
    pattern = Path(path_of(journal, ""))
    prefix = pattern.name
    for path in pattern.parent.glob(f"{_escape(prefix)}*"):
        token = path.name.removeprefix(prefix)
        if token in known:
            continue
        with contextlib.suppress(JournalError):  # another user's; they stand in nobody's way
            dead = find_dead(journal, token)
            if dead is not None:
                dead.bury()
                dead.close()


def path_of(journal: str, token: str) -> str:
    """Return where the file of an owner is: beside the journal itself, not a link to it."""
    return f"{os.path.realpath(journal)}-owner-{token}"


def _escape(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)
