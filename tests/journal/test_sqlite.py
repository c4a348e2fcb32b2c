"""What every method of the SQLite journal does: J1, J3 to J6, J9, and `priority=` of J10."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asgi_bg._ids import new_id
from asgi_bg.exceptions import JournalError
from asgi_bg.journal import Journal, _claiming
from asgi_bg.journal._ledger import SEGMENT, SLOTS
from asgi_bg.journal.base import Batch, Orphan
from asgi_bg.journal.queries import query
from asgi_bg.journal.sqlite import SQLiteJournal
from asgi_bg.testing._journal_jobs import CHANGED
from tests.helpers import wait_until
from tests.journal.conftest import Make
from tests.journal.helpers import (
    NOW,
    Other,
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

NONE = {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}


def counted(**counts: int) -> dict[str, int]:
    return {**NONE, **counts}


# What it is made with.


def test_it_is_a_journal(path: Path) -> None:
    """It has all that the protocol names, under the same parameters."""
    journal: Journal = SQLiteJournal(path)
    for name, method in inspect.getmembers(Journal, inspect.isfunction):
        if not name.startswith("_"):
            ours = inspect.signature(getattr(SQLiteJournal, name))
            assert ours.parameters.keys() == inspect.signature(method).parameters.keys(), name
    assert journal.path == str(path)
    assert repr(journal) == f"SQLiteJournal('{path}')"
    assert not path.exists(), "nothing is opened before it is asked for"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"durability": "off"}, ValueError, "durability must be 'full' or 'normal', got 'off'"),
        ({"busy_timeout": "1"}, TypeError, "busy_timeout"),
        ({"busy_timeout": -1}, ValueError, "busy_timeout"),
        ({"max_payload": 0}, ValueError, "max_payload"),
        ({"retention": -1}, ValueError, "retention"),
        ({"retention": {"running": 1}}, ValueError, "cancelled, handed_over, got 'running'"),
        ({"retention": {"failed": "1"}}, TypeError, "retention of failed jobs"),
        ({"keys": [b"short"]}, ValueError, "a key must have 16, 24 or 32 bytes, got 5"),
        ({"keys": ["x" * 16]}, TypeError, "keys must hold bytes, got str"),
    ],
)
def test_options_are_checked(
    path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        SQLiteJournal(path, **options)
    assert text in str(caught.value)


def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(JournalError, match=r"needs SQLite 3\.37 or newer"):
        SQLiteJournal(path)


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_the_file_is_in_wal_mode_and_synced(make: Make, durability: Any) -> None:
    journal = make(durability=durability)
    connection = journal._file.connection
    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    expected = 2 if durability == "full" else 1
    assert connection.execute("PRAGMA synchronous").fetchone() == (expected,)


def test_a_path_with_odd_characters(tmp_path: Path) -> None:
    """Percent signs, question marks, brackets and stars mean nothing in it."""
    directory = tmp_path / "100% a?b#c [*]"
    directory.mkdir()
    journal = SQLiteJournal(directory / "j[o]b*s?.db")
    journal.open()
    [job] = add(journal, waiting())
    assert row_of(journal, job).id == job
    crash(journal)

    again = SQLiteJournal(directory / "j[o]b*s?.db")
    again.open()
    again.recover()
    assert ids_of(again.claim(1, NOW)) == [job]
    again.close()
    assert files_left(again.path) == ["j[o]b*s?.db"]


def test_a_closed_journal_leaves_only_its_file(make: Make, path: Path) -> None:
    make().close()
    assert files_left(path) == ["jobs.db"]


def test_closing_twice_or_unopened_does_nothing(make: Make, path: Path) -> None:
    journal = make()
    journal.close()
    journal.close()
    SQLiteJournal(path).close()
    journal.note_start(new_id(NOW), 1)
    journal.note(success(new_id(NOW)))
    journal.turn()


def test_a_closed_journal_can_be_opened_again(make: Make) -> None:
    journal = make()
    [job] = add(journal, new_job())
    journal.close()
    journal.open()
    assert ids_of(journal.claim(9, NOW)) == [job]


def test_many_processes_can_begin_with_one_file_at_once(path: Path) -> None:
    """Its making is one of the few moments in which SQLite does not wait by itself."""
    code = (
        "import sys\n"
        "from asgi_bg.journal.sqlite import SQLiteJournal\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "journal = SQLiteJournal(sys.argv[1])\n"
        "journal.open()\n"
        "print(sum(journal.counts().values()), len(journal.recover()), flush=True)\n"
        "sys.stdin.readline()\n"
        "journal.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]

    def said(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def go(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    try:
        assert [said(process) for process in processes] == ["ready"] * 6
        for process in processes:
            go(process)
        assert [said(process) for process in processes] == ["0 0"] * 6
        assert len(owner_files(path)) == 6
        for process in processes:
            go(process)
        assert [process.wait(20) for process in processes] == [0] * 6
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert files_left(path) == ["jobs.db"]


# Adding.


def test_an_added_job_reads_as_it_was_written(journal: SQLiteJournal) -> None:
    job = new_job(
        0.25,
        call='[1,"\\u0000\\ud800 ü"]',
        task="app:ü",
        run_after=NOW + 60,
        priority=-3,
        key="k",
        after="0" * 32,
    )
    add(journal, job)

    row = row_of(journal, job.id)
    for name in ("id", "task", "call", "options", "queued_at", "run_after", "priority", "key"):
        assert getattr(row, name) == getattr(job, name)
    assert row.after == "0" * 32
    assert (row.status, row.attempt, row.interrupted, row.crashes) == ("queued", 0, 0, 0)
    assert row.owner == f"pid:{os.getpid()}"
    assert row.progress is row.result is row.error is row.logs is row.started_at is None
    assert row.message == ""
    assert not row.is_recovered
    assert journal.counts() == counted(queued=1)


def test_a_batch_is_nothing_or_all(journal: SQLiteJournal) -> None:
    """Of jobs, marks and removals, when one of them cannot be written."""
    held, gone = add(journal, new_job(), new_job())
    bad = change(held, "no such status")
    with pytest.raises(sqlite3.IntegrityError):
        journal.commit(Batch(added=[new_job()], marks=[bad], dropped=[gone]))
    assert journal.counts() == counted(queued=2)
    assert journal.get(gone) is not None


def test_a_job_that_cannot_be_written_is_never_passed_over(journal: SQLiteJournal) -> None:
    """What is no text, or missing, is an error, and no silence."""
    for wrong in (new_job(task=None), new_job(call=None), new_job(priority="x")):
        with pytest.raises(sqlite3.IntegrityError):
            journal.commit(Batch(added=[wrong]))
    assert journal.counts() == NONE


def test_adding_a_job_twice_is_adding_it_once(journal: SQLiteJournal) -> None:
    job = new_job(key="k")
    add(journal, job)
    journal.commit(Batch(marks=[success(job.id)]))
    assert journal.commit(Batch(added=[job])) == {}
    assert journal.counts() == counted(succeeded=1)


def test_many_jobs_in_one_commit(journal: SQLiteJournal) -> None:
    jobs = [waiting(n) for n in range(3000)]
    add(journal, *jobs)
    assert journal.counts() == counted(queued=3000)
    journal.commit(Batch(dropped=[job.id for job in jobs]))
    assert journal.counts() == NONE


def test_an_empty_batch_is_false(journal: SQLiteJournal) -> None:
    assert not Batch()
    assert Batch(dropped=["x"])
    assert journal.commit(Batch()) == {}


@pytest.mark.parametrize("odd", ["a\0b", "\0", "\\\0\\", "\\u0000", "\ud800 half", "\x02"])
def test_odd_characters_in_what_tasks_say(make: Make, odd: str) -> None:
    """SQLite's JSON functions end a text at its first NUL, and half a pair is no UTF-8."""
    journal = make()
    [job] = add(journal, new_job())
    mark = change(job, "failed", message=f"{odd}tail", error=f"x{odd}tail")
    journal.note(mark)
    journal.commit(Batch(marks=[mark]))
    row = row_of(journal, job)
    shown = odd.replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode()
    assert row.message == f"{shown}tail"
    assert row.error == f"x{shown}tail"


