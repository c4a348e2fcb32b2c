"""When the disk, the file or its contents are not as they should be: J2, J9, J10."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_bg.exceptions import JournalError
from asgi_bg.journal import _ledger
from asgi_bg.journal.base import Batch, Handover, Orphan
from asgi_bg.journal.sqlite import SQLiteJournal
from tests.journal.conftest import Make
from tests.journal.helpers import (
    NOW,
    add,
    change,
    check_counts,
    crash,
    files_left,
    ids_of,
    new_job,
    owner_files,
    row_of,
    success,
    waiting,
)

ROOT = Path(__file__).parents[2]


def files_of(path: Path) -> dict[str, bytes]:
    """Return what the database and what belongs to it hold, but for shared memory."""
    return {
        file.name: file.read_bytes()
        for file in path.parent.iterdir()
        if file.is_file() and not file.name.endswith("-shm") and file.stat().st_size
    }


def run(code: str, *arguments: object) -> str:
    """Return what a program of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTS = """
import os, resource, sys, tempfile
from pathlib import Path
from asgi_bg.exceptions import JournalError
from asgi_bg.journal.base import Batch
from asgi_bg.journal.sqlite import SQLiteJournal
from tests.journal.helpers import *
path = sys.argv[1]

def failing(function, *arguments):
    try:
        function(*arguments)
    except JournalError as exc:
        return str(exc)
    raise AssertionError("no error")
"""


# No room on the disk.


def test_a_full_file(journal: SQLiteJournal) -> None:
    """All of a batch is written or nothing; with room again, the next commit goes on."""
    kept = add(journal, new_job())
    connection = journal._file.connection
    assert connection is not None
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    big = new_job(call="x" * 100_000)
    for _ in range(3):
        with pytest.raises(JournalError, match="full"):
            journal.commit(Batch(added=[new_job(), big], marks=[success(kept[0])]))
    assert journal.get(big.id) is None
    assert journal.counts()["queued"] == 1

    connection.execute("PRAGMA max_page_count = 1000000")
    journal.commit(Batch(added=[big], marks=[success(kept[0])]))
    assert row_of(journal, big.id).call == big.call
    assert row_of(journal, kept[0]).status == "succeeded"


