"""``check``: what is wrong is found, explained, and nothing else is called wrong (W3)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.checking import LARGE_WAL, NAMES, checks
from tests.cli.helpers import Journal, Outcome, call, crashed
from tests.helpers import need
from tests.journal.helpers import Other

need("typer")


def edit(path: str, *statements: str) -> None:
    """Change the file by other means."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def levels(outcome: Outcome) -> dict[str, str]:
    """The findings that are not fine."""
    return {
        finding["name"]: finding["level"]
        for finding in outcome.json["findings"]
        if finding["level"] != "fine"
    }


def test_sound_journal_is_called_sound(shop: Journal) -> None:
    for options in ((), ("--quick",)):
        outcome = call("--journal", shop.path, "check", *options)
        assert outcome.code == 0
        assert "The journal is sound." in outcome.out
        assert "WRONG" not in outcome.out
    assert [finding.name for finding in checks(shop.path)] == list(NAMES)


@pytest.mark.parametrize(
    ("name", "statement", "words"),
    [
        ("tally", "UPDATE tally SET failed = 7", "failed: 7 are counted, 1 are there"),
        ("held", "UPDATE jobs SET owner = 99 WHERE status = 'queued'", "set owner to NULL"),
        ("states", "UPDATE jobs SET finished_at = NULL WHERE status = 'failed'", "contradict"),
        ("twins", "INSERT INTO twins VALUES ('a\x1b[2J', 'gone')", "a\\x1b[2J"),
        ("json", "UPDATE jobs SET call = '[[1' WHERE status = 'failed'", "no JSON"),
        ("json", "UPDATE jobs SET options = '' WHERE status = 'failed'", "no JSON"),
        ("json", "UPDATE jobs SET logs = 'x' WHERE status = 'failed'", "no JSON"),
        ("json", "UPDATE jobs SET result = 'x' WHERE status = 'succeeded'", "2 jobs"),
        ("json", "UPDATE jobs SET past = '{' WHERE status = 'failed'", "no JSON"),
        ("json", "UPDATE jobs SET origin = '{' WHERE status = 'failed'", "no JSON"),
    ],
)
def test_what_was_edited_is_found(shop: Journal, name: str, statement: str, words: str) -> None:
    edit(shop.path, statement)
    outcome = call("--journal", shop.path, "check", "--json")
    assert outcome.code == 1
    assert not outcome.json["is_sound"]
    assert levels(outcome) == {name: "problem"}
    shown = call("--journal", shop.path, "check")
    assert shown.code == 1
    assert words in shown.out
    assert "What to do: " in shown.out
    assert "1 check found something wrong." in shown.out
    assert "\x1b" not in shown.out


def test_dead_process_is_found_and_a_live_one_is_not(tmp_path: Path) -> None:
    shop = crashed(tmp_path / "shop.db")
    outcome = call("--journal", shop.path, "check", "--json")
    assert levels(outcome) == {"processes": "problem"}
    [finding] = [one for one in outcome.json["findings"] if one["name"] == "processes"]
    assert finding["examples"] == [f"pid {os.getpid()}: 1"]
    assert "gone" in call("--journal", shop.path, "stats").out
    other = Other(shop.path)
    try:
        assert other.tell("len(journal.recover())") == 1
        assert call("--journal", shop.path, "check").code == 0
    finally:
        other.kill()
        other.process.communicate()
    assert levels(call("--journal", shop.path, "check", "--json")) == {"processes": "problem"}


def test_check_takes_nothing_from_an_owner_in_this_process(tmp_path: Path) -> None:
    """Its lock would be lost by closing the file, as POSIX has it."""
    path = tmp_path / "shop.db"
    with closing(SQLiteJournal(path)) as journal:
        journal.open()
        assert call("--journal", str(path), "check").code == 0
        other = Other(path)
        try:
            assert other.tell("journal.recover()") == []
        finally:
            other.kill()
            other.process.communicate()


def test_sealed_jobs_are_checked_with_their_key(tmp_path: Path) -> None:
    """Without a key that is a note; with the wrong one it is wrong (J10)."""
    shop = Journal(tmp_path / "sealed.db", keys=(b"k" * 32,))
    outcome = call("--journal", shop.path, "check", "--json")
    assert outcome.code == 0
    assert levels(outcome) == {"sealed": "note"}
    right = {"ASGI_BG_KEYS": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="}
    assert levels(call("--journal", shop.path, "check", "--json", env=right)) == {}
    wrong = {"ASGI_BG_KEYS": "b29vb29vb29vb29vb29vb29vb29vb29vb29vb29vb28="}
    outcome = call("--journal", shop.path, "check", "--json", env=wrong)
    assert outcome.code == 1
    assert levels(outcome) == {"sealed": "problem"}
    edit(shop.path, "UPDATE jobs SET error = char(2) || 'x' WHERE status = 'failed'")
    assert levels(call("--journal", shop.path, "check", "--json", env=right)) == {
        "sealed": "problem"
    }


def test_damage_is_found_and_left_alone(shop: Journal) -> None:
    """A page in the middle is overwritten; the checks of the content are left out."""
    path = Path(shop.path)
    edit(shop.path, "PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for place in range(4096 + 200, len(data), 4096):
        data[place : place + 3000] = b"\xa5" * 3000
    path.write_bytes(data)
    outcome = call("--journal", shop.path, "check")
    assert outcome.code in (1, 3)  # what is hit may be what SQLite needs to read at all
    assert "damaged" in outcome.out + outcome.err
    assert path.read_bytes() == bytes(data)


def test_damaged_index_is_found(shop: Journal) -> None:
    """The indexes agree with the table only in SQLite's full check."""
    edit(
        shop.path,
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET sql = replace(sql, 'priority DESC', 'priority')"
        " WHERE name = 'jobs_open'",
        "UPDATE sqlite_master SET sql = replace(sql, 'status, id', 'id, status')"
        " WHERE name = 'jobs_ended'",
    )
    outcome = call("--journal", shop.path, "check", "--json")
    assert outcome.code == 1
    assert levels(outcome)["sqlite"] == "problem"


def test_large_wal_is_noted(shop: Journal) -> None:
    """As a program reads for long and SQLite cannot take it back; a note, and nothing wrong."""
    with closing(SQLiteJournal(shop.path)) as journal:
        journal.open()
        with open(f"{shop.path}-wal", "r+b") as wal:
            wal.truncate(LARGE_WAL)
        outcome = call("--journal", shop.path, "check", "--json")
        assert outcome.code == 0
        assert levels(outcome) == {"wal": "note"}