# Marks.


def test_a_success(journal: SQLiteJournal) -> None:
    [job] = add(journal, new_job(run_after=NOW))
    journal.commit(Batch(marks=[success(job, 2, at=NOW + 5, result='"r"')]))
    row = row_of(journal, job)
    assert (row.status, row.attempt, row.result) == ("succeeded", 2, '"r"')
    assert (row.started_at, row.finished_at, row.run_after) == (NOW + 5, NOW + 5, None)
    assert row.owner is None
    assert journal.counts() == counted(succeeded=1)


def test_a_success_takes_the_error_of_an_attempt_before_away(journal: SQLiteJournal) -> None:
    [job] = add(journal, new_job())
    journal.commit(Batch(marks=[change(job, "queued", error="e", traceback="t", is_held=True)]))
    assert row_of(journal, job).error == "e"
    journal.commit(Batch(marks=[success(job, 2)]))
    row = row_of(journal, job)
    assert row.error is row.traceback is None


def test_a_change_writes_all_that_changes(journal: SQLiteJournal) -> None:
    [job] = add(journal, new_job())
    journal.commit(Batch(marks=[change(job, "running", 2, **CHANGED)]))
    row = row_of(journal, job)
    assert {name: getattr(row, name) for name in CHANGED} == CHANGED
    assert (row.status, row.attempt, row.owner) == ("running", 2, f"pid:{os.getpid()}")
    assert journal.counts() == counted(running=1)


def test_of_several_marks_the_last_one_counts_but_none_after_an_end(
    journal: SQLiteJournal,
) -> None:
    """Of both kinds, in either order."""
    first, second = add(journal, new_job(), new_job())
    journal.commit(
        Batch(
            marks=[
                change(first, "running"),
                success(second),
                success(first),
                change(second, "failed", error="late"),
            ]
        )
    )
    assert row_of(journal, first).status == "succeeded"
    assert row_of(journal, second).status == "succeeded"


def test_a_mark_changes_no_job_that_has_ended(journal: SQLiteJournal) -> None:
    jobs = add(journal, new_job(), new_job(), new_job())
    ends = [success(jobs[0]), change(jobs[1], "failed"), change(jobs[2], "cancelled")]
    journal.commit(Batch(marks=ends))
    for late in (change, success):
        journal.commit(Batch(marks=[late(job, attempt=9) for job in jobs]))
    journal.commit(Batch(dropped=jobs))
    assert journal.counts() == counted(succeeded=1, failed=1, cancelled=1)
    assert {row_of(journal, job).attempt for job in jobs} == {1}


def test_a_mark_changes_no_job_of_somebody_else(journal: SQLiteJournal, make: Make) -> None:
    """Whoever has it, and also when nobody has."""
    theirs, nobodys = add(journal, new_job(), waiting())
    second = make()
    for mark in (success, change):
        second.commit(Batch(marks=[mark(theirs, attempt=5), mark(nobodys, attempt=5)]))
    assert journal.counts() == counted(queued=2)
    assert row_of(journal, theirs).attempt == 0


def test_a_mark_of_an_earlier_attempt_changes_nothing(journal: SQLiteJournal) -> None:
    [job] = add(journal, new_job())
    journal.commit(Batch(marks=[change(job, "running", 3)]))
    journal.commit(Batch(marks=[success(job, 2)]))
    journal.commit(Batch(marks=[change(job, "failed", 2)]))
    assert (row_of(journal, job).status, row_of(journal, job).attempt) == ("running", 3)


def test_a_job_that_is_given_back_is_anybodys(journal: SQLiteJournal, make: Make) -> None:
    [job] = add(journal, new_job())
    second = make()
    assert second.claim(9, NOW) == []
    journal.commit(Batch(marks=[change(job, is_held=False)]))
    assert row_of(journal, job).owner is None
    assert ids_of(second.claim(9, NOW)) == [job]
    journal.commit(Batch(marks=[success(job)]))
    assert row_of(journal, job).status == "queued", "it was not the first one's any more"


def test_a_dropped_job_leaves_no_row(journal: SQLiteJournal, make: Make) -> None:
    held, free = add(journal, new_job(key="k"), waiting())
    [theirs] = add(make(), new_job())
    journal.commit(Batch(dropped=[held, free, theirs, new_id(NOW)]))
    assert journal.get(held) is journal.get(free) is None
    assert row_of(journal, theirs).id == theirs
    assert journal.holder_of("k") is None
    assert journal.counts() == counted(queued=1)