def test_a_file_that_may_not_grow() -> None:
    """By the limit that the system sets a process, which is much like a full disk."""
    with tempfile.TemporaryDirectory() as directory:
        out = run(
            IMPORTS
            + """
journal = SQLiteJournal(path)
journal.open()
[first] = add(journal, new_job())
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
written = [first]
while len(written) < 100:
    job = new_job(call="x" * 100_000)
    try:
        written += add(journal, job)
    except JournalError as exc:
        print(exc)
        break
assert journal.get(job.id) is None
another = SQLiteJournal(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
print(failing(another.open))
assert another._ownership is None
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
another.open()
another.close()
written += add(journal, job)
assert all(journal.get(id).id == id for id in written)
assert len(owner_files(path)) == 1
journal.close()
check_counts(path)
""",
            f"{directory}/jobs.db",
        )
    assert out.count("cannot be used") == 2, out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of six megabytes."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    """Nothing that was acknowledged is lost, and with room again all goes on."""
    path = small_disk / "jobs.db"
    ballast = small_disk / "ballast"
    journal = SQLiteJournal(path)
    journal.open()
    written = add(journal, new_job(), new_job())
    journal.note_start(written[0], 1)
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(JournalError):
        for _ in range(100):
            written += add(journal, new_job(call="x" * 50_000))
    # What is noted has its room already: a mapped page without any would kill the process.
    for n in range(1000):
        journal.note(success(written[0], result=f'"{n:01000}"'))
    second = SQLiteJournal(path)
    with pytest.raises(JournalError):
        second.open()
    assert len(owner_files(path)) == 1, "half an owner's file is none"

    ballast.unlink()
    second.open()
    second.close()
    written += add(journal, new_job(call="x" * 50_000))
    assert sorted(written) == sorted(ids_of(journal.find(None, None, None, 999)))
    crash(journal)
    second.open()
    second.recover()
    assert row_of(second, written[0]).status == "succeeded"
    second.close()
    check_counts(path)


def test_a_ledger_is_written_out_before_it_is_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a disk takes less at once than it is given."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:300_000], at))
    journal = SQLiteJournal(path)
    journal.open()
    [file] = owner_files(path)
    assert file.stat().st_size == _ledger._SIZE
    journal.close()


# Others that lock the file.


@contextlib.contextmanager
def locked(path: Path, how: str = "IMMEDIATE") -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"BEGIN {how}")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_locked_for_longer_than_the_busy_timeout(make: Make, path: Path) -> None:
    """Whoever writes is told; whoever reads need not even wait."""
    journal = make(busy_timeout=0.05)
    [job] = add(journal, waiting())
    calls: list[Callable[[], object]] = [
        lambda: journal.commit(Batch(added=[new_job()])),
        lambda: journal.commit(Batch(added=[new_job(key="k")])),
        lambda: journal.claim(1, NOW),
        lambda: journal.retry(job),
        lambda: journal.cancel(job, "why", NOW),
        lambda: journal.purge(None, NOW, 1),
        SQLiteJournal(path, busy_timeout=0.05).open,
    ]
    with locked(path):
        for call in calls:
            with pytest.raises(JournalError, match=r"locked, for longer than busy_timeout=0\.05"):
                call()
        assert row_of(journal, job).status == "queued"
        assert journal.holder_of("k") is None
        assert journal.find(None, None, None, 9)
        assert journal.recover() == journal.cancellations() == []
    assert len(owner_files(path)) == 1
    assert ids_of(journal.claim(1, NOW)) == [job]
    check_counts(path)


def test_a_lock_that_is_given_up_in_time_is_waited_for(make: Make, path: Path) -> None:
    journal = make(busy_timeout=20)
    code = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print(flush=True)
time.sleep(0.3)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        [job] = add(journal, waiting())
    assert row_of(journal, job).id == job


def test_closing_a_locked_file_leaves_the_jobs_to_others(make: Make, path: Path) -> None:
    """With all that was noted."""
    journal, second = make(busy_timeout=0.05), make()
    done, running, free = add(journal, new_job(), new_job(), new_job())
    for job in (done, running):
        journal.note_start(job, 1)
    journal.note(success(done))
    with locked(path):
        with pytest.raises(JournalError, match="locked"):
            journal.close()
    orphans = {orphan.id for orphan in second.recover()}
    assert orphans == {running, free}
    assert row_of(second, done).status == "succeeded"
    assert row_of(second, running).crashes == 1


def test_closing_after_an_error_keeps_what_was_noted(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is gone, and is made anew for this."""
    journal, second = make(), make()
    [done] = add(journal, new_job())
    journal.note_start(done, 1)
    journal.note(success(done))
    journal._file.disconnect()
    journal.close()
    assert row_of(second, done).status == "succeeded"
    assert second.recover() == []


# A file that may not be written, or is not there.

UNPRIVILEGED = (
    IMPORTS
    + """
# Read now, as somebody else may not be let into the directory that they are in.
from asgi_bg.journal import queries
for file in Path(queries.__file__).parent.glob("*.sql"):
    queries.query(file.stem)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
"""
)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that belongs to nobody in particular."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def test_a_directory_that_may_not_be_written(public: Path) -> None:
    out = run(
        UNPRIVILEGED
        + """
directory = os.path.dirname(path)
os.chmod(directory, 0o555)
journal = SQLiteJournal(path)
print(failing(journal.open))
print(failing(journal.counts))
os.chmod(directory, 0o755)
journal.open()
[job] = add(journal, waiting())
journal.close()

os.chmod(directory, 0o555)
print(failing(journal.open))
print(failing(journal.commit, Batch(added=[new_job()])))
assert files_left(path) == ["jobs.db"]
os.chmod(directory, 0o755)
assert ids_of(journal.claim(9, NOW)) == [job]
journal.close()
check_counts(path)
""",
        public / "jobs.db",
    )
    assert out.count(f"the journal {public / 'jobs.db'} cannot be") == 4, out


