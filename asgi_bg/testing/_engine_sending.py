"""The contract of engines: open, close, send, and what a queue that is away costs (E1, E2)."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from asgi_bg.engines import Engine, Message
from asgi_bg.testing._engine_site import EngineSite
from asgi_bg.testing.contract_tasks import Line


class Sending(EngineSite):
    """What becomes of jobs between the app and the queue."""

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


async def _send(engine: Engine, messages: list[Message]) -> None:
    await engine.send(messages)


async def _open_and_send(engine: Engine, message: Message) -> None:
    await engine.open()
    await engine.send([message])