def test_a_job_added_and_dropped_in_one_commit(journal: SQLiteJournal) -> None:
    job = new_job()
    journal.commit(Batch(added=[job], dropped=[job.id]))
    assert journal.counts() == NONE


# Keys.


def test_a_key_leads_to_its_job(journal: SQLiteJournal) -> None:
    assert journal.holder_of("k") is None
    [job] = add(journal, new_job(key="k"))
    assert journal.holder_of("k") == job
    journal.commit(Batch(marks=[success(job)]))
    assert journal.holder_of("k") == job, "within its retention"
    journal.purge(None, NOW + 1, 9)
    assert journal.holder_of("k") is None


def test_of_two_jobs_with_a_key_one_is_written(journal: SQLiteJournal, make: Make) -> None:
    """The id of the other one leads to it, whatever is asked."""
    winner, loser, third = new_job(key="k"), new_job(key="k"), new_job(key="k")
    add(journal, winner)
    second = make()
    assert second.commit(Batch(added=[loser, waiting()])) == {loser.id: winner.id}
    assert journal.commit(Batch(added=[third])) == {third.id: winner.id}
    assert journal.counts() == counted(queued=2)
    assert row_of(second, loser.id).id == winner.id
    assert row_of(journal, third.id).id == winner.id

    journal.commit(Batch(marks=[change(winner.id, "failed")]))
    assert second.retry(loser.id)
    assert row_of(journal, winner.id).status == "queued"
    second.cancel(third.id, "why", NOW)
    assert row_of(journal, winner.id).status == "cancelled"


def test_two_jobs_with_a_key_in_one_commit(journal: SQLiteJournal) -> None:
    first, second = new_job(key="k"), new_job(key="k")
    assert journal.commit(Batch(added=[first, second])) == {second.id: first.id}
    assert journal.holder_of("k") == first.id
    assert journal.counts() == counted(queued=1)


def test_a_dropped_job_gives_its_key_up_at_once(journal: SQLiteJournal) -> None:
    """In the commit that also adds the next one with that key."""
    first, second = new_job(key="k"), new_job(key="k")
    add(journal, first)
    assert journal.commit(Batch(added=[second], dropped=[first.id])) == {}
    assert journal.holder_of("k") == second.id
    third, fourth = new_job(key="n"), new_job(key="n")
    assert journal.commit(Batch(added=[third, fourth], dropped=[third.id])) == {}
    assert journal.holder_of("n") == fourth.id


def test_a_twin_is_forgotten_with_its_job(journal: SQLiteJournal) -> None:
    winner, loser = new_job(key="k"), new_job(key="k")
    journal.commit(Batch(added=[winner, loser], marks=[success(winner.id)]))
    assert row_of(journal, loser.id).id == winner.id
    assert journal.purge(None, NOW + 1, 9) == 1
    assert journal.get(loser.id) is None
    assert journal._file.connection is not None
    assert journal._file.connection.execute("SELECT count(*) FROM twins").fetchone() == (0,)


def test_keys_with_odd_characters_stay_apart(journal: SQLiteJournal) -> None:
    first, second = new_job(key="a\0b"), new_job(key="a\0c")
    assert journal.commit(Batch(added=[first, second])) == {}
    assert journal.holder_of("a\0b") == first.id
    assert journal.holder_of("a\0c") == second.id
    assert journal.holder_of("a") is None
    again = new_job(key="a\0b")
    assert journal.commit(Batch(added=[again])) == {again.id: first.id}


def test_many_owners_that_want_one_key(path: Path) -> None:
    """At once: one of them gets it, and all the others learn its id."""
    answers: list[tuple[str, dict[str, str]]] = []

    def want() -> None:
        journal = SQLiteJournal(path)
        journal.open()
        barrier.wait()
        for n in range(20):
            job = new_job(key=f"k{n}")
            answers.append((job.id, journal.commit(Batch(added=[job]))))
        barrier.wait()
        journal.close()

    SQLiteJournal(path).open()
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = {job for job, twins in answers if not twins}
    assert len(winners) == 20
    assert {twin for _, twins in answers for twin in twins.values()} <= winners
    assert len(answers) == 80
    check_counts(path)


# Claiming.


def test_claiming_takes_higher_priorities_first_then_older_ones(journal: SQLiteJournal) -> None:
    order = [(5, 3.0), (0, 1.0), (9, 4.0), (0, 0.0), (-1, 0.0), (5, 2.0)]
    jobs = [waiting(at, priority=priority) for priority, at in order]
    add(journal, *jobs)
    expected = [jobs[n].id for n in (2, 5, 0, 3, 1, 4)]
    assert ids_of(journal.claim(2, NOW)) == expected[:2]
    assert ids_of(journal.claim(3, NOW)) == expected[2:5]
    assert ids_of(journal.claim(9, NOW)) == expected[5:]
    assert journal.claim(9, NOW) == []
    assert journal.counts() == counted(queued=6), "claimed is not started"


def test_a_claimed_job_is_one_owners(journal: SQLiteJournal, make: Make) -> None:
    [job] = add(journal, waiting())
    second = make()
    [row] = second.claim(1, NOW)
    assert (row.id, row.call, row.is_recovered) == (job, "[]", False)
    assert journal.claim(1, NOW) == []
    assert row_of(journal, job).owner == f"pid:{os.getpid()}"
    second.commit(Batch(marks=[success(job)]))
    assert row_of(journal, job).status == "succeeded"


def test_owners_that_claim_at_once_share(path: Path) -> None:
    """Each job goes to one of them."""
    first = SQLiteJournal(path)
    first.open()
    jobs = add(first, *(waiting(n) for n in range(400)))
    claimed: list[str] = []

    def claim() -> None:
        journal = SQLiteJournal(path)
        barrier.wait()
        while rows := journal.claim(7, NOW):
            claimed.extend(ids_of(rows))
        barrier.wait()
        journal.close()

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first.close()
    assert sorted(claimed) == sorted(jobs)


def test_put_off_jobs_are_claimed_when_they_are_due(journal: SQLiteJournal) -> None:
    late, soon, now = add(
        journal,
        waiting(run_after=NOW + 60),
        waiting(1, run_after=NOW + 10),
        waiting(2),
    )
    assert journal.next_due() == NOW + 10
    assert ids_of(journal.claim(9, NOW)) == [now]
    assert journal.claim(9, NOW + 9.99) == []
    [row] = journal.claim(9, NOW + 10)
    assert (row.id, row.run_after) == (soon, None)
    assert journal.next_due() == NOW + 60
    assert ids_of(journal.claim(9, NOW + 61)) == [late]
    assert journal.next_due() is None