def test_a_file_that_may_not_be_written(public: Path) -> None:
    out = run(
        UNPRIVILEGED
        + """
journal = SQLiteJournal(path)
journal.open()
[job] = add(journal, waiting())
journal.close()
before = open(path, "rb").read()
os.chmod(path, 0o444)
print(failing(journal.open))
print(failing(journal.commit, Batch(added=[new_job()])))
assert open(path, "rb").read() == before
os.chmod(path, 0o644)
assert ids_of(journal.claim(9, NOW)) == [job]
journal.close()
check_counts(path)
""",
        public / "jobs.db",
    )
    assert out.count("may not read and write it") == 2, out


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "no" / "jobs.db"
    journal = SQLiteJournal(path)
    for call in (journal.open, journal.recover, lambda: journal.claim(1, NOW)):
        with pytest.raises(JournalError, match="does not exist; make it, or give another path"):
            call()
    with pytest.raises(JournalError, match="cannot be read"):
        journal.counts()
    path.parent.mkdir()
    journal.open()
    assert sum(journal.counts().values()) == 0
    journal.close()


def test_a_path_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be used"):
        SQLiteJournal(tmp_path).open()
    assert list(tmp_path.iterdir()) == []


def remove(path: Path) -> None:
    for file in path.parent.glob("jobs.db*"):
        if "-owner-" not in file.name:
            file.unlink()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_deleted_or_replaced(make: Make, path: Path, is_replaced: bool) -> None:
    """Is told of once by each that had it open; then all meet in the new file."""
    first, second = make(), make()
    add(first, new_job())
    remove(path)
    if is_replaced:
        third = SQLiteJournal(path)
        third.open()
        add(third, waiting())
        third.close()
    with pytest.raises(JournalError, match="was deleted or replaced while it was open"):
        first.commit(Batch(added=[new_job()]))
    [job] = add(first, new_job())
    assert first.recover() == []
    with pytest.raises(JournalError, match="was deleted or replaced while it was open"):
        second.claim(9, NOW)
    later = add(first, new_job())
    assert len(second.claim(9, NOW)) == is_replaced
    assert second.recover() == []
    crash(first)
    assert {orphan.id for orphan in second.recover()} == {job, *later}
    check_counts(path)


def test_what_is_written_after_a_file_was_replaced_stays(path: Path, tmp_path: Path) -> None:
    """Though another process still closes the old one, whose files had the same names."""
    first, second = SQLiteJournal(path), SQLiteJournal(path)
    first.open()
    second.open()
    add(second, new_job())
    remove(path)
    with pytest.raises(JournalError):
        first.open()
    jobs = add(first, new_job())
    with pytest.raises(JournalError):
        second.open()
    jobs += add(first, new_job())
    assert path.with_name("jobs.db-wal").exists()
    directory = tmp_path / "copy"
    directory.mkdir()
    for name in ("jobs.db", "jobs.db-wal"):
        shutil.copy(path.with_name(name), directory)
    copy = SQLiteJournal(directory / "jobs.db")
    copy.open()
    assert sorted(ids_of(copy.find(None, None, None, 9))) == sorted(jobs)
    for journal in (first, second, copy):
        journal.close()


def test_a_file_that_is_replaced_while_there_is_no_connection(make: Make, path: Path) -> None:
    """The number that this owner had may be another one's there."""
    first = make()
    first._file.disconnect()
    remove(path)
    second = make()
    [held] = add(second, new_job())
    with pytest.raises(JournalError, match="was deleted or replaced"):
        first.commit(Batch(marks=[success(held)]))
    [job] = add(first, new_job())
    assert row_of(second, held).status == "queued"
    crash(first)
    assert second.recover() == [Orphan(job, "app:work", False)]


