"""The runner: the face of the jobs of this process, for the middleware and for users."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

from asgi_bg._changing import Changing
from asgi_bg._collector import BackgroundTasks, collecting
from asgi_bg._execution.threads import ThreadPool
from asgi_bg._finding import Finding
from asgi_bg._job import Job, JobInfo, JobStatus
from asgi_bg._limits import Limits
from asgi_bg._messages import log_unfinished
from asgi_bg._options import check_count, check_seconds
from asgi_bg._registry import Registry
from asgi_bg._scheduling.lane import Lane
from asgi_bg._scheduling.parts import Parts
from asgi_bg._scheduling.scheduler import Scheduler
from asgi_bg._scheduling.schedulers import Schedulers
from asgi_bg._task import P
from asgi_bg.engines._consumer import Consumer
from asgi_bg.engines._link import Link
from asgi_bg.engines.base import Engine
from asgi_bg.events import EventHandler, Events, Hearer
from asgi_bg.journal.base import Journal

if TYPE_CHECKING:
    from typing_extensions import Self

    from asgi_bg._keeping.keeper import Keeper
    from asgi_bg._showing import Showing
    from asgi_bg.views import JobDetails, JobPage, Overview, RunnerStats


LONGEST = 10 * 365 * 86_400.0
"""How many seconds an overview goes back at most."""

DRAIN_INTERVAL = 0.02
"""How many seconds lie between two looks whether the journal has been drained."""


class RunnerOptions(TypedDict, total=False):
    """The arguments of `Runner`, where they are passed through."""

    max_jobs: int
    max_threads: int
    max_processes: int | None
    max_queued: int
    ordered: bool
    timeout: float | None
    drain_timeout: float
    history: int
    on_event: EventHandler | Iterable[EventHandler]
    journal: str | PathLike[str] | Journal | None
    engine: Engine | None


def runner_from(runner: Runner | None, options: RunnerOptions) -> Runner:
    """Return the runner that is given, or one made with the options; for who takes either.

    Raises:
        TypeError: Both are given, or it is no runner.
    """
    if runner is None:
        return Runner(**options)
    if options:
        raise TypeError(
            f"give either runner= or its options, got both: {', '.join(options)}; "
            "pass the options to the Runner"
        )
    if not isinstance(runner, Runner):
        raise TypeError(f"runner must be an asgi_bg.Runner, got {runner!r}")
    return runner


class Runner:
    """Runs jobs in this process: on the event loop, in threads, in worker processes.

    A `BackgroundTaskMiddleware` makes its own, starts it at the server's startup and closes
    it at shutdown. Make one yourself to share it between middlewares, or to add jobs outside
    of requests::

        runner = Runner(max_jobs=100)
        app = BackgroundTaskMiddleware(app, runner=runner)

        await runner.add_task(send_report)

    Guarantees: a failing job stops no other (R3); every job runs in the context of its
    ``add_task`` (R4). Without a journal jobs live in memory and end with the process. With
    one, jobs of declared tasks are on disk before their response is (J1), and run at least
    once whatever happens to the process (J3).

    Args:
        journal: Where jobs of declared tasks are kept: the path of a file, or a `Journal`.
        engine: Who runs the jobs of declared tasks, in place of this process (E1): they are handed
            over to it, by way of the journal if there is one.
        max_jobs: How many jobs may run at once.
        max_threads: How many worker threads there may be, for plain functions; they are the
            runner's own and take none from the app (R1).
        max_processes: How many worker processes there may be, for tasks with
            ``executor="process"``; None for one per processor.
        max_queued: How many jobs may wait; one more is refused with `QueueFull` (R8).
        ordered: Whether the jobs of one request run one after another, in the order added,
            or at once (R2).
        timeout: How long one attempt may take, in seconds, for tasks without a timeout of
            their own; None for no limit (R5).
        drain_timeout: How long a shutdown waits for requests and jobs, in seconds (R6).
        history: How many finished jobs are remembered.
        on_event: A function, or several, called with each `JobEvent` (R9).

    Attributes:
        consumes: Whether `start` makes this process work the engine's queue too.
        journal_path: Where the journal is, for messages; None if there is none.

    Raises:
        TypeError, ValueError: An argument does not fit; the message says what would.
    """

    def __init__(
        self,
        *,
        journal: str | PathLike[str] | Journal | None = None,
        engine: Engine | None = None,
        max_jobs: int = 1000,
        max_threads: int = 40,
        max_processes: int | None = None,
        max_queued: int = 100_000,
        ordered: bool = True,
        timeout: float | None = None,
        drain_timeout: float = 25.0,
        history: int = 1000,
        on_event: EventHandler | Iterable[EventHandler] = (),
    ) -> None:
        check_count("max_jobs", max_jobs, least=1)
        check_count("max_threads", max_threads, least=1)
        check_count("max_queued", max_queued, least=1)
        check_count("history", history, least=0)
        check_seconds("drain_timeout", drain_timeout)
        if max_processes is not None:
            check_count("max_processes", max_processes, least=1)
        if timeout is not None:
            check_seconds("timeout", timeout, zero=False)
        self.drain_timeout = drain_timeout
        link = None if engine is None else Link(_as_engine(engine))
        kept = None if journal is None else _as_journal(journal)
        self.journal_path: str | None = None if kept is None else kept.path
        self.consumes = engine is not None and engine.consume
        self._consumer: Consumer | None = None
        if engine is not None:
            self._consumer = Consumer(engine, self, max_jobs, drain_timeout)
        limits = Limits(max_jobs, max_processes, max_queued, timeout, ordered)
        registry = Registry(history)
        keeper = None
        if kept is not None or link is not None:
            keeper = _keeper_of(kept, registry, limits, link)
        threads = ThreadPool(max_threads)
        parts = Parts(limits, registry, threads, Events(on_event), keeper, link)
        self._schedulers = Schedulers(parts)
        self._use(parts)

    def _use(self, parts: Parts) -> None:
        self._schedulers.parts = parts
        self._finding = Finding(parts.registry, parts.keeper)
        self._changing = Changing(parts, self._finding)

    @property
    def _parts(self) -> Parts:
        return self._schedulers.parts

    @property
    def _showing(self) -> Showing:
        # Imported here, as it is for people, and few processes show jobs to any.
        from asgi_bg._showing import Showing

        return Showing(self._parts.registry, self._parts.keeper, self._finding)

    def equip(
        self, *, threads: Callable[[int], ThreadPool] | None = None, hearers: Sequence[Hearer] = ()
    ) -> None:
        """Run attempts in the surroundings that a framework wants; for integrations.

        Args:
            threads: Makes the worker threads, given how many there may be.
            hearers: Told of what happens to jobs, before all others: of a job that begins, in
                the context of its attempt.

        Raises:
            RuntimeError: It has run jobs, or runs them.
        """
        if len(self._schedulers):
            raise RuntimeError(
                "the runner has been started, or has run jobs, before its framework was told of "
                "it; call init_app(application, runner=runner) right after the runner is made"
            )
        parts = self._parts
        if threads is not None:
            parts = parts._replace(threads=threads(parts.threads.limit))
        if hearers:
            parts = parts._replace(events=Events((*hearers, *parts.events.handlers)))
        self._use(parts)

    # Its lifetime.

    async def start(self) -> None:
        """Supervise the jobs of the running event loop, until `aclose`.

        Requests then end without waiting for their jobs. Starting twice does nothing.

        Raises:
            JournalError: The journal cannot be opened; the message says why.
        """
        scheduler = self.scheduler()
        if scheduler.is_supervised:
            return
        if self._parts.keeper is not None:
            try:
                await self._parts.keeper.open()
            except BaseException:
                await self._close(scheduler)
                raise
        scheduler.is_supervised = True
        if self._consumer is not None and self.consumes:
            self._consumer.start()

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until nothing is ready, running or waiting for a retry.

        Jobs put off by ``delay=`` or ``run_at=`` do not count.

        Args:
            timeout: How long to wait, in seconds; None for as long as it takes.

        Returns:
            Whether it came to that in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        keeper = self._parts.keeper
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not await self.scheduler().drain(left):
                return False
            if keeper is None or not await keeper.archive.has_work():
                if not self.scheduler().is_busy:
                    return True
                continue
            if left == 0:
                return False
            keeper.claims.claim_soon()
            await asyncio.sleep(DRAIN_INTERVAL)

    async def aclose(self, timeout: float | None = None) -> None:
        """Drain, then cancel what is not done, and name it in the log.

        Args:
            timeout: How long to drain, in seconds; None for `drain_timeout`.
        """
        if asyncio.get_running_loop() not in self._schedulers.loops:
            return  # closed already, or never used
        scheduler = self.scheduler()
        try:
            await self.finish_held(self.drain_timeout if timeout is None else timeout)
        finally:
            try:
                await self.cancel_all()
            finally:
                await self._close(scheduler)

    async def finish_held(self, timeout: float) -> bool:
        """Drain the jobs of this process, and leave what waits in the journal for later.

        Returns:
            Whether that took no more than ``timeout`` seconds.
        """
        if self._consumer is not None:
            self._consumer.stop()
        if self._parts.keeper is not None and len(self._schedulers) < 2:
            self._parts.keeper.claims.stop_claiming()
            self.scheduler().leave_waiting_behind()
        return await self.scheduler().drain(timeout)

    async def cancel_all(self) -> None:
        """Cancel all jobs of the running event loop, and name them in the log.

        Those that are kept in a journal stay queued there. Those that run get a moment to
        clean up. `aclose` does this after its drain.
        """
        scheduler = self.scheduler()
        unfinished = scheduler.unfinished()
        if unfinished:
            log_unfinished(unfinished)
            await scheduler.cancel_all(unfinished, "cancelled at shutdown")

    async def _close(self, scheduler: Scheduler) -> None:
        if self._consumer is not None:
            await self._consumer.aclose()
        scheduler.close()
        self._schedulers.remove(scheduler)
        parts = self._parts
        if parts.keeper is not None and len(self._schedulers):
            parts.keeper.claims.detach(scheduler.loop)
        if not len(self._schedulers):
            parts.threads.close()
            if parts.keeper is not None:
                await parts.keeper.close()
            if parts.link is not None:
                await parts.link.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Without the attribute the constructor has refused its arguments.
        for scheduler in getattr(self, "_schedulers", ()):
            if scheduler.is_supervised and scheduler.is_busy:
                warnings.warn(
                    "a started runner went away with unfinished jobs; await runner.aclose() before",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )

    # Adding jobs.

    @overload
    async def add_task(
        self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job: ...
    @overload
    async def add_task(self, func: str, /, *args: Any, **kwargs: Any) -> Job: ...
    async def add_task(self, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """Queue a call of ``func`` outside of any request; it may start at once.

        Arguments, result and errors are those of `BackgroundTasks.add_task`. The job may
        add more with `asgi_bg.add_task`; they run after it. A job of a declared task is on
        disk when this returns, where there is a journal, or with the engine where there is none.

        Raises:
            JournalError: It cannot be written, and will not run (J2).
            EngineError: The engine did not acknowledge it in time (E1), or lacks what the task
                asks for (E5).
        """
        scheduler = self.scheduler()
        tasks = BackgroundTasks(scheduler)
        token = collecting.set(tasks)
        try:
            job = tasks.add_task(cast("Callable[..., Any]", func), *args, **kwargs)
        finally:
            collecting.reset(token)
        if tasks.unsaved is not None:
            saving = scheduler.save(tasks)
            try:
                await saving.written()
            except BaseException as exc:  # also a cancellation: nobody has got the job
                scheduler.refuse(saving, str(exc) or "its add_task was cancelled")
                raise
        lane = Lane(scheduler, tasks)
        lane.is_complete = True
        lane.pump()
        return job

    def scheduler(self) -> Scheduler:
        """Return the scheduler of the running event loop; for the middleware."""
        return self._schedulers.current()

    @property
    def loops(self) -> tuple[asyncio.AbstractEventLoop, ...]:
        """The event loops whose jobs it looks after; most programs have one."""
        return self._schedulers.loops

    async def perform(self, name: str, envelope: Mapping[str, Any], attempt: int) -> Any:
        """Run one attempt of a job that an engine has brought; for engines.

        It is run under the limits of this runner, and waited for; see
        `asgi_bg.engines.Performer.perform`.
        """
        # Imported here, as only workers of an engine need it.
        from asgi_bg._scheduling.brought import perform

        return await perform(self.scheduler(), self._parts.registry, name, envelope, attempt)

    # Looking after jobs.

    async def info(self, id: str) -> JobInfo:
        """Return what is known of a job.

        Raises:
            JobNotFound: No job of that id is known (any more).
        """
        return await self._finding.info(id)

    async def result(self, id: str, timeout: float | None = None) -> Any:
        """Wait until a job has ended, and return what its task returned.

        Raises:
            JobNotFound: No job of that id is known (any more).
            JobFailed: The job failed, was cancelled or was dropped.
            TimeoutError: It has not ended after ``timeout`` seconds. It goes on.
        """
        return await self._finding.result(id, timeout)

    async def jobs(
        self,
        *,
        status: JobStatus | str | None = None,
        task: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[JobInfo]:
        """Return jobs, the newest first.

        Args:
            status: Only those that stand so.
            task: Only those of the task of this name.
            limit: At most so many.
            after: Only those that come after the job of this id, to go on from a last page.

        Raises:
            ValueError: There is no such status, or the limit is below 1.
        """
        check_count("limit", limit, least=1)
        wanted = None if status is None else JobStatus(status)
        return await self._finding.jobs(wanted, task, after, limit)

    async def infos(self, ids: Sequence[str]) -> dict[str, JobInfo]:
        """Return what is known of several jobs, by id; with one question to the journal.

        Those that are not known (any more) are left out.
        """
        return await self._finding.infos(ids)

    async def details(self, id: str) -> JobDetails:
        """Return all that is known of a job: its arguments, attempts and request, too.

        Arguments that the task's ``redact=`` names are hidden (J10).

        Raises:
            JobNotFound: No job of that id is known (any more).
        """
        return await self._showing.details(id)

    async def search(
        self,
        *,
        status: JobStatus | str | None = None,
        task: str | None = None,
        text: str | None = None,
        after: str | None = None,
        limit: int = 50,
        seconds: float = 0.15,
    ) -> JobPage:
        """Look for jobs, the newest first, for no longer than that is wanted.

        Args:
            status: Only those that stand so.
            task: Only those of the task of this name.
            text: Only those that have this text, in upper or lower case, in their id, task,
                key, message, error, arguments (but for redacted and encrypted ones), or in
                the path and id of their request.
            after: Only those that come after the job of this id: `JobPage.next`.
            limit: At most so many.
            seconds: For how long to look through the journal.

        Raises:
            ValueError: There is no such status, or the limit is below 1.
        """
        check_count("limit", limit, least=1)
        check_seconds("seconds", seconds)
        wanted = None if status is None else JobStatus(status)
        return await self._showing.search(wanted, task, text, after, limit, seconds)

    async def overview(self, seconds: float = 3600.0, buckets: int = 60) -> Overview:
        """Return how many jobs stand how, and rates and durations of the last while.

        It is made when it is asked for, and takes about the same time however many jobs there
        are: of times with many jobs only a sample is looked at.

        Args:
            seconds: How far it goes back.
            buckets: Into how many stretches of time that is cut.

        Raises:
            ValueError: One of them is not above 0, or the time is over ten years.
        """
        check_seconds("seconds", seconds, zero=False)
        if seconds > LONGEST:
            raise ValueError(f"seconds must be ten years ({LONGEST:.0f}) or less, got {seconds!r}")
        check_count("buckets", buckets, least=1)
        return await self._showing.overview(seconds, buckets)

    async def retry(self, id: str) -> JobInfo:
        """Queue a failed or cancelled job again, with all its attempts before it.

        Raises:
            JobNotFound: No job of that id is known (any more).
            ValueError: It has succeeded, or has not ended.
        """
        return await self._changing.retry(id, self.scheduler)

    async def retry_failed(self, task: str | None = None) -> int:
        """Queue all failed jobs again, or those of a task; return how many.

        Args:
            task: Only those of the task of this name.
        """
        return await self._changing.retry_failed(task, self.scheduler)

    async def cancel(self, id: str) -> JobInfo:
        """Cancel a job: one that waits does not start, one that runs is stopped.

        A plain function in a worker thread cannot be stopped: the job counts as cancelled,
        and `current_job`'s ``cancelled`` tells the function. One that has ended stays so.

        Raises:
            JobNotFound: No job of that id is known (any more).
        """
        return await self._changing.cancel(id)

    async def purge(self, *, status: JobStatus | str | None = None, older_than: float = 0.0) -> int:
        """Forget finished jobs, and return how many.

        Args:
            status: Only those that ended so; None for all.
            older_than: Only those that ended at least so many seconds ago.
        """
        check_seconds("older_than", older_than)
        wanted = None if status is None else JobStatus(status)
        return await self._changing.purge(wanted, time.time() - older_than)

    def stats(self) -> RunnerStats:
        """Return what is going on, in numbers; takes the same time however many jobs wait."""
        running = sum(scheduler.running for scheduler in self._schedulers)
        registry, keeper = self._parts.registry, self._parts.keeper
        unfinished = len(registry.unfinished)
        if keeper is not None and len(self._schedulers):
            counts = keeper.archive.counts()
            unfinished += counts["queued"] + counts["running"] - len(keeper.held)
        return {
            "queued": max(0, unfinished - running),
            "running": running,
            "succeeded": registry.ended[JobStatus.succeeded],
            "failed": registry.ended[JobStatus.failed],
            "cancelled": registry.ended[JobStatus.cancelled],
            "threads": self._parts.threads.alive,
            "handed_over": registry.handed_over,
        }


def _keeper_of(
    journal: Journal | None, registry: Registry, limits: Limits, link: Link | None
) -> Keeper:
    """Return who keeps jobs in a journal, or with an engine alone."""
    # Imported here, as it brings a third of the package along.
    from asgi_bg._keeping.keeper import Keeper
    from asgi_bg.engines._direct import DirectJournal

    if journal is None:
        assert link is not None  # noqa: S101 - there is one of them
        journal = DirectJournal(link)
    return Keeper(journal, registry, limits, link)


def _as_engine(engine: object) -> Engine:
    if not isinstance(engine, Engine):
        raise TypeError(
            f"engine must be an asgi_bg.engines.Engine, such as ArqEngine(...), got {engine!r}"
        )
    return engine


def _as_journal(journal: object) -> Journal:
    if isinstance(journal, (str, PathLike)):
        # Imported here, as not every Python has sqlite3, nor every system file locks.
        from asgi_bg.journal.sqlite import SQLiteJournal

        return SQLiteJournal(cast("str | PathLike[str]", journal))
    if not hasattr(journal, "commit"):
        raise TypeError(f"journal must be a path or an asgi_bg.journal.Journal, got {journal!r}")
    return cast("Journal", journal)
