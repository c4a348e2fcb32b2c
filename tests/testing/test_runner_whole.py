"""What a runner has when a recording is over: what it had before, and what it got meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asgi_bg import Runner, task
from asgi_bg.exceptions import JobFailed, NotSerializable
from asgi_bg.testing import record_tasks


@task
async def fail() -> None:
    raise ValueError("no")


@task
async def take(value: object) -> None:
    pass


class Hears:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, event: object) -> None:
        pass

    def hear(self, name: str, record: object) -> None:
        self.heard.append(name)


async def _add_failing(runner: Runner) -> str:
    return (await runner.add_task(fail)).id


def test_retry_on_another_loop_is_recorded_too(tmp_path: Path) -> None:
    """And what is added there is checked as the journal would."""
    runner = Runner(journal=tmp_path / "jobs.db")
    loop = asyncio.new_event_loop()
    with record_tasks() as tasks:
        failed = asyncio.run(_add_failing(runner))
        with pytest.raises(JobFailed):
            tasks.drain()
        loop.run_until_complete(runner.retry(failed))
        with pytest.raises(NotSerializable):
            loop.run_until_complete(runner.add_task(take, object()))
    loop.close()


def test_runner_has_its_journal_back_after_a_retry(tmp_path: Path) -> None:
    """On a loop that goes on."""
    runner = Runner(journal=tmp_path / "jobs.db")
    loop = asyncio.new_event_loop()
    with record_tasks() as tasks:
        failed = asyncio.run(_add_failing(runner))
        with pytest.raises(JobFailed):
            tasks.drain()
        loop.run_until_complete(runner.retry(failed))

    async def is_durable() -> bool:
        job = await runner.add_task(take, 1)
        assert await runner.drain(20)
        info = await runner.info(job.id)
        await runner.aclose()
        return info.durable

    assert loop.run_until_complete(is_durable())
    loop.close()


def test_what_a_framework_has_given_a_runner_meanwhile_stays() -> None:
    """As when an application is made within a test."""
    runner = Runner()
    hears = Hears()

    async def live() -> None:
        async with runner:
            await runner.add_task(take, 1)
            await runner.drain(20)

    with record_tasks():
        asyncio.run(live())
        runner.equip(hearers=(hears,))
    asyncio.run(live())
    assert "succeeded" in hears.heard
