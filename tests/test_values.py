"""The small rooms: ids, backoff, deadlines, slots, exceptions, public names."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import time
import uuid
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asgi_bg
from asgi_bg import JobInfo, JobStatus, events, exceptions, task
from asgi_bg._ids import new_id
from asgi_bg._job import Failed, Retry
from asgi_bg._retry import backoff, judge
from asgi_bg._scheduling.deadlines import Deadlines
from asgi_bg.exceptions import AsgiBgError, JobFailed
from tests.helpers import until


def test_ids_are_version_7_uuids_that_sort_by_time() -> None:
    """RFC 9562, section 5.7."""
    now = time.time()
    ids = [new_id(now + n / 1_000_000) for n in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    parsed = uuid.UUID(ids[0])
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert abs((parsed.int >> 80) / 1000 - now) < 0.002


def test_ids_of_one_instant_cannot_be_guessed_from_each_other() -> None:
    """62 random bits: no two of many are near each other."""
    now = time.time()
    tails = sorted(int(new_id(now), 16) & (2**62 - 1) for _ in range(100))
    assert min(b - a for a, b in pairwise(tails)) > 2**32


@given(
    attempt=st.integers(1, 10**6),
    base=st.floats(0, 1e6),
    cap=st.floats(0, 1e6),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_backoff_stays_within_its_bounds(
    attempt: int, base: float, cap: float, draw: float
) -> None:
    """Never beyond the cap, nor beyond the doubled base, whatever the numbers."""
    delay = backoff(attempt, base=base, cap=cap, draw=draw)
    assert 0 <= delay <= cap
    if attempt < 60:
        assert delay <= base * 2 ** (attempt - 1)


def test_backoff_doubles() -> None:
    """With a draw of one half: half of 1, 2, 4, 8, and then of the cap."""
    delays = [backoff(n, base=1, cap=6, draw=0.5) for n in range(1, 6)]
    assert delays == [0.5, 1, 2, 3, 3]


def test_judge_retries_what_the_options_name() -> None:
    """By attempt and by class."""
    options = task(retries=1, retry_delay=4, retry_on=(OSError,))(print).options
    failure = Failed(ConnectionError(), "")
    assert judge(failure, 1, options, 0.5) == Retry(2.0, failure)
    assert judge(failure, 2, options, 0.5) is failure
    other = Failed(ValueError(), "")
    assert judge(other, 1, options, 0.5) is other


@pytest.mark.anyio
async def test_deadlines_tell_those_not_discarded_in_order(anyio_backend: Any) -> None:
    """One timer serves them all; telling one may discard the next."""
    told: list[str] = []

    class Waiting:
        def __init__(self, name: str, discards: Any = None) -> None:
            self.name = name
            self.discards = discards

        def expire(self) -> None:
            told.append(self.name)
            if self.discards is not None:
                deadlines.discard(self.discards)

    deadlines = Deadlines(asyncio.get_running_loop(), 0.02)
    victim = Waiting("victim")
    gone = Waiting("gone")
    for waiting in (Waiting("first", victim), gone, victim, Waiting("last")):
        deadlines.add(waiting)
    deadlines.discard(gone)
    deadlines.discard(gone)
    await asyncio.sleep(0.01)  # half of the time that each has
    later = Waiting("later")
    deadlines.add(later)
    await until(lambda: later.name in told)
    assert told == ["first", "last", "later"]


def test_every_error_of_ours_derives_from_one() -> None:
    """So that one `except` catches them all, and they survive pickling."""
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), AsgiBgError)
    failed = pickle.loads(pickle.dumps(JobFailed("id", "task", "ValueError: x")))
    assert (failed.job_id, failed.task, failed.error) == ("id", "task", "ValueError: x")
    assert "ValueError: x" in str(failed)


def test_statuses_are_their_words() -> None:
    """Contract 2: a str enum."""
    assert [str(status) for status in JobStatus] == [
        *("queued", "running", "succeeded", "failed", "cancelled")
    ]
    assert JobStatus.failed == "failed"
    assert f"{JobStatus.failed}" == "failed"
    assert [status.is_final for status in JobStatus] == [False, False, True, True, True]


def test_public_names_are_those_of_the_contract() -> None:
    """Contract 2; a change here is a change of the promise."""
    assert asgi_bg.__all__ == [
        *("BackgroundTaskMiddleware", "BackgroundTasks", "Job", "JobEvent", "JobInfo"),
        *("JobStatus", "Runner", "Task", "add_task", "current_job", "task"),
    ]
    for module in (asgi_bg, events, exceptions):
        for name in module.__all__:
            assert hasattr(module, name), name
    fields = set(JobInfo.__struct_fields__)
    assert fields >= {
        *("id", "task", "status", "attempt", "max_attempts", "queued_at", "run_after"),
        *("started_at", "finished_at", "progress", "message", "result", "error", "durable"),
        "owner",
    }


@pytest.mark.anyio
async def test_info_encodes_to_json(make_runner: Any) -> None:
    """For a status page; and it is frozen."""
    runner = await make_runner()
    job = await runner.add_task(str, 5)
    await job.result(5)
    info = await job.info()
    decoded = msgspec.json.decode(msgspec.json.encode(info))
    assert decoded["status"] == "succeeded"
    assert decoded["queued_at"].endswith("Z")
    with pytest.raises(AttributeError):
        info.status = JobStatus.failed  # type: ignore[misc]


def test_import_pulls_in_no_framework_and_no_database() -> None:
    """Whoever imports the package pays for what it needs alone."""
    code = (
        "import sys, asgi_bg\n"
        "heavy = {'starlette', 'fastapi', 'uvicorn', 'sqlite3', 'redis', 'multiprocessing'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
