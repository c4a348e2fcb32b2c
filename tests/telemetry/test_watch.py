"""Who looks after the jobs for gauges: W4."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from asgi_bg import Runner, _telemetry_watch, task
from asgi_bg._telemetry_watch import Standing, Watch, together
from tests.helpers import until


@task(name="watch.later")
async def later() -> None:
    pass


def test_standings_of_several_runners_add_up() -> None:
    """W4: the oldest of all is the oldest; of those that are not known nothing is said."""
    assert together([]) is None
    assert together([None]) is None
    assert together([Standing(1, 2, None), None, Standing(3, 4, 50.0), Standing(0, 0, 40.0)]) == (
        Standing(4, 6, 40.0)
    )
    assert Standing(0, 1, 40.0).age(100.0) == 60.0
    assert Standing(0, 1, 40.0).age(30.0) == 0.0


@pytest.mark.anyio
async def test_a_runner_that_is_closed_has_no_standing(make_runner: Any) -> None:
    """W4: and has one again after its next start."""
    runner = await make_runner()
    watch = Watch(runner, 0.02)
    watch.start()
    try:
        await until(lambda: watch.standing == Standing(0, 0, None))
        await runner.aclose()
        await until(lambda: watch.standing is None)
        await runner.start()
        await until(lambda: watch.standing is not None)
    finally:
        watch.close()


@pytest.mark.anyio
async def test_a_look_that_fails_is_told_once(
    make_runner: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: the figures stay, and the next look that succeeds has new ones."""
    caplog.set_level(logging.DEBUG, "asgi_bg")

    async def fail(self: Any, **options: Any) -> Any:
        raise OSError("the disk is gone")

    runner = await make_runner()
    watch = Watch(runner, 0.01)
    watch.start()
    try:
        await until(lambda: watch.standing is not None)
        with monkeypatch.context() as patch:
            patch.setattr(Runner, "overview", fail)
            await until(lambda: caplog.text.count("the disk is gone") > 2)
        assert watch.standing is not None
        told = [record.levelname for record in caplog.records if "disk is gone" in record.message]
        assert told[0] == "WARNING"
        assert set(told[1:]) == {"DEBUG"}
        await runner.add_task(later.using(delay=60))
        await until(lambda: watch.standing and watch.standing.queued == 1)
    finally:
        watch.close()
        await runner.aclose(0)


@pytest.mark.anyio
async def test_a_loop_that_is_stuck_is_not_waited_for(
    make_runner: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: the thread gives the look up, and makes the next one when the loop goes on."""
    monkeypatch.setattr(_telemetry_watch, "LOOK_TIMEOUT", 0.05)
    runner = await make_runner()
    watch = Watch(runner, 0.01)
    watch.start()
    try:
        await until(lambda: watch.standing is not None)
        deadline = time.monotonic() + 30
        while "did not answer in 0.05 seconds" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)  # which blocks the loop, as some tasks do
        await runner.add_task(later.using(delay=60))
        await until(lambda: watch.standing and watch.standing.queued == 1)
    finally:
        watch.close()
        await runner.aclose(0)


def test_a_loop_that_is_closed_meanwhile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """W4: a test client's loop may end at any moment."""
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(TimeoutError, match="was closed"):
        _telemetry_watch._ask(Runner(), loop)


@pytest.mark.anyio
async def test_nobody_is_told_after_close(make_runner: Any) -> None:
    """W4: a look that is under way comes to nothing."""
    told: list[Standing] = []
    runner = await make_runner()
    watch = Watch(runner, 0.01, told.append)
    watch.start()
    await until(lambda: told)
    watch.close()
    await until(lambda: not watch._thread.is_alive(), 30)
    count = len(told)
    await asyncio.sleep(0.05)  # for what must not happen
    assert len(told) == count
