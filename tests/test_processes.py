"""Worker processes: R1, R3, R5."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import pytest

from asgi_bg import current_job, task
from asgi_bg.exceptions import JobFailed, NotSerializable
from tests import process_tasks
from tests.helpers import until

pytestmark = pytest.mark.anyio


async def test_job_in_a_process_knows_itself_and_reports(make_runner: Any) -> None:
    """R1: current job, progress, log records and prints come back from the other process."""
    runner = await make_runner(max_processes=1)
    job = await runner.add_task(process_tasks.report)
    told = await job.result(30)
    assert told.pop("pid") != os.getpid()
    assert told == {
        "id": job.id,
        "task": "tests.process_tasks:report",
        "attempt": 1,
        "cancelled": False,
    }
    info = await job.info()
    assert (info.progress, info.message) == (0.5, "half")
    assert [(line.logger, line.level, line.message) for line in info.logs] == [
        ("app", "WARNING", "from there"),
        ("stdout", "INFO", "printed"),
    ]


async def test_dying_process_fails_its_job_and_the_pool_goes_on(make_runner: Any) -> None:
    """R1: a clear error, and the next job gets a new process."""
    runner = await make_runner(max_processes=1)
    before = await (await runner.add_task(process_tasks.nap, 0)).result(30)
    dead = await runner.add_task(process_tasks.die)
    with pytest.raises(JobFailed, match="worker process that ran task .*:die died"):
        await dead.result(30)
    after = await (await runner.add_task(process_tasks.nap, 0)).result(30)
    assert before != after


async def test_exit_in_a_process_is_a_failure_like_any(make_runner: Any) -> None:
    """R3: and its process goes on."""
    runner = await make_runner(max_processes=1)
    before = await (await runner.add_task(process_tasks.nap, 0)).result(30)
    job = await runner.add_task(process_tasks.leave)
    with pytest.raises(JobFailed, match="SystemExit: 2"):
        await job.result(30)
    assert await (await runner.add_task(process_tasks.nap, 0)).result(30) == before


async def test_timeout_kills_the_process(make_runner: Any) -> None:
    """R5: even one that runs plain Python without end; the time counts from its begin there."""
    runner = await make_runner(max_processes=1)
    before = await (await runner.add_task(process_tasks.nap, 0)).result(30)
    job = await runner.add_task(process_tasks.hang)
    with pytest.raises(JobFailed, match=r"took longer than 0\.5 seconds"):
        await job.result(30)
    with pytest.raises(ProcessLookupError):
        for _ in range(500):
            os.kill(before, 0)
            time.sleep(0.01)


async def test_cancel_kills_the_process(make_runner: Any) -> None:
    """A running job of a process is stopped, as an async one is."""
    runner = await make_runner(max_processes=1)
    job = await runner.add_task(process_tasks.nap, 60)
    await until(lambda: runner._parts.registry.get(job.id).started_at is not None, 30)
    await runner.cancel(job.id)
    with pytest.raises(JobFailed, match="cancelled by request"):
        await job.result(30)


@pytest.mark.parametrize("odd", [True, False])
async def test_error_in_a_process_comes_back_with_its_traceback(
    odd: bool, make_runner: Any
) -> None:
    """R3: with its type where that can travel, and with its words where it cannot."""
    runner = await make_runner(max_processes=1)
    job = await runner.add_task(process_tasks.fail, odd)
    with pytest.raises(JobFailed) as failed:
        await job.result(30)
    cause = failed.value.__cause__
    if odd:
        assert str(cause) == "LocalError: this and that"
    else:
        assert isinstance(cause, ValueError)
    info = await job.info()
    assert info.attempt == 2
    assert "process_tasks.py" in str(info.traceback)


async def test_result_that_cannot_leave_the_process_fails_the_job(make_runner: Any) -> None:
    """R3: said, not hung."""
    runner = await make_runner(max_processes=1)
    job = await runner.add_task(process_tasks.give_back)
    with pytest.raises(JobFailed, match="pickle|local object"):
        await job.result(30)


async def test_plain_function_and_keywords_go_to_a_process(make_runner: Any) -> None:
    """R1: also one that is no declared task."""
    runner = await make_runner(max_processes=1)
    elsewhere = task(process_tasks.plain).using(executor="process")
    job = await runner.add_task(elsewhere, 4, twice=True)
    assert await job.result(30) == 8


async def test_argument_that_cannot_travel_is_named_in_the_endpoint(make_runner: Any) -> None:
    """Found at `add_task`, with task, argument and type."""
    runner = await make_runner()
    with pytest.raises(NotSerializable, match=r"nap runs in .*argument 1, of type socket"):
        with socket.socket() as sock:
            await runner.add_task(process_tasks.nap, sock)
    with pytest.raises(NotSerializable, match=r"argument 'seconds', of type function"):
        await runner.add_task(process_tasks.nap, seconds=lambda: 1)
    local = task(lambda: current_job()).using(executor="process")
    with pytest.raises(NotSerializable, match="its function"):
        await runner.add_task(local)
    assert runner.stats()["queued"] == 0


async def test_processes_are_bounded(make_runner: Any) -> None:
    """R1: no more than `max_processes` at once, however many jobs there are."""
    runner = await make_runner(max_processes=2)
    jobs = [await runner.add_task(process_tasks.nap, 0.1) for _ in range(6)]
    pids = {await job.result(60) for job in jobs}
    assert len(pids) <= 2
