"""What a test sees of the background tasks that its app adds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from typing import Any

from asgi_bg._collector import BackgroundTasks, collecting
from asgi_bg._job import JobStatus
from asgi_bg._options import check_seconds
from asgi_bg._task import as_task
from asgi_bg.testing._clock import Clock
from asgi_bg.testing._draining import Draining
from asgi_bg.testing._recorded import RecordedJob, shown_call
from asgi_bg.testing._seam import Seam
from asgi_bg.testing._shelf import Shelf, new_parts
from asgi_bg.testing._store import Store

__all__ = ["Drained", "TaskRecorder", "record_tasks"]

AnyTask = Callable[..., Any] | str


class TaskRecorder:
    """Records the jobs that are added in this process, and runs them when it is told to.

    Made by `record_tasks`, or by the fixture ``background_tasks``. The app is not changed, and
    does not notice: jobs are checked and admitted as ever, and belong to their request until its
    response has ended (M5). Then they are laid aside. Journals are not opened and engines not
    spoken to; what those would refuse (J7, E5) is refused all the same.

    Attributes:
        clock: What jobs wait by that are put off or are to be tried again.
    """

    def __init__(self, store: Store) -> None:
        self.clock = store.clock
        self._store = store
        self._shelf = Shelf(new_parts(), store.note)
        self._drains: list[Drained] = []

    # What was added.

    def added(self, task: AnyTask | None = None) -> list[RecordedJob]:
        """Return the jobs that were added, in that order.

        Those that their response has dropped are not among them (M5).

        Args:
            task: Only those of this one: a task, a function, or the name of a task.
        """
        jobs = [entry.job for entry in self._store.entries() if not entry.job.is_dropped]
        return jobs if task is None else [job for job in jobs if job.is_of(task)]

    def assert_added(self, task: AnyTask, /, *args: Any, **kwargs: Any) -> RecordedJob:
        """Fail unless a job of a task was added; return the first one.

        Args:
            task: A task, a function, or the name of a task.
            *args: With which positional arguments; given as the app gives them, since
                ``send("ada")`` and ``send(to="ada")`` count as two calls.
            **kwargs: With which keyword arguments. With no arguments at all, a job with
                any will do.

        Raises:
            AssertionError: There is none; the message lists what was added.
        """
        __tracebackhide__ = True
        found = self._matching(task, args, kwargs)
        if not found:
            raise AssertionError(f"no job of {_name(task, args, kwargs)} was added; {self._all()}")
        return found[0]

    def assert_not_added(self, task: AnyTask, /, *args: Any, **kwargs: Any) -> None:
        """Fail if a job of a task was added; the arguments are those of `assert_added`.

        Raises:
            AssertionError: There is one.
        """
        __tracebackhide__ = True
        if self._matching(task, args, kwargs):
            raise AssertionError(f"a job of {_name(task, args, kwargs)} was added; {self._all()}")

    def assert_nothing_added(self) -> None:
        """Fail if any job was added.

        Raises:
            AssertionError: There is one.
        """
        __tracebackhide__ = True
        if self.added():
            raise AssertionError(f"no job was to be added; {self._all()}")

    def clear(self) -> None:
        """Forget all jobs so far; those that wait are not run any more."""
        self._store.forget()

    def _matching(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[RecordedJob]:
        jobs = self.added(task)
        return [job for job in jobs if job.has(args, kwargs)] if args or kwargs else jobs

    def _all(self) -> str:
        jobs = [entry.job for entry in self._store.entries()]
        if not jobs:
            return "nothing was added"
        lines = [
            f"\n  {job}" + (", but dropped with its response (run_on)" if job.is_dropped else "")
            for job in jobs
        ]
        return f"{len(jobs)} job(s) were added:{''.join(lines)}"

    # Running them.

    def run_at_once(self) -> None:
        """From now on, run jobs as they are added, after the response as ever (M4).

        A request's call returns when they have ended. Jobs that are put off, and retries, wait
        for the clock and for `drain`.
        """
        self._store.runs_at_once = True

    def record(self) -> None:
        """From now on, lay jobs aside again, for `drain` to run."""
        self._store.runs_at_once = False

    def drain(self, timeout: float = 30.0, *, raise_errors: bool = True) -> Drained:
        """Run the jobs that are due, one after another, until none is left.

        What they add is run too. They run in the app's event loop while that is running, as
        within a `TestClient` with its lifespan; else in a new one. ::

            background_tasks.drain()  # in a plain test
            await background_tasks.drain()  # in an async one

        Args:
            timeout: How long it may take, in seconds.
            raise_errors: Whether to raise what a job has failed with.

        Returns:
            The jobs that have run, some of which may wait for another attempt.

        Raises:
            JobFailed: A job has failed for good, since the last `drain`; the first one that
                has. The task's error is the cause.
            TimeoutError: It takes longer.
        """
        check_seconds("timeout", timeout)
        draining = Draining(self._store, timeout)
        drained = Drained(self, draining, raise_errors=raise_errors)
        if _is_in_loop():
            self._drains.append(drained)
        else:
            draining.run()
            drained.finish()
        return drained

    @contextlib.contextmanager
    def request(self) -> Generator[BackgroundTasks]:
        """Serve an imaginary request, for code that calls `asgi_bg.add_task` outside of any.

        So that a function can be tested by itself, and an app through a client that does not
        go by ASGI, such as Django's ``Client``::

            with background_tasks.request():
                register("ada")

        The request ends with the block, and if that raises, it has failed (M5).
        """
        tasks = BackgroundTasks(self._shelf)
        token = collecting.set(tasks)
        try:
            yield tasks
        except BaseException:
            self._end_request(tasks, is_kept=False)
            raise
        else:
            self._end_request(tasks, is_kept=True)
        finally:
            collecting.reset(token)

    def untold(self) -> list[RecordedJob]:
        """Return the jobs that have failed since this was asked last; for `Drained`."""
        ended = [entry for entry in self._store.entries() if entry.is_over and not entry.is_told]
        for entry in ended:
            entry.is_told = True
        return [entry.job for entry in ended if entry.job.status is JobStatus.failed]

    def _end_request(self, tasks: BackgroundTasks, *, is_kept: bool) -> None:
        for record in tasks.take() or ():
            entry = self._store.entry_of(record)
            if entry is None or entry.is_over:
                continue
            if is_kept or record.task.options.run_on == "always":
                self._store.hold(entry, self._store.wait_of(entry))
            else:
                entry.job.is_dropped = True
                self._shelf.withdraw(record, "dropped: its request has failed")
        tasks.seal()
        if self._store.runs_at_once and not _is_in_loop():
            Draining(self._store, 30.0).run()

    # Its end.

    def close(self) -> None:
        """Forget everything.

        Raises:
            AssertionError: A `drain` was to be awaited, and was not.
        """
        self._store.forget()
        forgotten = [drained for drained in self._drains if not drained.is_done]
        self._drains = []
        if forgotten:
            raise AssertionError(
                "background_tasks.drain() was called within an event loop and has run nothing; "
                "write: await background_tasks.drain()"
            )


class Drained(list[RecordedJob]):
    """The jobs that `TaskRecorder.drain` has run.

    Within an event loop it is to be awaited, which fills it and returns it.

    Attributes:
        is_done: Whether they have been run.
    """

    def __init__(self, recorder: TaskRecorder, draining: Draining, *, raise_errors: bool) -> None:
        super().__init__()
        self._recorder = recorder
        self._draining = draining
        self._raises = raise_errors
        self.is_done = False

    def __await__(self) -> Generator[Any, None, Drained]:
        if not self.is_done:
            self.is_done = True
            yield from self._draining.run_async().__await__()
            self.finish()
        return self

    def finish(self) -> None:
        """Fill it, and raise what a job has failed with."""
        __tracebackhide__ = True
        self.is_done = True
        self.extend(entry.job for entry in self._draining.ran)
        failed = self._recorder.untold()
        if self._raises and failed:
            failed[0].result()


@contextlib.contextmanager
def record_tasks() -> Generator[TaskRecorder]:
    """Record the background tasks of this process, as long as the block lasts.

    What the pytest fixture ``background_tasks`` does, for other test frameworks::

        with record_tasks() as background_tasks:
            client.post("/orders")
            background_tasks.assert_added(send_mail, "ada")

    Raises:
        RuntimeError: Somebody records already.
    """
    store = Store(Clock())
    seam = Seam(store)
    recorder = TaskRecorder(store)
    seam.open()
    try:
        yield recorder
    finally:
        seam.close()
        recorder.close()


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _name(task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    name = task if isinstance(task, str) else as_task(task).name
    return f"{name}{shown_call(args, kwargs)}" if args or kwargs else name
