"""The contract of engines: what it can be asked for, and what it tells of jobs (E4, E5)."""

from __future__ import annotations

import time

import pytest

from asgi_bg import Runner
from asgi_bg._ids import new_id
from asgi_bg._job import JobStatus
from asgi_bg.engines import Engine
from asgi_bg.exceptions import EngineError
from asgi_bg.testing._engine_site import EngineSite
from asgi_bg.testing.contract_tasks import note


class Asking(EngineSite):
    """What an engine supports, and what that brings."""

    def test_it_says_what_it_is(self) -> None:
        """E5: a name, features of those there are, a time limit."""
        engine = self.make_engine()
        assert engine.name, "give the engine a name"
        unknown = engine.supports - {"results", "cancel", *self.options}
        assert not unknown, f"there are no such features: {unknown}"
        assert engine.timeout > 0

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
