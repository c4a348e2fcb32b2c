"""The contract of engines: what its workers make of jobs (E3, J6 to J8, R5)."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone
from decimal import Decimal
from uuid import uuid4

import pytest

from asgi_bg import Runner
from asgi_bg._job import JobStatus
from asgi_bg._options import Options
from asgi_bg.engines import Engine
from asgi_bg.testing._engine_site import EngineSite
from asgi_bg.testing.contract_tasks import Line, Parcel, fail, linger, note, send, try_again


class Working(EngineSite):
    """What becomes of jobs in the engine's own worker, and in the app's process."""

    def test_rich_arguments_come_as_they_were(self) -> None:
        """J7: by the annotations of the task."""
        parcel = Parcel(uuid4(), datetime.now(timezone.utc), Decimal("1.10"))

        async def use(runner: Runner, engine: Engine) -> None:
            job = await runner.add_task(send, self.path, parcel)
            with self.run_worker():
                await self.until(self.lines, "the job has run")
                words = f"{parcel.key} {parcel.at.isoformat()} {parcel.price}"
                assert self.lines() == [Line(job.id, 1, words)]
                if "results" in engine.supports and self.keeps_values:
                    assert await job.result(self.deadline) == parcel

        self.with_runner(use)

    def test_an_unknown_task_stops_nobody(self) -> None:
        """J8: nothing is run by a name that is not declared, and the others go on."""
        unknown = self.message(task="asgi_bg.testing:nobody")

        async def use(engine: Engine) -> None:
            await engine.send([unknown, self.message("known")])
            with self.run_worker():
                await self.until(self.lines, "the job behind it has run")
            assert [line.words for line in self.lines()] == ["known"]

        self.with_engine(use)

    def test_a_failed_job_is_not_run_again(self) -> None:
        """Its task has no retries, so the engine's own are not to be used."""

        async def use(runner: Runner, engine: Engine) -> None:
            job = await runner.add_task(fail, self.path)
            other = await runner.add_task(note, self.path, "other")
            with self.run_worker():
                await self.until(lambda: len(self.lines()) >= 2, "both have run")
                if "results" in engine.supports:
                    info = await self.ended(runner, job.id)
                    assert info.status is JobStatus.failed
                    assert info.error, "the report of a failed job says why"
                    if self.keeps_values:
                        assert "as it was told" in info.error, "the task's own words"
            assert sorted(line.id for line in self.lines()) == sorted((job.id, other.id))

        self.with_runner(use)

    def test_it_tries_again(self) -> None:
        """With the numbers of the attempts, until the task succeeds."""
        self.needs("retries")

        async def use(runner: Runner, engine: Engine) -> None:
            job = await runner.add_task(try_again, self.path, 2)
            with self.run_worker():
                await self.until(lambda: len(self.lines()) >= 3, "three attempts")
                if "results" in engine.supports:
                    assert (await self.ended(runner, job.id)).status is JobStatus.succeeded
            assert [line.attempt for line in self.lines()] == [1, 2, 3]
            assert {line.id for line in self.lines()} == {job.id}

        self.with_runner(use)

    def test_it_keeps_time_limits(self) -> None:
        """R5: an attempt that takes too long is ended."""
        self.needs("timeout")

        async def use(runner: Runner, engine: Engine) -> None:
            job = await runner.add_task(linger, self.path)
            with self.run_worker():
                await self.until(self.lines, "it has begun")
                if "results" in engine.supports:
                    assert (await self.ended(runner, job.id)).status is JobStatus.failed

        self.with_runner(use)

    def test_it_waits_until_the_job_is_due(self) -> None:
        """J6: not before, and not never."""
        self.needs("delay")

        async def use(engine: Engine) -> None:
            await engine.send([self.message("first")])
            with self.run_worker():
                await self.until(self.lines, "the worker works")
                due = time.time() + self.lead
                later = self.message("later", run_after=due, options=Options(delay=self.lead))
                await engine.send([later, self.message("now")])
                await self.until(lambda: len(self.lines()) >= 2, "the other one has run")
                assert [line.words for line in self.lines()] == ["first", "now"]
                await self.until(lambda: len(self.lines()) == 3, "it has run when it was due")
                assert time.time() >= due - 1.0, "clocks of a second's grain are fine"

        self.with_engine(use)

    def test_it_is_drained(self) -> None:
        """``consume=True``: what was begun ends before the app does."""
        engine = self.make_engine()
        if type(engine).work is Engine.work:
            pytest.skip(f"the engine {engine.name} has no worker to run in the app's process")
        engine.consume = True

        async def run() -> None:
            async with Runner(engine=engine) as runner:
                jobs = [await runner.add_task(note, self.path, str(n)) for n in range(20)]
                await self.until(lambda: len(self.lines()) == 20, "the app has run them")
            assert {line.id for line in self.lines()} == {job.id for job in jobs}

        asyncio.run(run())
