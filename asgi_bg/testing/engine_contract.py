"""The contract of engines, as tests to run against one (E6).

In a test file of pytest's::

    from asgi_bg.testing.engine_contract import EngineContract


    class TestMyEngine(EngineContract):
        def make_engine(self):
            return MyEngine("myqueue://127.0.0.1")

        def make_unreachable(self):
            return MyEngine("myqueue://127.0.0.1:1", timeout=1.0)

        @contextmanager
        def run_worker(self):
            with subprocess.Popen(["myqueue", "work", "tests.my_worker"]) as process:
                yield
                process.kill()

The worker, which may be in another process, imports `asgi_bg.testing.contract_tasks` and has
its tasks registered as any others.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from asgi_bg import Runner
from asgi_bg._ids import new_id
from asgi_bg._job import JobInfo, JobStatus
from asgi_bg._options import Options
from asgi_bg.engines import Engine, Feature, Message
from asgi_bg.exceptions import EngineError
from asgi_bg.testing.contract_tasks import Line, Parcel, fail, linger, note, send, try_again

try:
    import pytest
except ImportError as exc:
    raise ImportError(
        "asgi_bg.testing.engine_contract needs pytest; install it with: pip install pytest"
    ) from exc

__all__ = ["EngineContract"]

T = TypeVar("T")


class EngineContract:
    """What every engine does. Derive from it, and implement the three hooks.

    Attributes:
        dedupes: Whether a job that is sent twice while it waits runs once (E2).
        keeps_values: Whether the result store keeps what tasks return and raise, and not only
            how they end.
        deadline: How long anything may take that is waited for, in seconds.
        lead: How long a job is put off where delays are tested, in seconds.
        options: For each feature, an option that asks for it.
    """

    dedupes: bool = False
    keeps_values: bool = True
    deadline: float = 60.0
    lead: float = 3.0
    options: dict[Feature, dict[str, Any]] = {  # noqa: RUF012 - read only
        "delay": {"delay": 1.0},
        "retries": {"retries": 1},
        "timeout": {"timeout": 5.0},
        "priority": {"priority": 1},
        "queue": {"queue": "other"},
        "concurrency": {"concurrency": 1},
    }

    # The hooks.

    @abstractmethod
    def make_engine(self) -> Engine:
        """Return a new engine, for a queue that is reached and has no jobs."""

    @abstractmethod
    def make_unreachable(self) -> Engine:
        """Return the same kind of engine with a time limit of 1 s, where nobody answers."""

    @abstractmethod
    def run_worker(self) -> AbstractContextManager[Any]:
        """Run the engine's worker as long as the context lasts, with the contract's tasks."""

    # What the tests stand on.

    @pytest.fixture(autouse=True)
    def _file(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as directory:
            self.path = str(Path(directory, "lines"))
            Path(self.path).touch()
            yield

    def lines(self) -> list[Line]:
        """What the tasks have written so far."""
        parts = [line.split(" ", 2) for line in Path(self.path).read_text().splitlines()]
        return [Line(job, int(attempt), words) for job, attempt, words in parts]

    def message(self, word: str = "word", **changes: Any) -> Message:
        """Return a job of the task that writes down a word."""
        now = time.time()
        values: dict[str, Any] = {
            "id": new_id(now),
            "task": note.name,
            "call": msgspec.json.encode([[self.path, word]]).decode(),
            "changes": None,
            "native": None,
            "options": Options(),
            "queued_at": now,
            "run_after": None,
            "priority": 0,
        }
        return Message(**(values | changes))

    def with_engine(self, use: Callable[[Engine], Awaitable[T]]) -> T:
        """Open an engine, use it, and close it."""

        async def run() -> T:
            engine = self.make_engine()
            await engine.open()
            try:
                return await use(engine)
            finally:
                await engine.close()

        return asyncio.run(run())

    def with_runner(self, use: Callable[[Runner, Engine], Awaitable[T]]) -> T:
        """Use a runner that has the engine and no journal."""

        async def run() -> T:
            engine = self.make_engine()
            engine.consume = False
            async with Runner(engine=engine) as runner:
                return await use(runner, engine)

        return asyncio.run(run())

    async def until(self, is_so: Callable[[], Any], what: str) -> None:
        """Wait for something, and fail if it does not come to be."""
        end = time.monotonic() + self.deadline
        while not is_so():
            assert time.monotonic() < end, f"within {self.deadline} s: {what}; {self.lines()}"
            await asyncio.sleep(0.02)

    async def ended(self, runner: Runner, id: str) -> JobInfo:
        """Wait for the end of a job, as the engine tells it."""
        end = time.monotonic() + self.deadline
        while not (info := await runner.info(id)).status.is_final:
            assert time.monotonic() < end, f"within {self.deadline} s: the end of {info}"
            await asyncio.sleep(0.05)
        return info

    def needs(self, feature: Feature) -> None:
        """Skip a test of a feature that the engine does not have."""
        engine = self.make_engine()
        if feature not in engine.supports:
            pytest.skip(f"the engine {engine.name} does not support {feature!r}")

    # Open and close.

    def test_it_says_what_it_is(self) -> None:
        """E5: a name, features of those there are, a time limit."""
        engine = self.make_engine()
        assert engine.name, "give the engine a name"
        unknown = engine.supports - {"results", "cancel", *self.options}
        assert not unknown, f"there are no such features: {unknown}"
        assert engine.timeout > 0

    def test_it_opens_and_closes_in_any_order(self) -> None:
        """E1: closed before it was open, opened twice, closed twice, opened again."""

        async def run() -> None:
            engine = self.make_engine()
            await engine.close()
            await engine.open()
            await engine.open()
            assert list(await engine.send([self.message()])) == [None]
            await engine.close()
            await engine.close()
            await engine.open()
            assert list(await engine.send([self.message()])) == [None]
            await engine.close()

        asyncio.run(run())

    def test_it_opens_in_another_event_loop(self) -> None:
        """The loop of before may have ended without a word."""

        async def run(engine: Engine) -> None:
            await engine.open()
            assert list(await engine.send([self.message()])) == [None]
            await engine.close()

        engine = self.make_engine()
        asyncio.run(run(engine))
        asyncio.run(run(engine))

    # Sending.

    def test_nothing_is_sent(self) -> None:
        """An empty batch is none."""

        async def use(engine: Engine) -> None:
            assert list(await engine.send([])) == []

        self.with_engine(use)

    def test_there_is_an_answer_for_each(self) -> None:
        """E1: None where the queue has the job."""

        async def use(engine: Engine) -> None:
            answers = await engine.send([self.message() for _ in range(17)])
            assert list(answers) == [None] * 17, "one answer for each message, None for taken"

        self.with_engine(use)

    def test_a_batch_runs(self) -> None:
        """E2, E3: every one of them once, with its id and its arguments."""
        messages = [self.message(f"word {number}") for number in range(200)]
        expected = {Line(sent.id, 1, f"word {n}") for n, sent in enumerate(messages)}

        async def use(engine: Engine) -> None:
            await engine.send(messages)
            with self.run_worker():
                await self.until(lambda: len(self.lines()) >= 200, "200 jobs have run")
            odd = sorted(set(self.lines()) ^ expected, key=repr)[:4]
            assert not odd, f"job ids, attempts and arguments as sent, but: {odd}"
            assert len(self.lines()) == 200, "each ran once"

        self.with_engine(use)

    def test_one_sent_twice_is_acknowledged_twice(self) -> None:
        """E2: as after a crash between the send and the note of it."""
        twice, last = self.message("twice"), self.message("last")

        async def use(engine: Engine) -> None:
            assert list(await engine.send([twice])) == [None]
            assert list(await engine.send([twice, last])) == [None, None]
            with self.run_worker():
                await self.until(lambda: len(self.lines()) >= 2, "both have run")
                if not self.dedupes:
                    await self.until(lambda: len(self.lines()) == 3, "one has run twice")
            ids = [line.id for line in self.lines()]
            assert ids.count(last.id) == 1
            assert ids.count(twice.id) == (1 if self.dedupes else 2)

        self.with_engine(use)

    def test_a_send_that_is_cancelled_leaves_it_usable(self) -> None:
        """E1: the time limit cancels; then it is closed and opened."""

        async def use(engine: Engine) -> None:
            messages = [self.message() for _ in range(50)]
            sending = asyncio.get_running_loop().create_task(_send(engine, messages))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait((sending,), timeout=self.deadline)
            assert sending.done(), "a cancelled send must end"
            await asyncio.wait_for(engine.close(), self.deadline)
            await engine.open()
            assert list(await engine.send([self.message()])) == [None]

        self.with_engine(use)

    def test_nobody_answers(self) -> None:
        """E1: it raises within its time limit and some, and closes all the same."""

        async def run() -> None:
            engine = self.make_unreachable()
            began = time.monotonic()
            with pytest.raises(Exception):  # noqa: B017, PT011 - whatever its client raises
                await asyncio.wait_for(_open_and_send(engine, self.message()), engine.timeout)
            with contextlib.suppress(Exception):  # but it must not take its time
                await engine.close()
            took = time.monotonic() - began
            assert took < engine.timeout + 2.0, f"it took {took:.1f} s to give up and close"

        asyncio.run(run())

    def test_a_job_that_is_far_too_large_stops_nobody(self) -> None:
        """E1: it is taken, refused or an error, and the next one is taken."""
        large = self.message("x" * 3_000_000)

        async def use(engine: Engine) -> None:
            try:
                await asyncio.wait_for(_send(engine, [large]), self.deadline)
            except Exception:
                await engine.close()
                await engine.open()
            assert list(await engine.send([self.message()])) == [None]

        self.with_engine(use)

    # What is asked of it, and what is not.

    def test_what_it_lacks_is_refused(self) -> None:
        """E5: and what it has is not."""
        engine = self.make_engine()
        for feature, options in self.options.items():
            asking = note.using(**options)
            if feature in engine.supports:
                engine.check(asking)
            else:
                with pytest.raises(EngineError, match=next(iter(options))):
                    engine.check(asking)

    @pytest.mark.parametrize("thing", [note, len, print, 5, None, object()])
    def test_what_is_not_its_own_is_not_native(self, thing: object) -> None:
        """E4: functions and tasks of ours are never taken for its own."""
        assert self.make_engine().native(thing) is None

    # The worker.

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

    # Following up.

    def test_it_tells_how_jobs_stand(self) -> None:
        """E5: that it waits, that it has succeeded, and with what."""
        self.needs("results")

        async def use(runner: Runner, engine: Engine) -> None:
            job = await runner.add_task(note, self.path, "word")
            assert not (await runner.info(job.id)).status.is_final
            with self.run_worker():
                info = await self.ended(runner, job.id)
                assert info.status is JobStatus.succeeded
                assert info.error is None
                if self.keeps_values:
                    assert info.result == "word"
            assert await engine.fetch(new_id(time.time())) is None, "of an unknown id: None"

        self.with_runner(use)

    def test_it_cancels(self) -> None:
        """E5: one that waits never runs; one that is unknown is not cancelled."""
        self.needs("cancel")

        async def use(engine: Engine) -> None:
            gone, stays = self.message("gone"), self.message("stays")
            await engine.send([gone, stays])
            assert await engine.cancel(gone.id) is True
            assert await engine.cancel(new_id(time.time())) is False
            with self.run_worker():
                await self.until(self.lines, "the other one has run")
            assert [line.words for line in self.lines()] == ["stays"]

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


async def _send(engine: Engine, messages: list[Message]) -> None:
    await engine.send(messages)


async def _open_and_send(engine: Engine, message: Message) -> None:
    await engine.open()
    await engine.send([message])