def test_due_jobs_go_by_priority_too(journal: SQLiteJournal) -> None:
    low, high = add(journal, waiting(run_after=NOW + 1), waiting(1, run_after=NOW + 2, priority=1))
    assert ids_of(journal.claim(1, NOW + 5)) == [high]
    assert ids_of(journal.claim(1, NOW + 5)) == [low]


def test_more_due_jobs_than_are_promoted_at_once(
    journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_claiming, "PROMOTED", 3)
    jobs = add(journal, *(waiting(n, run_after=NOW + 50 + n) for n in range(8)))
    found: list[str] = []
    while rows := journal.claim(99, NOW + 100):
        found += ids_of(rows)
    assert found == jobs


def test_a_put_off_job_of_an_owner_is_its_own(journal: SQLiteJournal, make: Make) -> None:
    """Whoever holds it wakes by itself: it is neither claimed by others, nor told as due."""
    [job] = add(journal, new_job(run_after=NOW + 1))
    assert make().claim(9, NOW + 2) == []
    assert journal.next_due() is None
    journal.commit(Batch(marks=[change(job, run_after=NOW + 3)]))
    assert journal.next_due() == NOW + 3


def test_jobs_of_a_chain_are_claimed_together(journal: SQLiteJournal) -> None:
    first = waiting()
    second = waiting(1, after=first.id)
    third = waiting(2, after=second.id)
    add(journal, first, second, third)
    assert ids_of(journal.claim(9, NOW)) == [first.id, second.id, third.id]


def test_a_follower_waits_for_its_predecessor(journal: SQLiteJournal, make: Make) -> None:
    """Wherever that is: claimed by somebody, or running there."""
    first = waiting()
    second = waiting(1, after=first.id)
    third = waiting(2, after=second.id)
    add(journal, first, second, third)
    one, two = make(), make()
    assert ids_of(one.claim(1, NOW)) == [first.id]
    assert two.claim(9, NOW) == one.claim(9, NOW) == []
    one.commit(Batch(marks=[change(first.id, "running")]))
    assert two.claim(9, NOW) == []
    one.commit(Batch(marks=[success(first.id)]))
    assert ids_of(two.claim(1, NOW)) == [second.id]
    assert one.claim(9, NOW) == []
    two.commit(Batch(marks=[change(second.id, "failed")]))
    assert ids_of(one.claim(9, NOW)) == [third.id]


@pytest.mark.parametrize("is_held", [True, False])
def test_a_predecessor_that_is_put_off_has_left_its_turn(
    journal: SQLiteJournal, make: Make, is_held: bool
) -> None:
    first = new_job()
    follower = waiting(1, after=first.id)
    add(journal, first, follower)
    two = make()
    assert two.claim(9, NOW) == []
    journal.commit(Batch(marks=[change(first.id, run_after=NOW + 60, is_held=is_held)]))
    assert ids_of(two.claim(9, NOW)) == [follower.id]


def test_the_follower_of_a_job_that_is_gone_need_not_wait(journal: SQLiteJournal) -> None:
    """It was dropped, or forgotten, or is the twin of another one."""
    first = new_job()
    add(journal, first, waiting(after=first.id))
    assert journal.claim(9, NOW) == []
    journal.commit(Batch(dropped=[first.id]))
    assert len(journal.claim(9, NOW)) == 1


def test_a_follower_of_higher_priority_waits_all_the_same(journal: SQLiteJournal) -> None:
    first = waiting()
    follower = waiting(1, priority=9, after=first.id)
    add(journal, first, follower)
    assert ids_of(journal.claim(9, NOW)) == [first.id]
    journal.commit(Batch(marks=[success(first.id)]))
    assert ids_of(journal.claim(9, NOW)) == [follower.id]


@pytest.mark.parametrize("limit", [1, 3])
def test_jobs_that_wait_for_others_stand_in_nobodys_way(
    journal: SQLiteJournal, make: Make, limit: int
) -> None:
    """However many of them are older."""
    first = new_job()
    blocked = [waiting(1, after=first.id) for _ in range(2000)]
    free = [waiting(2) for _ in range(5)]
    add(journal, first, *blocked, *free)
    second = make()
    found: list[str] = []
    while rows := second.claim(limit, NOW):
        found += ids_of(rows)
    assert sorted(found) == sorted(job.id for job in free)


