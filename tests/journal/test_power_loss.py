"""Power that fails at any moment: what was acknowledged is there afterwards (J1, J3).

What a disk holds after a loss of power is what was synced, and of what was written later any
part. So after each commit the files are copied as they are, and the copies are then cut off,
zeroed and overwritten where nothing was synced yet.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_bg.journal.base import Batch, JobRow
from asgi_bg.journal.sqlite import SQLiteJournal
from tests.journal.helpers import (
    NOW,
    add,
    change,
    check_counts,
    crash,
    ids_of,
    new_job,
    owner_files,
    success,
    waiting,
)

OWNER_FILES = ["kept", "zeroed", "cut off", "missing"]


def copied(path: Path, directory: Path, owners: str = "missing") -> Path:
    """Copy a journal as a loss of power may leave it; never its shared memory."""
    directory.mkdir()
    copy = directory / path.name
    for name in (path.name, f"{path.name}-wal"):
        if path.with_name(name).exists():
            shutil.copy(path.with_name(name), directory)
    for file in owner_files(path):
        data = file.read_bytes()
        if owners == "zeroed":
            data = bytes(len(data))
        elif owners == "cut off":
            data = data[: len(data) // 3]
        if owners != "missing":
            (directory / file.name).write_bytes(data)
    return copy


def reopened(path: Path) -> dict[str, JobRow]:
    """Return the jobs of a journal after the next start, and claim those that wait."""
    journal = SQLiteJournal(path, durability="normal")
    journal.open()
    journal.recover()
    assert journal._file.connection is not None
    assert journal._file.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = {row.id: row for row in journal.find(None, None, None, 10_000)}
    claimed = set(ids_of(journal.claim(10_000, NOW + 1e6)))
    assert claimed == {row.id for row in rows.values() if row.status == "queued"}
    assert rows.keys() - claimed == {row.id for row in rows.values() if row.finished_at}
    journal.close()
    check_counts(path)
    assert owner_files(path) == []
    return rows


@contextlib.contextmanager
def working(path: Path, **options: Any) -> Iterator[SQLiteJournal]:
    journal = SQLiteJournal(path, **options)
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


@pytest.mark.parametrize("owners", OWNER_FILES)
def test_every_acknowledged_job_is_there(tmp_path: Path, owners: str) -> None:
    """After each commit, of any kind, whatever has become of the owners' files."""
    path = tmp_path / "jobs.db"
    chance = random.Random(owners)
    expected: dict[str, str] = {}
    held: list[str] = []
    with working(path) as journal:
        for n in range(40):
            match chance.randrange(5):
                case 0 | 1:
                    jobs = [new_job(n) for _ in range(chance.randint(1, 30))]
                    held += add(journal, *jobs)
                    expected |= {job.id: "queued" for job in jobs}
                case 2:
                    job = waiting(n, call="x" * chance.randrange(20_000))
                    add(journal, job)
                    expected[job.id] = "queued"
                case 3 if held:
                    ended = [held.pop() for _ in range(len(held) // 2)]
                    for job in ended:
                        journal.note_start(job, 1)
                        journal.note(success(job))
                    journal.turn()
                    journal.commit(Batch(marks=[success(job) for job in ended]))
                    expected |= dict.fromkeys(ended, "succeeded")
                case 4 if len(held) > 1:
                    failed, running = held.pop(), chance.choice(held)
                    marks = [change(failed, "failed"), change(running, "running")]
                    journal.commit(Batch(marks=marks))
                    expected[failed] = "failed"
            rows = reopened(copied(path, tmp_path / f"copy{n}", owners))
            assert {row.id: row.status for row in rows.values()} == expected
            shutil.rmtree(tmp_path / f"copy{n}")


def test_what_was_written_after_the_last_commit_may_be_torn(tmp_path: Path) -> None:
    """The WAL is cut off at every length of the commit after it, and at each it is sound."""
    path = tmp_path / "jobs.db"
    wal = path.with_name("jobs.db-wal")
    with working(path) as journal:
        add(journal, *(new_job() for _ in range(5)))
        add(journal, new_job(call="x" * 5000))
        acknowledged = ids_of(journal.find(None, None, None, 99))
        before = wal.stat().st_size
        later = add(journal, new_job(call="y" * 9000))
        after = wal.stat().st_size
        copy = copied(path, tmp_path / "whole")
    data = copy.with_name("jobs.db-wal").read_bytes()
    assert after > before + 4096
    # Around the border of each frame (a page and its head), and some between.
    sizes = {before, after} | set(range(before, after, 997))
    for border in range(before, after + 1, 4096 + 24):
        sizes |= {border + n for n in (-1, 1, 23, 24, 25)}
    for size in sorted(size for size in sizes if before <= size <= after):
        torn = copied(copy, tmp_path / str(size))
        torn.with_name("jobs.db-wal").write_bytes(data[:size])
        rows = reopened(torn)
        assert set(rows) - set(later) == set(acknowledged), size
        assert (set(later) <= set(rows)) == (size == after), "a commit is there whole or not"
        shutil.rmtree(torn.parent)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Any]]]:
    """A journal with a long WAL; and after which length of it which jobs were acknowledged."""
    path = tmp_path_factory.mktemp("history") / "jobs.db"
    wal = path.with_name("jobs.db-wal")
    borders: list[tuple[int, set[str], set[str]]] = []
    known: set[str] = set()
    ended: set[str] = set()
    with working(path) as journal:
        for n in range(30):
            jobs = add(journal, *(new_job(n, call="x" * 300 * (n % 4)) for _ in range(3)))
            known |= {*jobs}
            borders.append((wal.stat().st_size, {*known}, {*ended}))
            journal.commit(Batch(marks=[success(jobs[0]), change(jobs[1], "failed")]))
            ended |= {*jobs[:2]}
            borders.append((wal.stat().st_size, {*known}, {*ended}))
        yield copied(path, tmp_path_factory.mktemp("copies") / "whole"), borders