def test_an_owners_file_that_cannot_be_opened_is_told_of(make: Make, path: Path) -> None:
    first, second = make(), make()
    [job] = add(first, new_job())
    ownership = first._ownership
    assert ownership is not None
    crash(first)
    file = Path(ownership._path)
    data = file.read_bytes()
    file.unlink()
    file.mkdir()
    with pytest.raises(JournalError, match="the owner file .* cannot be opened"):
        second.recover()
    file.rmdir()
    file.write_bytes(data)
    assert second.recover() == [Orphan(job, "app:work", False)]


def test_a_leftover_that_cannot_be_removed_is_in_nobodys_way(make: Make, path: Path) -> None:
    path.with_name("jobs.db-owner-0123456789abcdef").mkdir()
    add(make(), new_job())


# A file that is no journal, or a damaged one.


def refused(path: Path, text: str) -> None:
    """It is told what is wrong, again and again, and no byte is changed."""
    before = files_of(path)
    journal = SQLiteJournal(path, busy_timeout=0.1)
    for _ in range(2):
        with pytest.raises(JournalError, match=text):
            journal.open()
        with pytest.raises(JournalError, match=text):
            journal.commit(Batch(added=[new_job()]))
    journal.close()
    assert files_of(path) == before


@pytest.mark.parametrize("size", [2, 15, 100, 4095, 4096, 100_000])
def test_a_file_of_random_bytes(path: Path, size: int) -> None:
    path.write_bytes(random.Random(size).randbytes(size))
    refused(path, "damaged or no SQLite file, and is left as it is: .* move it away")


def test_a_text_file(path: Path) -> None:
    path.write_text("# jobs\n" * 1000)
    refused(path, "damaged or no SQLite file")


def filled(path: Path) -> list[str]:
    """Write a journal of some pages, and return the ids of its jobs."""
    journal = SQLiteJournal(path)
    journal.open()
    jobs = add(journal, *(waiting(n, call="x" * 2000) for n in range(50)))
    journal.close()
    return jobs


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9])
def test_a_truncated_file(path: Path, share: float) -> None:
    filled(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "damaged or no SQLite file")


@pytest.mark.parametrize("seed", range(20))
def test_a_file_with_damaged_pages(path: Path, seed: int) -> None:
    """It is told of as damaged, or not noticed; there is no other error, and no wrong job."""
    jobs = set(filled(path))
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(3):
        at = chance.randrange(4096, len(data))
        data[at : at + 500] = chance.randbytes(len(data[at : at + 500]))
    path.write_bytes(data)
    journal = SQLiteJournal(path)
    with contextlib.suppress(JournalError):
        journal.open()
        journal.recover()
        journal.claim(99, NOW)
    for call in (journal.counts, lambda: journal.find(None, None, None, 99)):
        with contextlib.suppress(JournalError):
            call()
    for job in jobs:
        with contextlib.suppress(JournalError):
            row = journal.get(job)
            assert row is None or row.id == job
    with contextlib.suppress(JournalError):
        journal.close()


def test_a_schema_of_a_newer_version(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    refused(path, "is of version 99, and this asgi_bg knows versions up to 3; upgrade asgi_bg")


def test_a_newer_version_with_a_wal_that_is_in_use(path: Path) -> None:
    """Even a look would move it into the file, if it were not read only."""
    with leaving_wal(path) as connection:
        connection.execute("PRAGMA application_id = 0x61736762")
        connection.execute("PRAGMA user_version = 99")
    refused(path, "is of version 99")


@contextlib.contextmanager
def leaving_wal(path: Path) -> Iterator[sqlite3.Connection]:
    """A database in WAL mode, and afterwards its WAL is as a crash leaves it."""
    original = path.with_name("original")
    connection = sqlite3.connect(original, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (x)")
    yield connection
    shutil.copy(original, path)
    shutil.copy(f"{original}-wal", f"{path}-wal")
    connection.close()
    original.unlink()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE users (id)",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 7",
        "CREATE TABLE jobs (id); PRAGMA user_version = 1",
    ],
)
def test_a_database_of_something_else(path: Path, sql: str) -> None:
    """In whichever mode it is; not even that is changed."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
    refused(path, "is a database of something else, and is left as it is")


def test_a_database_of_something_else_that_nobody_has_open(path: Path) -> None:
    """In WAL mode, a look alone would leave SQLite's files beside it, and nobody removes them."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE users (id)")
    refused(path, "is a database of something else")
    assert files_left(path) == ["jobs.db"]