def test_claiming_looks_at_so_many_at_most(
    journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everybody else who writes waits for that."""
    monkeypatch.setattr(_claiming, "SCANNED", 10)
    first = new_job()
    add(journal, first, *(waiting(1, after=first.id) for _ in range(10)), waiting(2))
    assert journal.claim(9, NOW) == []


def test_what_is_ready_and_what_is_to_be_tried_again(journal: SQLiteJournal) -> None:
    """Nobody's jobs that may start, and nobody's that wait for another attempt."""

    def look() -> tuple[bool, bool]:
        return journal.has_ready(), journal.has_retries()

    assert look() == (False, False)
    held, _ = add(journal, new_job(), waiting(run_after=NOW + 60))
    assert look() == (False, False), "held, and put off by its request"
    journal.commit(Batch(marks=[change(held, attempt=1, run_after=NOW + 60)]))
    assert look() == (False, True)
    add(journal, waiting())
    assert look() == (True, True)


# Owners that end, and owners that die.


def test_closing_gives_all_back(journal: SQLiteJournal, make: Make) -> None:
    second = make()
    running, put_off, held, ended = add(second, new_job(), new_job(), new_job(1), new_job(2))
    marks = [change(running, "running"), change(put_off, run_after=NOW + 5, is_held=True)]
    second.commit(Batch(marks=[*marks, success(ended)]))
    second.close()
    assert journal.counts() == counted(queued=3, succeeded=1)
    row = row_of(journal, running)
    assert (row.status, row.attempt, row.crashes, row.owner) == ("queued", 1, 0, None)
    assert not row.is_recovered
    assert ids_of(journal.claim(9, NOW)) == [running, held]
    assert ids_of(journal.claim(9, NOW + 5)) == [put_off]
    assert journal.recover() == []


def test_closing_writes_what_was_noted_and_not_committed(
    journal: SQLiteJournal, make: Make
) -> None:
    """A job that is over is not given back to be run again."""
    second = make()
    [done] = add(second, new_job())
    late = new_job(1)
    second.note_start(done, 1)
    second.note(success(done, result='"r"'))
    second.note(late)
    second.close()
    assert row_of(journal, done).result == '"r"'
    assert ids_of(journal.claim(9, NOW)) == [late.id]


def test_a_killed_process_has_its_jobs_taken(journal: SQLiteJournal, other: Other) -> None:
    """Those that it held, those that it claimed, and that one which it was running."""
    jobs = add(journal, waiting(), waiting(1))
    assert other.tell("ids_of(journal.claim(9, NOW))") == jobs
    [held, put_off] = other.tell("add(journal, new_job(2), new_job(3, run_after=NOW + 9))")
    other.tell(f"journal.note_start({jobs[0]!r}, 1)")
    other.tell(f"journal.note_start({jobs[1]!r}, 1)")
    other.tell(f"journal.note(success({jobs[1]!r}, result='42'))")
    assert journal.recover() == []
    assert journal.claim(9, NOW) == []

    other.kill()
    orphans = journal.recover()

    assert sorted(orphans, key=lambda orphan: orphan.id) == [
        Orphan(job, "app:work", False) for job in (jobs[0], held, put_off)
    ]
    row = row_of(journal, jobs[0])
    assert (row.status, row.attempt, row.interrupted, row.crashes) == ("queued", 1, 1, 1)
    assert row.is_recovered
    assert row_of(journal, held).crashes == 0
    row = row_of(journal, jobs[1])
    assert (row.status, row.result, row.attempt) == ("succeeded", "42", 1)
    claimed = journal.claim(9, NOW)
    assert ids_of(claimed) == [jobs[0], held]
    assert [row.is_recovered for row in claimed] == [True, True]
    assert not row_of(journal, held).is_recovered, "somebody has it"
    assert journal.next_due() == NOW + 9
    assert journal.recover() == []
    assert len(owner_files(journal.path)) == 1


def test_a_process_that_lives_keeps_its_jobs(journal: SQLiteJournal, other: Other) -> None:
    """However long it is stopped, and also when others come and go."""
    [job] = other.tell("add(journal, new_job())")
    os.kill(other.process.pid, signal.SIGSTOP)
    wait_until(lambda: _state_of(other.process.pid) == "T", "the process to stand still")
    for _ in range(3):
        assert journal.recover() == []
        assert journal.claim(9, NOW) == []
        second = SQLiteJournal(journal.path)
        second.open()
        assert second.recover() == []
        second.close()
    assert row_of(journal, job).owner == f"pid:{other.process.pid}"
    os.kill(other.process.pid, signal.SIGCONT)
    other.tell(f"journal.commit(Batch(marks=[success({job!r})]))")
    assert row_of(journal, job).status == "succeeded"


def _state_of(pid: int) -> str:
    out = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True)
    return out.stdout.strip()[:1]


def test_a_child_of_a_dead_process_does_not_keep_its_jobs(
    journal: SQLiteJournal, other: Other
) -> None:
    """Locks are not inherited by what a process forks or starts."""
    [job] = other.tell("add(journal, new_job())")
    child = other.tell("os.fork() or time.sleep(60)")
    try:
        other.kill()
        assert journal.recover() == [Orphan(job, "app:work", False)]
    finally:
        os.kill(child, signal.SIGKILL)


def test_only_one_takes_the_jobs_of_a_dead_process(make: Make, path: Path) -> None:
    """However many look at once: each orphan is told of once."""
    found: list[Orphan] = []
    for _ in range(5):
        dying = [make() for _ in range(4)]
        jobs = [add(journal, new_job())[0] for journal in dying]
        for journal in dying:
            crash(journal)
        barrier = threading.Barrier(4)

        def recover() -> None:
            journal = SQLiteJournal(path)
            journal.open()
            barrier.wait()  # noqa: B023
            found.extend(journal.recover())
            barrier.wait()  # noqa: B023
            journal.close()

        threads = [threading.Thread(target=recover) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Threads of one process do not lock each other out, so two may be at one owner.
        assert sorted(orphan.id for orphan in found) == sorted(jobs)
        found.clear()
    check_counts(path)
    assert owner_files(path) == []


def test_an_attempt_that_was_cut_off_is_counted(make: Make) -> None:
    first, second = make(), make()
    [job] = add(first, new_job())
    first.note_start(job, 1)
    first.commit(Batch(marks=[change(job, "running", 1, progress=0.5, started_at=NOW)]))
    crash(first)
    second.recover()
    row = row_of(second, job)
    assert (row.status, row.attempt, row.interrupted, row.crashes) == ("queued", 1, 1, 1)
    assert row.started_at == NOW
    assert second.counts() == counted(queued=1)


def test_an_attempt_that_was_over_is_none_of_those_cut_off(make: Make) -> None:
    """It was noted that the job is to be tried again, and that one has not begun."""
    first, second = make(), make()
    [job] = add(first, new_job())
    first.note_start(job, 1)
    first.note(change(job, run_after=NOW + 9, error="e", is_held=True))
    crash(first)
    assert second.recover() == [Orphan(job, "app:work", False)]
    row = row_of(second, job)
    assert (row.attempt, row.interrupted, row.crashes, row.error) == (1, 0, 0, "e")
    assert second.next_due() == NOW + 9


def test_the_second_attempt_that_was_cut_off(make: Make) -> None:
    """What was noted of the first one is kept too."""
    first, second = make(), make()
    [job] = add(first, new_job())
    first.note_start(job, 1)
    first.note(change(job, run_after=NOW + 9, error="e", is_held=True))
    first.note_start(job, 2)
    crash(first)
    second.recover()
    row = row_of(second, job)
    assert (row.attempt, row.crashes, row.error, row.run_after) == (2, 1, "e", None)
    assert ids_of(second.claim(1, NOW)) == [job]


def test_three_crashes_fail_a_job(make: Make) -> None:
    """And only that job: the others that died with it go on."""
    [job] = add(make(), waiting())
    for n in (1, 2, 3):
        dying = make()
        rows = {row.id: row for row in dying.claim(9, NOW)}
        assert rows[job].crashes == n - 1
        [beside] = add(dying, new_job())
        dying.note_start(job, n)
        crash(dying)
        orphans = {orphan.id: orphan for orphan in make().recover()}
        assert orphans[beside].is_poisonous is False
        assert orphans[job].is_poisonous is (n == 3)
    reader = make()
    row = row_of(reader, job)
    assert (row.status, row.attempt, row.interrupted, row.crashes) == ("failed", 3, 3, 3)
    assert row.error is not None
    assert "died 3 times" in row.error
    assert row.finished_at is not None
    assert job not in ids_of(reader.claim(99, NOW))

    assert reader.retry(job)
    assert row_of(reader, job).crashes == 0
    assert job in ids_of(reader.claim(99, NOW))
    check_counts(reader.path)


def test_a_job_that_was_noted_and_not_committed_is_written(make: Make) -> None:
    """Together with its end, if that was noted too."""
    first, second = make(), make()
    waits, done, twin = new_job(), new_job(), new_job(key="k")
    [winner] = add(second, new_job(key="k"))
    for job in (waits, done, twin):
        first.note(job)
    first.note(success(done.id, result="7"))
    crash(first)
    assert second.recover() == [Orphan(waits.id, "app:work", False)]
    assert row_of(second, done.id).result == "7"
    assert row_of(second, twin.id).id == winner
    assert ids_of(second.claim(9, NOW)) == [waits.id]


@pytest.mark.parametrize("has_turned", [True, False])
def test_what_was_committed_is_not_written_once_more(make: Make, has_turned: bool) -> None:
    """A job that failed, was retried and claimed again before its process died."""
    first, second = make(), make()
    [job] = add(first, new_job())
    first.note_start(job, 1)
    mark = change(job, "failed", error="e")
    first.note(mark)
    if has_turned:
        first.turn()
    first.commit(Batch(marks=[mark]))
    assert second.retry(job)
    assert ids_of(first.claim(9, NOW)) == [job]
    crash(first)
    assert second.recover() == [Orphan(job, "app:work", False)]
    row = row_of(second, job)
    assert (row.status, row.attempt, row.crashes) == ("queued", 0, 0)


def test_a_job_given_back_and_claimed_again_counts_its_crash(make: Make) -> None:
    first, second = make(), make()
    [job] = add(first, new_job())
    first.note_start(job, 1)
    mark = change(job, run_after=NOW + 1)
    first.note(mark)
    first.commit(Batch(marks=[mark]))
    assert ids_of(first.claim(9, NOW + 1)) == [job]
    first.note_start(job, 2)
    crash(first)
    assert second.recover() == [Orphan(job, "app:work", False)]
    assert (row_of(second, job).attempt, row_of(second, job).crashes) == (2, 1)


@pytest.mark.parametrize("has_turned", [True, False])
def test_a_dropped_job_does_not_come_back(make: Make, has_turned: bool) -> None:
    first, second = make(), make()
    job = new_job()
    first.note(job)
    if has_turned:
        first.turn()
    first.commit(Batch(added=[job]))
    first.commit(Batch(dropped=[job.id]))
    crash(first)
    assert second.recover() == []
    assert second.get(job.id) is None


def test_a_job_that_was_forgotten_does_not_come_back(make: Make) -> None:
    first, second = make(), make()
    job = new_job()
    first.note(job)
    first.turn()
    first.commit(Batch(added=[job]))
    first.commit(Batch(marks=[success(job.id)]))
    assert second.purge(None, NOW + 1, 9) == 1
    crash(first)
    assert second.recover() == []
    assert second.get(job.id) is None


def test_a_ledger_that_is_closed_takes_nothing(make: Make) -> None:
    """An event loop may be about to note something while the journal lets go of its file."""
    journal = make()
    assert journal._ownership is not None
    ledger = journal._ownership.ledger
    journal.close()
    ledger.begin(new_id(NOW), 1)
    ledger.end(new_id(NOW), b"{}")
    ledger.note(b"{}")
    ledger.turn()
    ledger.forget()


def test_more_than_the_ledger_can_hold(make: Make) -> None:
    """It is as if that had not been noted; what was committed counts as ever."""
    first, second = make(), make()
    jobs = add(first, *(new_job(n / 1000) for n in range(SLOTS + 10)))
    for job in jobs:
        first.note_start(job, 1)
    first.note(success(jobs[0], result="1" * SEGMENT))
    first.note(success(jobs[1]))
    crash(first)
    assert len(second.recover()) == len(jobs) - 1
    assert row_of(second, jobs[1]).status == "succeeded"
    assert row_of(second, jobs[0]).status == "queued"
    rows = [row_of(second, job) for job in jobs[2:]]
    assert sum(row.crashes for row in rows) == SLOTS - 2


def test_two_commits_of_marks_are_noted_apart(make: Make) -> None:
    """What is noted while a commit is under way is not of that commit."""
    first, second = make(), make()
    jobs = add(first, *(new_job(n) for n in range(4)))
    for n, job in enumerate(jobs[:3]):
        first.note_start(job, 1)
        first.note(success(job))
        if n < 2:
            first.turn()
        if n == 0:
            first.commit(Batch(marks=[success(job)]))
    crash(first)
    assert second.recover() == [Orphan(jobs[3], "app:work", False)]
    assert second.counts() == counted(succeeded=3, queued=1)


def test_an_owner_whose_file_is_gone_counts_as_dead(make: Make) -> None:
    first, second = make(), make()
    [job] = add(first, new_job())
    crash(first)
    for file in owner_files(second.path):
        if second._ownership is not None and second._ownership.token not in file.name:
            file.unlink()
    assert second.recover() == [Orphan(job, "app:work", False)]


def test_a_link_leads_to_the_same_owners(make: Make, path: Path, tmp_path: Path) -> None:
    """Whoever opens the file by another name sees who lives, and is seen."""
    first = make()
    [job] = add(first, new_job())
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    (directory / "link.db").symlink_to(path)
    linked = SQLiteJournal(directory / "link.db")
    linked.open()
    [held] = add(linked, new_job())
    assert linked.recover() == first.recover() == []
    crash(linked)
    assert first.recover() == [Orphan(held, "app:work", False)]
    assert row_of(first, job).owner is not None


def test_leftover_files_are_removed(make: Make, path: Path) -> None:
    leftover = path.with_name("jobs.db-owner-0123456789abcdef")
    leftover.write_bytes(b"x")
    unrelated = path.with_name("jobs.db-owners")
    unrelated.write_bytes(b"x")
    journal = make()
    assert len(owner_files(path)) == 1
    assert not leftover.exists()
    assert unrelated.exists()
    journal.close()


# Cancelling, retrying, forgetting.


def test_cancelling_a_job_of_nobody_ends_it(journal: SQLiteJournal) -> None:
    free, put_off = add(journal, waiting(), waiting(run_after=NOW + 9))
    for job in (free, put_off):
        journal.cancel(job, "not needed", NOW + 1)
        row = row_of(journal, job)
        assert (row.status, row.error, row.finished_at) == ("cancelled", "not needed", NOW + 1)
    assert journal.claim(9, NOW + 99) == []
    assert journal.next_due() is None
    assert journal.cancellations() == []
    assert journal.counts() == counted(cancelled=2)


def test_cancelling_a_job_of_somebody_asks_its_owner(journal: SQLiteJournal, make: Make) -> None:
    """By another connection, and the owner finds out."""
    job, beside = add(journal, new_job(), new_job())
    assert journal.cancellations() == []
    second = make()
    second.cancel(job, "why", NOW)
    assert journal.cancellations() == [job]
    assert second.cancellations() == []
    assert row_of(journal, job).status == "queued"
    journal.commit(Batch(marks=[change(job, "cancelled", error="why"), change(beside, "running")]))
    assert journal.cancellations() == []
    assert row_of(second, job).status == "cancelled"


def test_a_cancelled_job_stays_so_through_a_crash(make: Make) -> None:
    """Whoever has it next is asked to cancel it."""
    first, second = make(), make()
    [job] = add(first, new_job())
    second.cancel(job, "why", NOW)
    crash(first)
    second.recover()
    assert ids_of(second.claim(9, NOW)) == [job]
    assert second.cancellations() == [job]


def test_cancelling_what_has_ended_or_is_unknown_does_nothing(journal: SQLiteJournal) -> None:
    [job] = add(journal, new_job())
    journal.commit(Batch(marks=[success(job)]))
    journal.cancel(job, "why", NOW + 1)
    journal.cancel(new_id(NOW), "why", NOW + 1)
    assert row_of(journal, job).status == "succeeded"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_retrying(journal: SQLiteJournal, status: str) -> None:
    [job] = add(journal, new_job(key="k"))
    mark = change(job, status, 3, interrupted=2, started_at=NOW, progress=0.5, message="m")
    journal.commit(Batch(marks=[mark]))
    assert journal.retry(job)
    row = row_of(journal, job)
    assert (row.status, row.attempt, row.interrupted, row.crashes) == ("queued", 0, 0, 0)
    assert row.started_at is row.finished_at is row.progress is row.owner is None
    assert ids_of(journal.claim(9, NOW)) == [job]
    assert journal.holder_of("k") == job
    assert not journal.retry(job)


def test_a_retried_job_is_not_cancelled_any_more(journal: SQLiteJournal) -> None:
    [job] = add(journal, new_job())
    journal.cancel(job, "why", NOW)
    journal.commit(Batch(marks=[change(job, "cancelled")]))
    assert journal.retry(job)
    journal.claim(9, NOW)
    assert journal.cancellations() == []


def test_what_cannot_be_retried(journal: SQLiteJournal) -> None:
    queued, running, done = add(journal, waiting(), new_job(), new_job())
    journal.commit(Batch(marks=[change(running, "running"), success(done)]))
    for job in (queued, running, done, new_id(NOW), "", "'"):
        assert not journal.retry(job)
    assert journal.counts() == counted(queued=1, running=1, succeeded=1)


def end(journal: SQLiteJournal, status: str, at: float, *, queued: float | None = None) -> str:
    [job] = add(journal, new_job((at if queued is None else queued) - NOW))
    journal.commit(Batch(marks=[change(job, status, finished_at=at)]))
    return job


def test_purging_by_age_and_status(journal: SQLiteJournal) -> None:
    statuses = ("succeeded", "failed", "cancelled")
    jobs = {(status, n): end(journal, status, NOW + n) for status in statuses for n in range(4)}
    add(journal, waiting(-99))
    assert journal.purge("failed", NOW + 1, 9) == 2
    assert journal.purge("failed", NOW + 1, 9) == 0
    assert journal.get(jobs["failed", 1]) is None
    assert journal.get(jobs["failed", 2]) is not None
    assert journal.purge(None, NOW, 9) == 2
    assert journal.purge("queued", NOW + 99, 9) == journal.purge("running", NOW + 99, 9) == 0
    assert journal.counts() == counted(queued=1, succeeded=3, failed=2, cancelled=3)
    assert journal.purge(None, NOW + 99, 99) == 8


def test_purging_some_at_a_time(journal: SQLiteJournal) -> None:
    for n in range(4):
        end(journal, "succeeded", NOW + n)
        end(journal, "failed", NOW + n)
    assert [journal.purge(None, NOW + 9, 3) for _ in range(4)] == [3, 3, 2, 0]


def test_a_job_that_ended_at_that_very_instant_is_purged(journal: SQLiteJournal) -> None:
    """Though it was also added then; and one that was added long ago and ended later is not."""
    at = NOW + 0.1234
    now = end(journal, "succeeded", at)
    later = end(journal, "succeeded", at + 1e-5, queued=NOW - 3600)
    assert journal.purge(None, at, 9) == 1
    assert journal.get(now) is None
    assert journal.get(later) is not None


@pytest.mark.parametrize("before", [0.0, -1e12, 1e300, float("inf")])
def test_purging_at_any_instant(journal: SQLiteJournal, before: float) -> None:
    end(journal, "succeeded", NOW)
    assert journal.purge(None, before, 9) == (before > NOW)


def test_retention_is_per_status(make: Make) -> None:
    journal = make(retention={"succeeded": 10, "failed": None})
    for status in ("succeeded", "failed", "cancelled"):
        end(journal, status, NOW)
    assert not journal.expire(NOW + 9.9, 9)
    assert journal.counts() == counted(succeeded=1, failed=1, cancelled=1)
    assert not journal.expire(NOW + 10, 9)
    assert journal.counts() == counted(failed=1, cancelled=1)
    journal.expire(NOW + 7 * 86_400 - 1, 9)
    assert journal.counts() == counted(failed=1, cancelled=1)
    journal.expire(NOW + 7 * 86_400, 9)
    assert journal.counts() == counted(failed=1)
    journal.expire(NOW + 1e10, 9)
    assert journal.counts() == counted(failed=1)


def test_one_retention_for_all(make: Make) -> None:
    """Some are forgotten at a time, until there are no more to look at."""
    journal = make(retention=0)
    for n in range(5):
        end(journal, "succeeded", NOW + n)
    end(journal, "failed", NOW)
    assert journal.expire(NOW + 3, 2)
    assert journal.counts() == counted(succeeded=3)
    while journal.expire(NOW + 3, 2):
        pass
    assert journal.counts() == counted(succeeded=1)


def test_old_jobs_that_ended_late_hide_none_that_ended_early(make: Make) -> None:
    journal = make(retention=10)
    late = [end(journal, "succeeded", NOW + 99, queued=NOW - n) for n in range(5)]
    early = end(journal, "succeeded", NOW)
    looks = [journal.expire(NOW + 50, 2) for _ in range(6)]
    assert True in looks
    assert False in looks
    assert journal.get(early) is None
    assert journal.counts() == counted(succeeded=len(late))
    for _ in range(6):
        journal.expire(NOW + 109, 2)
    assert journal.counts() == NONE


def test_retention_by_default(path: Path) -> None:
    assert SQLiteJournal(path)._retention.seconds == {
        "succeeded": 7 * 86_400.0,
        "failed": 30 * 86_400.0,
        "cancelled": 7 * 86_400.0,
        "handed_over": 7 * 86_400.0,
    }


# Reading.


def test_an_unknown_job_is_none(journal: SQLiteJournal) -> None:
    for unknown in (new_id(NOW), "", "x", "'", "%"):
        assert journal.get(unknown) is None


def test_finding_page_by_page(journal: SQLiteJournal) -> None:
    """The newest first, by status and by task."""
    jobs = [new_job(n, task="a" if n % 2 else "b") for n in range(20)]
    ids = add(journal, *jobs)
    marks = [
        *(success(job) for job in ids[:5]),
        *(change(job, "running") for job in ids[5:10]),
        *(change(job, run_after=NOW + 99) for job in ids[10:12]),
    ]
    journal.commit(Batch(marks=marks))

    def found(status: str | None, task: str | None) -> list[str]:
        pages: list[str] = []
        after: str | None = None
        while rows := journal.find(status, task, after, 3):
            assert len(rows) <= 3
            pages += ids_of(rows)
            after = rows[-1].id
        return pages

    assert found(None, None) == ids[::-1]
    assert found(None, "a") == ids[1::2][::-1]
    assert found("succeeded", None) == ids[:5][::-1]
    assert found("running", None) == ids[5:10][::-1]
    assert found("queued", None) == ids[10:][::-1], "put off, held and free ones"
    assert found("queued", "b") == ids[10::2][::-1]
    assert found("failed", None) == found(None, "c") == []
    assert journal.find("succeeded", None, None, 0) == []
    with pytest.raises(ValueError, match="no such status"):
        journal.find("no such status", None, None, 1)


def test_reading_from_many_threads_while_one_writes(journal: SQLiteJournal) -> None:
    jobs = add(journal, *(new_job(n, key=f"k{n}") for n in range(50)))
    errors: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        try:
            while not is_over.is_set():
                assert sum(journal.counts().values()) == 50
                assert row_of(journal, jobs[0]).id == jobs[0]
                assert journal.holder_of("k7") == jobs[7]
                assert len(journal.find(None, None, None, 20)) == 20
                journal.has_ready()
                journal.has_retries()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for job in jobs:
        journal.note_start(job, 1)
        journal.note(success(job))
        journal.turn()
        journal.commit(Batch(marks=[success(job)]))
    is_over.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_counts_after_everything(make: Make, path: Path) -> None:
    """They are what counting says, whatever has been done."""
    journal, second = make(), make()

    def look() -> dict[str, int]:
        check_counts(path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT status, count(*) FROM jobs GROUP BY status")
            assert journal.counts() == counted(**dict(found))
        return journal.counts()

    jobs = add(journal, *(new_job(n, key=f"k{n}") for n in range(8)))
    assert look() == counted(queued=8)
    journal.commit(Batch(added=[new_job(key="k0"), new_job(key="k1")]))
    assert look() == counted(queued=8)
    journal.commit(Batch(marks=[change(job, "running") for job in jobs]))
    assert look() == counted(running=8)
    journal.commit(Batch(marks=[success(jobs[0]), change(jobs[1], "failed")], dropped=jobs[7:]))
    assert look() == counted(running=5, succeeded=1, failed=1)
    second.retry(jobs[1])
    second.cancel(jobs[1], "why", NOW)
    assert look() == counted(running=5, succeeded=1, cancelled=1)
    journal.note_start(jobs[2], 1)
    journal.note(success(jobs[3]))
    crash(journal)
    second.recover()
    assert look() == counted(queued=4, succeeded=2, cancelled=1)
    second.purge(None, time.time() + NOW, 9)
    assert look() == counted(queued=4)


# How fast.


@pytest.mark.parametrize("name", ["claim", "find", "counts", "next_due", "has_ready", "purge"])
def test_a_long_backlog_slows_nothing_down(path: Path, name: str) -> None:
    """SQLite goes by an index for all that is asked often, and sorts nothing."""
    journal = SQLiteJournal(path)
    journal.open()
    assert journal._file.connection is not None
    names = {
        "claim": ["promote", "claimable", "claim"],
        "find": ["find_any", "find_ended", "get", "holder_of"],
        "counts": ["counts", "cancellations", "orphans", "release_orphans", "release_own"],
        "next_due": ["next_due"],
        "has_ready": ["has_ready", "has_retries"],
        "purge": ["purge"],
    }
    values = dict.fromkeys(
        ["now", "limit", "owner", "ids", "status", "task", "after", "id", "key", "before", "newest"]
    )
    for statement in names[name]:
        sql = query(statement)
        plan = journal._file.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
        for *_, step in plan:
            assert "TEMP B-TREE" not in step, (statement, step)
            slow = step.startswith("SCAN jobs") and "USING" not in step
            assert not slow or statement == "find_any", (statement, step)
    journal.close()
