"""Requests at a steady pace, and how long each response took."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

CONNECTIONS = 8

NO_SERVER = 0.02
"""How long a connection waits before it is tried again, in seconds."""

PATIENCE = 60.0
"""How long a response may take before it counts as none, in seconds."""

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.I)


class Answer(NamedTuple):
    """What became of a request.

    Attributes:
        due: When it was to be sent, by the monotonic clock.
        took: How many seconds after that the response was there to its end. So a request that
            could not be sent in time, as the one before it was slow, counts as slow, too.
        status: The response's; 0 if there was none.
        number: The request's.
        body: The response's: the job's id, if there is one.
    """

    due: float
    took: float
    status: int
    number: int
    body: str

    @property
    def is_promise(self) -> bool:
        """Whether it tells of a job that was added."""
        return self.status == 200 and self.body != ""


class Load:
    """Clients that go on at their pace in a thread of their own, within a ``with``.

    Each has a connection that it keeps.

    Args:
        ports: Where servers listen now; each client chooses one of them.
        rate: How many requests a second there are in all.
        target: The path of a request, by its number, and its method.

    Attributes:
        answers: What became of the requests so far.
    """

    def __init__(
        self,
        ports: Callable[[], list[int]],
        rate: float,
        target: Callable[[int], str] = "POST /job?n={}".format,
        first: int = 0,
    ) -> None:
        self.answers: list[Answer] = []
        self._ports = ports
        self._rate = rate
        self._target = target
        self._number = first
        self._is_ending = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self) -> None:
        """Send no more, and wait for the responses."""
        self._is_ending = True
        self._thread.join()
        if self._error is not None:
            raise AssertionError("the load has failed") from self._error

    @property
    def accepted(self) -> set[str]:
        """The ids of the jobs that were promised."""
        return {answer.body for answer in list(self.answers) if answer.is_promise}

    def between(self, begin: float, end: float) -> list[Answer]:
        """The responses to what was due in that time."""
        return [
            answer for answer in list(self.answers) if answer.status and begin <= answer.due < end
        ]

    def _run(self) -> None:
        try:
            asyncio.run(self._run_all())
        except BaseException as exc:
            self._error = exc

    async def _run_all(self) -> None:
        period = CONNECTIONS / self._rate
        await asyncio.gather(
            *(self._client(at, period * at / CONNECTIONS, period) for at in range(CONNECTIONS))
        )

    async def _client(self, at: int, offset: float, period: float) -> None:
        due = time.monotonic() + offset
        while not self._is_ending:
            ports = self._ports()
            try:
                port = ports[at % len(ports)]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except (OSError, ZeroDivisionError):
                await asyncio.sleep(NO_SERVER)
                continue
            try:
                due = await self._keep_asking(reader, writer, max(due, time.monotonic()), period)
            finally:
                writer.transport.abort()

    async def _keep_asking(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, due: float, period: float
    ) -> float:
        """Send one request after another, until the server ends the connection.

        Returns:
            When the next one is due.
        """
        status = 200
        while not self._is_ending and status == 200:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._number += 1
            number = self._number
            try:
                status, body = await asyncio.wait_for(
                    _exchange(reader, writer, self._target(number)), PATIENCE
                )
            except (OSError, EOFError, asyncio.TimeoutError):
                status, body = 0, ""
            self.answers.append(Answer(due, time.monotonic() - due, status, number, body))
            due += period
        return due


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str
) -> tuple[int, str]:
    """Send a request and read the response, to its last byte."""
    writer.write(f"{target} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if length is None:
        raise EOFError("the server ends the connection")
    body = await reader.readexactly(int(length[1]))
    return int(head.split(maxsplit=2)[1]), body.decode()


def quantile(answers: list[Answer], fraction: float) -> float:
    """How many seconds that fraction of the responses took at most."""
    times = sorted(answer.took for answer in answers)
    return times[min(len(times) - 1, math.ceil(fraction * len(times)) - 1)] if times else math.nan


def times(answers: list[Answer]) -> str:
    """Return in words how long these responses took."""
    slowest = max((answer.took for answer in answers), default=0.0)
    return (
        f"{len(answers)}: p50 {quantile(answers, 0.5) * 1000:.1f} "
        f"p99 {quantile(answers, 0.99) * 1000:.1f} max {slowest * 1000:.0f} ms"
    )