def test_a_database_of_something_else_with_a_wal(path: Path) -> None:
    with leaving_wal(path) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    refused(path, "is a database of something else")


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    journal = SQLiteJournal(path)
    journal.open()
    [job] = add(journal, new_job())
    assert row_of(journal, job).id == job
    journal.close()


def test_a_migration_is_made_whole_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the version before to the next, and by the first of several who open it."""
    jobs = filled(path)
    schema = sys.modules["asgi_bg.journal.schema"]
    first = schema.MIGRATIONS
    broken = "ALTER TABLE jobs ADD COLUMN colour TEXT;\nINSERT INTO nowhere VALUES (1);"
    monkeypatch.setattr(schema, "MIGRATIONS", (*first, broken))
    with pytest.raises(JournalError, match="nowhere"):
        SQLiteJournal(path).open()
    monkeypatch.setattr(schema, "MIGRATIONS", first)
    journal = SQLiteJournal(path)
    journal.open()
    assert len(journal.find(None, None, None, 99)) == len(jobs)
    journal.close()

    monkeypatch.setattr(schema, "MIGRATIONS", (*first, "ALTER TABLE jobs ADD COLUMN colour TEXT;"))
    for _ in range(2):
        journal = SQLiteJournal(path)
        journal.open()
        assert sorted(ids_of(journal.find(None, None, None, 99))) == sorted(jobs)
        journal.close()
    monkeypatch.setattr(schema, "MIGRATIONS", first)
    refused(path, "is of version 4")


def test_a_file_of_the_first_version_is_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J9: its jobs are there, are counted, and can be handed over to an engine."""
    schema = sys.modules["asgi_bg.journal.schema"]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        schema.migrate(connection, str(path))
        connection.execute(
            "INSERT INTO jobs (id, task, call, queued_at, priority) "
            "VALUES ('1', 'tests:task', '[[]]', 1.0, 0), ('2', 'tests:task', '[[]]', 1.0, 0)"
        )
    monkeypatch.undo()
    journal = SQLiteJournal(path)
    journal.open()
    assert ids_of(journal.claim(10, NOW)) == ["1", "2"]
    journal.commit(Batch(marks=[Handover("1", "arq", NOW)]))
    assert journal.counts()["queued"] == 1
    handed = journal.get("1")
    assert handed is not None
    assert (handed.status, handed.engine, handed.finished_at) == ("queued", "arq", NOW)
    assert sorted(ids_of(journal.find("queued", None, None, 9))) == ["1", "2"]
    journal.close()


# Rows edited by hand.


