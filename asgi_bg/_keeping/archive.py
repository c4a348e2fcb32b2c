"""The jobs of the journal, for whoever asks about them or wants something of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from asgi_bg._job import Job, JobInfo, JobStatus
from asgi_bg._keeping.elsewhere import Elsewhere
from asgi_bg._looking.desk import PURGED, Desk, details_of_row, failed_ids
from asgi_bg._record import JobRecord
from asgi_bg._registry import Registry
from asgi_bg._rows import info_of
from asgi_bg.engines._link import Link
from asgi_bg.exceptions import EngineError, JobFailed, JobNotFound
from asgi_bg.journal._writer import Writer
from asgi_bg.journal.base import JobRow, Journal
from asgi_bg.views import JobDetails, JobPage

POLL_INTERVAL = 0.2
"""How many seconds at most lie between two looks at a job that another process runs."""

READERS = 4
"""How many questions are answered at once."""

LOOK_WAIT = 1.0
"""How many seconds a question waits for what is to be written before."""


class Archive:
    """Answers once all that this process has told the journal has been written.

    Args:
        journal: The journal.
        writer: Who writes to it.
        registry: The jobs that this process knows.
        held: Those of the journal that it holds, and so knows better about.
        link: The way to the engine that jobs are handed over to, if there is one.

    Attributes:
        is_open: Set once the journal has been opened, or could not be.
        journal: The journal, for questions to be asked with `ask`.
        desk: Answers questions that are not about one job.
    """

    def __init__(
        self,
        journal: Journal,
        writer: Writer,
        registry: Registry,
        held: Mapping[str, JobRecord],
        link: Link | None,
    ) -> None:
        self.journal = journal
        self._writer = writer
        self._registry = registry
        self._held = held
        self._elsewhere = Elsewhere(link)
        self._reader = _make_reader()
        self.is_open = threading.Event()
        self.desk = Desk(journal)

    def close(self) -> None:
        """Answer no more, until the journal is opened again."""
        self.is_open.clear()
        self._reader.shutdown(wait=False)
        self._reader = _make_reader()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return what a function returns in the writer's thread."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writer.start()
        self._writer.call(function, partial(_bring, answer))
        return await answer

    async def written(self) -> None:
        """Wait until all that the journal has been told has been written."""
        await self._flush()

    def _flush(self) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writer.start()
        self._writer.flush(partial(_bring, answer))
        return answer

    async def ask(self, question: Callable[[], Any]) -> Any:
        """Return what a question returns, asked once all that was told has been written.

        In a thread of its own, so that no commit waits for the answer. Where another program
        keeps the journal from being written, the answer is of what was written before.
        """
        answer = self._flush()
        await asyncio.wait((answer,), timeout=LOOK_WAIT)
        if answer.done():
            answer.result()
        else:
            answer.cancel()
        return await asyncio.get_running_loop().run_in_executor(self._reader, question)

    async def info(self, id: str) -> JobInfo:
        """Return what the journal says of a job, or the engine that has it.

        Raises:
            JobNotFound: There is none of that id (any more).
            EngineError: It is not in the journal, and the engine could not be asked.
        """
        row = await self._find_row(id)
        if row is not None:
            return await self._elsewhere.follow(row)
        told = await self._elsewhere.find(id)
        if told is None:
            raise self._unknown(id)
        return told

    async def infos(self, ids: Sequence[str]) -> dict[str, JobInfo]:
        """Return what is known of several jobs; those that there are not are left out."""
        rows: list[JobRow] = await self.ask(partial(self.journal.get_many, ids))
        infos = {row.id: info_of(row) for row in rows if row.engine is None}
        handed = [row for row in rows if row.engine is not None]
        told = await asyncio.gather(*(self._elsewhere.follow(row) for row in handed))
        return infos | {info.id: info for info in told}

    async def details(self, id: str) -> JobDetails:
        """Return all that is known of a job.

        Raises:
            JobNotFound: There is none of that id (any more).
        """
        row = await self._row(id)
        return details_of_row(row, await self._elsewhere.follow(row))

    async def search(self, search: Callable[[], JobPage]) -> JobPage:
        """Return what a search finds that this process does not know better about."""
        # Those of now: one that is claimed meanwhile would else be in neither answer.
        held = set(self._held)
        page: JobPage = await self.ask(search)
        jobs = tuple(job for job in page.jobs if job.id not in held)
        return JobPage(jobs, page.next, page.is_cut)

    async def _row(self, id: str) -> JobRow:
        row = await self._find_row(id)
        if row is None:
            raise self._unknown(id)
        return row

    async def _find_row(self, id: str) -> JobRow | None:
        row: JobRow | None = await self.ask(partial(self.journal.get, id))
        return row

    def _unknown(self, id: str) -> JobNotFound:
        return JobNotFound(
            f"no job {id!r} is known to this runner or its journal {self.journal.path}; "
            "finished jobs are forgotten when their retention is over"
        )

    async def result(self, id: str, timeout: float | None) -> Any:
        """Wait for the end of a job, whoever runs it, and return its value.

        Raises:
            JobNotFound: There is none of that id.
            JobFailed: It has no result.
            TimeoutError: It has not ended by then.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        wait = 0.01
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            record = self._held.get(id)
            if record is not None:
                return await record.result(left)
            info = await self.info(id)
            if info.status is JobStatus.succeeded:
                return info.result
            if info.status.is_final:
                raise JobFailed(info.id, info.task, info.error or str(info.status))
            if info.handed_over_at is not None and not self._elsewhere.has_results(info):
                raise EngineError(
                    f"job {id} of task {info.task} was handed over to {info.owner}, which tells "
                    "no results here; configure its result store, or have the task write down "
                    "what is wanted of it"
                )
            if left is not None and left <= 0:
                raise TimeoutError(
                    f"job {id} of task {info.task} is still {info.status} after {timeout} seconds"
                )
            await asyncio.sleep(wait if left is None else min(wait, max(left, 0.0)))
            wait = min(2 * wait, POLL_INTERVAL)

    async def find(
        self, status: str | None, task: str | None, after: str | None, limit: int
    ) -> list[JobInfo]:
        """Return the newest jobs that this process does not know better about."""
        found: list[JobInfo] = []
        held = set(self._held)  # as in `search`
        while True:
            rows: list[JobRow] = await self.ask(
                partial(self.journal.find, status, task, after, limit)
            )
            found += [info_of(row) for row in rows if row.id not in held]
            if len(rows) < limit or len(found) >= limit:
                return found[:limit]
            after = rows[-1].id

    async def cancel(self, id: str) -> JobInfo:
        """Cancel a job that waits in the journal or at an engine, or ask its owner to."""
        row = await self._row(id)
        if row.engine is not None:
            return await self._elsewhere.cancel(row)
        await self.call(partial(self.journal.cancel, id, "cancelled by request", time.time()))
        return await self.info(id)

    async def retry(self, id: str) -> JobInfo:
        """Let a failed or cancelled job wait again.

        Raises:
            JobNotFound: There is none of that id.
            ValueError: It is neither.
        """
        row = await self._row(id)
        if row.engine is not None:
            raise ValueError(
                f"job {id} was handed over to the engine {row.engine}; retry it there, with the "
                "engine's own tools"
            )
        if not await self.call(partial(self.journal.retry, row.id)):
            raise ValueError(
                f"only failed and cancelled jobs can be retried, and job {id} is {row.status}"
            )
        self._reopen(row.id)
        return await self.info(id)

    async def retry_failed(self, task: str | None) -> int:
        """Let all failed jobs wait again, or those of a task; count them."""
        pieces: list[list[str]] = await self.ask(lambda: list(failed_ids(self.journal, task)))
        retried = 0
        for ids in pieces:
            done: list[str] = await self.call(partial(self.journal.retry_each, ids))
            for each in done:
                self._reopen(each)
            retried += len(done)
        return retried

    def _reopen(self, id: str) -> None:
        """Let the record of a job, if somebody has it still, know that it waits again."""
        record = self._registry.known(id)
        if record is not None and record.kept is not None and id not in self._held:
            record.reopen()
            record.kept.interrupted = 0
            record.kept.is_away = True

    async def purge(self, status: str | None, before: float) -> int:
        """Forget jobs that ended before that instant, some at a time; count them."""
        gone = 0
        while True:
            some: int = await self.call(partial(self.journal.purge, status, before, PURGED))
            gone += some
            if some < PURGED:
                return gone

    async def has_work(self) -> bool:
        """Whether jobs wait in the journal that may start, or are to be tried again."""
        is_ready: bool = await self.ask(self.journal.has_ready)
        return is_ready or bool(await self.ask(self.journal.has_retries))

    def counts(self) -> dict[str, int]:
        """Return how many jobs of each status the journal has."""
        self.is_open.wait()
        return self.journal.counts()


class KeptJob(Job):
    """A job that is kept in the journal and not in this process."""

    __slots__ = ("_archive", "_id", "_task_name")

    def __init__(self, archive: Archive, id: str, task_name: str) -> None:
        self._archive = archive
        self._id = id
        self._task_name = task_name

    @property
    def id(self) -> str:
        """The job's id."""
        return self._id

    @property
    def task_name(self) -> str:
        """The name of its task."""
        return self._task_name

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the value, as `Job.result` says."""
        return await self._archive.result(self._id, timeout)

    async def info(self) -> JobInfo:
        """Return what is known of the job now."""
        return await self._archive.info(self._id)


def _make_reader() -> ThreadPoolExecutor:
    # It starts its threads as there are questions.
    return ThreadPoolExecutor(READERS, "asgi_bg journal reader")


def _bring(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed, and nobody waits
        answer.get_loop().call_soon_threadsafe(_answer, answer, value, error)


def _answer(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)