def check(path: Path, size: int, borders: list[Any], directory: Path) -> None:
    """All that was acknowledged by this length of the WAL is there, and counts as it did."""
    rows = reopened(path)
    known: set[str] = set()
    ended: set[str] = set()
    for border, known_then, ended_then in borders:
        if border <= size:
            known, ended = known_then, ended_then
    assert known <= set(rows)
    assert ended <= {row.id for row in rows.values() if row.finished_at}
    shutil.rmtree(directory)


@given(data=st.data())
def test_the_wal_is_cut_off_anywhere(
    history: tuple[Path, list[Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole, borders = history
    wal = whole.with_name("jobs.db-wal").read_bytes()
    size = data.draw(st.integers(0, len(wal)) | st.sampled_from([b[0] for b in borders]))
    directory = tmp_path_factory.mktemp("cut") / "copy"
    path = copied(whole, directory)
    path.with_name("jobs.db-wal").write_bytes(wal[:size])
    check(path, size, borders, directory)


@given(data=st.data(), rubbish=st.sampled_from(["zeros", "random", "older"]))
def test_rubbish_after_what_was_synced(
    history: tuple[Path, list[Any]],
    data: st.DataObject,
    rubbish: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Blocks that were given to the file and not written hold anything, older frames too."""
    whole, borders = history
    wal = whole.with_name("jobs.db-wal").read_bytes()
    size = data.draw(st.sampled_from([border for border, _, _ in borders]))
    length = data.draw(st.integers(1, 3 * 4120))
    at = data.draw(st.integers(0, 4120))
    tail = {
        "zeros": bytes(length),
        "random": random.Random(length).randbytes(length),
        "older": wal[32 : 32 + length],
    }[rubbish]
    directory = tmp_path_factory.mktemp("rubbish") / "copy"
    path = copied(whole, directory)
    path.with_name("jobs.db-wal").write_bytes(wal[: size + at] + tail)
    check(path, size, borders, directory)


@settings(max_examples=max(10, settings.default.max_examples // 5))  # type: ignore[union-attr]
@given(data=st.data())
def test_power_fails_while_the_wal_is_moved_into_the_file(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A checkpoint overwrites pages of the file; until it is synced, the WAL has them too."""
    directory = tmp_path_factory.mktemp("checkpoint")
    path = directory / "jobs.db"
    with working(path) as journal:
        jobs = add(journal, *(new_job(n, call="x" * 900) for n in range(20)))
        assert journal._file.connection is not None
        journal._file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        jobs += add(journal, *(new_job(n, call="y" * 900) for n in range(20)))
        journal.commit(Batch(marks=[success(job) for job in jobs[:5]]))
        copy = copied(path, directory / "copy")
        assert copy.with_name("jobs.db-wal").stat().st_size
        journal._file.connection.execute("PRAGMA wal_checkpoint(FULL)")
        written = path.read_bytes()
    old = copy.read_bytes()
    pages = len(written) // 4096
    torn = bytearray(old.ljust(len(written), b"\0"))
    for page in data.draw(st.sets(st.integers(0, pages - 1))):
        part = data.draw(st.sampled_from([512, 4096]))
        torn[page * 4096 : page * 4096 + part] = written[page * 4096 : page * 4096 + part]
    copy.write_bytes(torn)
    rows = reopened(copy)
    assert set(rows) == set(jobs)
    assert {row.id for row in rows.values() if row.status == "succeeded"} == set(jobs[:5])
    shutil.rmtree(directory)


def test_normal_durability_loses_no_more_than_the_last_commits(tmp_path: Path) -> None:
    """Its file is sound whatever was lost: the commits that are there are the first ones."""
    path = tmp_path / "jobs.db"
    with working(path, durability="normal") as journal:
        jobs = [add(journal, new_job(n, call="x" * 3000))[0] for n in range(8)]
        copy = copied(path, tmp_path / "whole")
    data = copy.with_name("jobs.db-wal").read_bytes()
    for size in range(0, len(data) + 1, 3001):
        torn = copied(copy, tmp_path / str(size))
        torn.with_name("jobs.db-wal").write_bytes(data[:size])
        rows = reopened(torn)
        assert sorted(rows) == jobs[: len(rows)]


def test_a_ledger_that_is_older_than_the_file_undoes_nothing(tmp_path: Path) -> None:
    """The system wrote the owner's file down earlier than the last commits were synced."""
    path = tmp_path / "jobs.db"
    journal = SQLiteJournal(path)
    journal.open()
    [file] = owner_files(path)
    jobs = add(journal, *(new_job(n) for n in range(4)))
    for job in jobs:
        journal.note_start(job, 1)
    journal.note(change(jobs[0], run_after=NOW + 1, is_held=True))
    older = file.read_bytes()
    marks = [
        success(jobs[0], 2),
        success(jobs[1]),
        change(jobs[2], run_after=NOW + 5, is_held=True),
        change(jobs[3], "running", 1),
    ]
    for mark in marks[:3]:
        journal.note(mark)
    journal.turn()
    journal.commit(Batch(marks=marks))
    crash(journal)
    file.write_bytes(older)
    rows = reopened(path)
    assert [rows[job].status for job in jobs] == ["succeeded", "succeeded", "queued", "queued"]
    assert [rows[job].crashes for job in jobs] == [0, 0, 0, 1]
    assert rows[jobs[2]].run_after == NOW + 5


def test_a_new_file_is_there_with_its_first_job(tmp_path: Path) -> None:
    """The making of the schema is lost, or is whole."""
    path = tmp_path / "jobs.db"
    with working(path):
        copy = copied(path, tmp_path / "whole")
    wal = copy.with_name("jobs.db-wal").read_bytes()
    for size in range(0, len(wal) + 1, 4120 // 2):
        torn = copied(copy, tmp_path / str(size))
        torn.with_name("jobs.db-wal").write_bytes(wal[:size])
        with working(torn) as journal:
            [job] = add(journal, waiting())
        assert list(reopened(torn)) == [job]
    with contextlib.closing(sqlite3.connect(torn)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