def test_rows_edited_by_hand(make: Make, path: Path) -> None:
    """What they say is taken as it is, and nothing else suffers from it."""
    journal = make()
    jobs = add(journal, *(waiting(n) for n in range(5)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for column, value in [
            ("call", "no JSON"),
            ("options", "["),
            ("after", "nonsense"),
            ("task", ""),
            ("owner", 999),
        ]:
            connection.execute(
                f"UPDATE jobs SET {column} = ? WHERE id = ?",
                (value, jobs[4 if value == 999 else 0]),
            )
        connection.execute("DELETE FROM jobs WHERE id = ?", (jobs[1],))
        connection.execute("UPDATE jobs SET status = 'succeeded' WHERE id = ?", (jobs[2],))
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE jobs SET status = 'nonsense' WHERE id = ?", (jobs[3],))
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE jobs SET attempt = 'x' WHERE id = ?", (jobs[3],))
    row = row_of(journal, jobs[0])
    assert (row.call, row.options, row.after, row.task) == ("no JSON", "[", "nonsense", "")
    assert journal.counts()["queued"] == 3
    assert row_of(journal, jobs[4]).owner is None, "nobody is known by that number"
    assert set(ids_of(journal.claim(9, NOW))) >= {jobs[0], jobs[3]}


# A ledger that says what it should not.


@pytest.fixture(scope="module")
def dying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal whose only owner has died, with two jobs."""
    path = tmp_path_factory.mktemp("dying") / "jobs.db"
    journal = SQLiteJournal(path)
    journal.open()
    add(journal, new_job(), new_job(1))
    crash(journal)
    return path


def recovered(dying: Path, ledger: bytes) -> dict[str, str]:
    """Return the status of each job after a recovery from this ledger."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "jobs.db"
        shutil.copy(dying, path)
        [owner] = owner_files(dying)
        path.with_name(owner.name).write_bytes(ledger)
        journal = SQLiteJournal(path)
        journal.open()
        orphans = journal.recover()
        rows = journal.find(None, None, None, 99)
        assert {orphan.id for orphan in orphans} == {
            row.id for row in rows if row.status == "queued"
        }
        journal.claim(99, NOW)
        journal.close()
        check_counts(path)
        return {row.id: row.status for row in rows}


def ledger_of(begun: bytes = b"", *segments: bytes) -> bytes:
    data = bytearray(_ledger._SIZE)
    data[: len(begun)] = begun
    for n, segment in enumerate(segments):
        start = _ledger._SEGMENTS + n * _ledger.SEGMENT
        data[start : start + len(segment)] = segment[: _ledger.SEGMENT]
    return bytes(data)


def entry_of(entry: bytes) -> bytes:
    return _ledger._HEAD.pack(len(entry), crc32(entry)) + entry


@given(
    begun=st.binary(max_size=200),
    segments=st.tuples(st.binary(max_size=300), st.binary(max_size=300)),
    cut=st.none() | st.integers(0, _ledger._SIZE),
)
@example(begun=b"\xff" * _ledger._SEGMENTS, segments=(b"\xff" * _ledger.SEGMENT,) * 2, cut=None)
@example(begun=b"\x01" * _ledger._SEGMENTS, segments=(b"\x01" * _ledger.SEGMENT,) * 2, cut=None)
@example(begun=b"", segments=(b"", b""), cut=0)
def test_a_ledger_of_random_bytes(
    dying: Path, begun: bytes, segments: tuple[bytes, bytes], cut: int | None
) -> None:
    """It is no error, and no job has succeeded by it: all of them wait again."""
    statuses = recovered(dying, ledger_of(begun, *segments)[:cut])
    assert list(statuses.values()) == ["queued"] * 2


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["queued", "running", "succeeded", "failed", "cancelled", "\0", ""])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=15),
    max_leaves=20,
)


@given(
    entries=st.lists(
        st.one_of(
            st.binary(max_size=50),
            JSON.map(msgspec.json.encode),
            st.lists(JSON, min_size=5, max_size=5).map(msgspec.json.encode),
            st.lists(JSON, min_size=10, max_size=10).map(msgspec.json.encode),
            st.lists(JSON, min_size=14, max_size=14).map(msgspec.json.encode),
        ),
        max_size=4,
    )
)
def test_a_ledger_of_odd_entries(dying: Path, entries: list[bytes]) -> None:
    """Each is whole by its checksum; what it says is not of any job that is there."""
    segment = _ledger._TURN.pack(1) + b"".join(map(entry_of, entries))
    statuses = recovered(dying, ledger_of(b"", segment))
    with contextlib.closing(sqlite3.connect(dying)) as connection:
        jobs = [job for (job,) in connection.execute("SELECT id FROM jobs")]
    assert [statuses[job] for job in jobs] == ["queued"] * 2


