"""Log records emitted inside a job are kept with it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgi_bg._execution.attempt import LOGS_LIMIT

pytestmark = pytest.mark.anyio

log = logging.getLogger("app.mail")


async def test_records_are_kept_with_their_job_and_bounded(
    make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each with its own; the last ones, shortened, of the levels that logging lets through."""
    caplog.set_level(logging.INFO, "app")
    runner = await make_runner()

    def chatty(count: int) -> None:
        log.debug("not let through")
        for number in range(count):
            log.info("no. %d", number)
        log.warning("x" * 5000)
        log.error("odd %d", "arguments")

    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        first = await runner.add_task(chatty, 1)
        second = await runner.add_task(chatty, LOGS_LIMIT)
        await runner.drain(5)
    finally:
        logging.raiseExceptions = before

    lines = (await first.info()).logs
    assert [(line.logger, line.level) for line in lines] == [
        ("app.mail", "INFO"),
        ("app.mail", "WARNING"),
        ("app.mail", "ERROR"),
    ]
    assert lines[0].message == "no. 0"
    assert lines[1].message == "x" * 2000
    assert lines[2].message == "odd %d"
    lines = (await second.info()).logs
    assert len(lines) == LOGS_LIMIT
    assert lines[0].message == "no. 2"


async def test_what_the_runner_says_of_a_job_is_not_kept_with_it(make_runner: Any) -> None:
    """Its failure is in error and traceback already."""
    runner = await make_runner()

    async def fail() -> None:
        raise ValueError

    job = await runner.add_task(fail)
    await runner.drain(5)
    assert (await job.info()).logs == ()


def test_keeping_logs_leaves_logging_as_it_was() -> None:
    """No handler is added: that would silence logging's last resort, and basicConfig()."""
    import subprocess
    import sys

    code = (
        "import asyncio, logging\n"
        "from asgi_bg import Runner\n"
        "async def main():\n"
        "    async with Runner() as runner:\n"
        "        await runner.add_task(logging.getLogger('x').warning, 'last resort')\n"
        "    logging.basicConfig(format='configured %(message)s')\n"
        "    logging.warning('later')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.stderr.splitlines() == ["last resort", "configured later"]
