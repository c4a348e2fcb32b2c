"""Which journals cannot be used: code 3, one message, and the file as it was (W3, J9)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.schema import APPLICATION_ID, MIGRATIONS
from tests.cli.helpers import DEADLINE, ROOT, Journal, call, environment
from tests.helpers import need

need("typer")

COMMANDS = [
    ("list",),
    ("list", "--json"),
    ("show", "abc"),
    ("stats",),
    ("watch",),
    ("check",),
    ("retry", "--failed"),
    ("retry", "abc"),
    ("cancel", "abc"),
    ("purge", "--yes"),
]


def versioned(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for step in MIGRATIONS[:version]:
            connection.executescript(step)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")


def missing(path: Path) -> str:
    del path
    return "there is no journal"


def foreign(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (id)")
    return "something else"


def newer(path: Path) -> str:
    versioned(path, 99)
    return "upgrade asgi_bg"


def no_database(path: Path) -> str:
    path.write_bytes(b"once upon a time " * 1000)
    return "no SQLite file"


def empty(path: Path) -> str:
    path.touch()
    return "is empty"


def directory(path: Path) -> str:
    path.mkdir()
    return "is no file"


def pipe(path: Path) -> str:
    os.mkfifo(path)  # to open it would be to wait for ever
    return "is no file"


def older(path: Path) -> str:
    versioned(path, 1)
    return "looking does not change it"


UNUSABLE = [missing, foreign, newer, no_database, empty, directory, pipe, older]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("make", UNUSABLE)
def test_unusable_journal_is_code_3_and_stays_as_it_is(
    tmp_path: Path, make: Callable[[Path], str], command: tuple[str, ...]
) -> None:
    path = tmp_path / "jobs.db"
    reason = make(path)
    before = path.read_bytes() if path.is_file() else None
    outcome = call("--journal", str(path), *command)
    if make is older and command == ("check",):
        assert outcome.code == 1  # it can be checked, as far as it goes
        assert reason in outcome.out
    else:
        assert outcome.code == 3
        assert outcome.out == ""
        assert reason in outcome.err
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {entry.name for entry in tmp_path.iterdir()} <= {"jobs.db"}


def test_odd_path_is_a_path(tmp_path: Path) -> None:
    """Nothing of it is taken for a URI, or for markup."""
    shop = Journal(tmp_path / "a?mode=rwc&b#c%20[bold]x.db")
    assert call("--journal", shop.path, "list").code == 0
    assert call("--journal", shop.path, "check").code == 0
    shown = call("--journal", f"{shop.path}\x1b[2J", "list")
    assert shown.code == 3
    assert "[bold]" in shown.err
    assert "\x1b" not in shown.err


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user of the system may enter."""
    folder = Path(tempfile.mkdtemp(prefix="asgi_bg-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


IS_SUPERUSER = os.geteuid() == 0


def allow(path: str | Path, bits: int) -> None:
    """Say what another user may do with a file of the app's: read 4, write 2, enter 1.

    Where this is not the superuser, who could become another user, its own rights are taken
    away: the system refuses it in the same way.
    """
    os.chmod(path, 0o600 | bits * 0o111 if IS_SUPERUSER else bits * 0o111)


AS_ANOTHER = """
import os, sys
from typer.testing import CliRunner
from asgi_bg.cli import main
from asgi_bg.cli._app import app
# What is imported late must be there before: another user may not read this one's files.
for args in (["list"], ["retry", "none"], ["check"]):
    CliRunner().invoke(app, ["--journal", sys.argv[1], *args])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
app(["--journal", *sys.argv[1:]])
"""


def as_another(*args: str) -> tuple[int, str]:
    """Call the command as one who may do what `allow` says."""
    result = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, *args],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=ROOT,
        env=environment(),
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode, result.stderr


def test_other_user_is_told_what_to_do(public: Path) -> None:
    """One who may not read; who may read, and not write in the directory; who may write."""
    shop = Journal(public / "shop.db")
    allow(public, 5)
    allow(shop.path, 0)
    code, said = as_another(shop.path, "list")
    assert (code, "as the user of the app" in said) == (3, True), said
    allow(shop.path, 4)
    code, said = as_another(shop.path, "list")
    assert (code, "best the app's" in said) == (3, True), said
    allow(public, 7)
    assert as_another(shop.path, "list") == (0, "")
    code, said = as_another(shop.path, "retry", "--failed")
    assert (code, "may not read and write" in said) == (3, True), said


def test_other_user_may_look_while_the_app_runs(public: Path) -> None:
    """Though not write in the directory: what SQLite needs beside the file is there then."""
    shop = Journal(public / "shop.db")
    with closing(SQLiteJournal(shop.path)) as journal:
        journal.open()
        for file in public.glob("shop.db*"):
            allow(file, 4)
        allow(public, 5)
        code, said = as_another(shop.path, "check")
        assert code == 0, said
        code, said = as_another(shop.path, "list")
        assert code == 0, said
        public.chmod(0o755)


def test_locked_journal_can_be_read_and_not_changed(shop: Journal) -> None:
    """By another program, for longer than anybody waits; what was asked last is not tried."""
    evil, cancelled = shop.ids["evil"], shop.ids["cancelled"]
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert call("--journal", shop.path, "list").code == 0
        assert call("--journal", shop.path, "check").code == 0
        begun = time.monotonic()
        outcome = call("--journal", shop.path, "retry", "--json", evil, cancelled)
        assert time.monotonic() - begun < 15
        connection.execute("ROLLBACK")
    assert outcome.code == 3
    assert "locked" in outcome.err
    assert [error["id"] for error in outcome.json["errors"]] == [evil]
    assert call("--journal", shop.path, "retry", evil, cancelled).code == 0