@given(st.data())
def test_a_ledger_that_was_cut_off_or_changed_anywhere(dying: Path, data: Any) -> None:
    """Of a true one: each job has succeeded as it was noted, or waits."""
    with contextlib.closing(sqlite3.connect(dying)) as connection:
        jobs = [job for (job,) in connection.execute("SELECT id FROM jobs ORDER BY id")]
    noted = [msgspec.json.encode(success(job)) for job in jobs]
    segment = bytearray(_ledger._TURN.pack(1) + b"".join(map(entry_of, noted)))
    at = data.draw(st.integers(0, len(segment) - 1))
    segment[at] ^= data.draw(st.integers(1, 255))
    statuses = recovered(dying, ledger_of(b"", bytes(segment)))
    if at < _ledger._TURN.size:
        assert list(statuses.values()) == ["succeeded"] * 2
    else:
        is_first_whole = at >= _ledger._TURN.size + len(entry_of(noted[0]))
        assert statuses[jobs[0]] == ("succeeded" if is_first_whole else "queued")
        assert statuses[jobs[1]] == "queued"


def test_one_bad_entry_spoils_no_other(make: Make) -> None:
    first, second = make(), make()
    good, bad, worse = add(first, new_job(), new_job(), new_job())
    first.note(change(bad, "no such status"))
    first.note(success(good))
    first.note(change(worse, "failed", message=None))
    crash(first)
    second.recover()
    assert row_of(second, good).status == "succeeded"
    assert row_of(second, bad).status == row_of(second, worse).status == "queued"


# Encryption at rest.

KEY, OTHER_KEY = b"k" * 32, b"o" * 16
SECRET = "a very secret word"


def fill_with_secrets(journal: SQLiteJournal) -> list[str]:
    jobs = add(journal, *(new_job(n, call=f'["{SECRET}"]') for n in range(4)))
    marks = [
        success(jobs[0], result=f'"{SECRET}"'),
        change(
            jobs[1],
            "failed",
            message=SECRET,
            error=f"ValueError: {SECRET}",
            traceback=SECRET,
            logs=f'["{SECRET}"]',
            result=SECRET,
        ),
    ]
    for mark in marks:
        journal.note_start(mark.id, 1)
        journal.note(mark)
    journal.commit(Batch(marks=marks))
    journal.cancel(jobs[2], SECRET, NOW)
    journal.commit(Batch(marks=[change(jobs[3], is_held=False)]))
    journal.cancel(jobs[3], SECRET, NOW)
    journal.note(new_job(call=f'["{SECRET}"]'))
    return jobs


def test_nothing_of_a_job_can_be_read_from_any_file(make: Make, path: Path) -> None:
    """Not from the database, nor its WAL, nor the owner's file; and with the key, all."""
    journal = make(keys=[KEY])
    jobs = fill_with_secrets(journal)
    files = files_of(path)
    assert len(files) == 3
    for name, data in files.items():
        assert SECRET.encode() not in data, name
        assert b"secret" not in data, name
    row = row_of(journal, jobs[0])
    assert row.call == f'["{SECRET}"]'
    assert row.result == f'"{SECRET}"'
    row = row_of(journal, jobs[1])
    assert row.message == row.traceback == row.result == SECRET
    assert row.error == f"ValueError: {SECRET}"
    assert row.logs == f'["{SECRET}"]'
    assert row_of(journal, jobs[3]).error == SECRET
    journal.close()
    assert SECRET.encode() not in path.read_bytes()


def test_without_keys_it_is_there_to_be_read(make: Make, path: Path) -> None:
    """Which shows that the test above looks in the right place."""
    fill_with_secrets(make())
    files = files_of(path)
    assert sum(SECRET.encode() in data for data in files.values()) >= 2


def test_what_was_noted_is_sealed_too(make: Make) -> None:
    first, second = make(keys=[KEY]), make(keys=[OTHER_KEY, KEY])
    [job] = add(first, new_job())
    first.note(success(job, result=f'"{SECRET}"'))
    late = new_job(call=f'["{SECRET}"]')
    first.note(late)
    crash(first)
    second.recover()
    assert row_of(second, job).result == f'"{SECRET}"'
    assert [row.call for row in second.claim(9, NOW)] == [f'["{SECRET}"]']


def test_a_poisonous_jobs_error_is_sealed(make: Make, path: Path) -> None:
    [job] = add(make(keys=[KEY]), waiting())
    for n in (1, 2, 3):
        dying = make(keys=[KEY])
        assert ids_of(dying.claim(1, NOW)) == [job]
        dying.note_start(job, n)
        crash(dying)
        make(keys=[KEY]).recover()
    reader = make(keys=[KEY])
    assert "died 3 times" in (row_of(reader, job).error or "")
    assert b"died 3 times" not in files_of(path)["jobs.db-wal"]


def test_keys_are_changed_by_putting_a_new_one_in_front(make: Make, path: Path) -> None:
    old = make(keys=[OTHER_KEY])
    [job] = add(old, waiting(call='["old"]'))
    old.close()
    both = make(keys=[KEY, OTHER_KEY])
    [newer] = add(both, waiting(call='["new"]'))
    assert row_of(both, job).call == '["old"]'
    both.close()
    new = make(keys=[KEY])
    assert row_of(new, newer).call == '["new"]'
    with pytest.raises(JournalError, match="none of the journal's keys opens"):
        new.get(job)


@pytest.mark.parametrize("keys", [[KEY], []])
def test_the_wrong_key_starts_nothing_and_loses_nothing(make: Make, keys: list[bytes]) -> None:
    """Jobs that it does not open wait for theirs, and the others not for that."""
    right = make(keys=[OTHER_KEY])
    jobs = add(right, *(waiting(n) for n in range(3)))
    follower = waiting(3, after=jobs[2])
    add(right, follower)
    wrong = make(keys=keys)
    for _ in range(2):
        with pytest.raises(JournalError, match="none of the journal's keys opens"):
            wrong.claim(2, NOW)
    [readable] = add(wrong, waiting(9))
    assert ids_of(wrong.claim(2, NOW)) == [readable]
    assert ids_of(right.claim(9, NOW)) == [*jobs, follower.id]


def test_a_sealed_text_edited_by_hand_is_not_opened(make: Make, path: Path) -> None:
    journal = make(keys=[KEY])
    [job] = add(journal, waiting())
    for text in ("\x02", "\x02x", "\x02====", "\x02" + "A" * 64, "\x02\ufffd"):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE jobs SET call = ?", (text,))
        with pytest.raises(JournalError, match="none of the journal's keys opens"):
            journal.get(job)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET call = '[1]'")
    assert row_of(journal, job).call == "[1]", "and plain text is read as it is"


def test_the_same_text_is_never_sealed_the_same(make: Make, path: Path) -> None:
    journal = make(keys=[KEY])
    add(journal, waiting(), waiting())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        first, second = (call for (call,) in connection.execute("SELECT call FROM jobs"))
    assert first != second


def test_odd_texts_come_back_from_their_seal(make: Make) -> None:
    journal = make(keys=[KEY])
    [job] = add(journal, new_job())
    odd = "\0 \ud800 \x02 ü \U0001f600"
    journal.commit(Batch(marks=[change(job, "failed", error=odd, message="")]))
    assert row_of(journal, job).error == odd
    assert row_of(journal, job).message == ""


def test_encryption_without_its_package(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ImportError, match=r"pip install 'asgi_bg\[encryption\]'"):
        SQLiteJournal(path, keys=[KEY])
    SQLiteJournal(path)


def test_errors_that_are_not_the_files_fault_stay_what_they_are(journal: SQLiteJournal) -> None:
    with pytest.raises(sqlite3.Error):
        journal.cancel(object(), "why", NOW)  # type: ignore[arg-type]
    add(journal, new_job())
