"""New jobs of declared tasks, on their way into the journal (J1)."""

from __future__ import annotations

import asyncio
from types import MethodType
from typing import Any

from asgi_bg._collector import BackgroundTasks
from asgi_bg._ids import new_id
from asgi_bg._job import Job
from asgi_bg._keeping.archive import Archive, KeptJob
from asgi_bg._keeping.claims import Claims
from asgi_bg._origin import written as write_origin
from asgi_bg._record import JobRecord, Kept, kept_of
from asgi_bg._registry import Registry
from asgi_bg._rows import changes_of
from asgi_bg._task import Task
from asgi_bg.engines._link import Link
from asgi_bg.engines.base import NativeTask
from asgi_bg.exceptions import JournalError, NotSerializable
from asgi_bg.journal._receipts import Receipt
from asgi_bg.journal._writer import Writer
from asgi_bg.journal.base import Journal, NewJob
from asgi_bg.journal.codec import codec_of


class Saving(Receipt):
    """A receipt for the jobs of a response.

    Attributes:
        records: The jobs.
    """

    __slots__ = ("records",)

    def __init__(
        self, jobs: list[NewJob], records: list[JobRecord], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(jobs, loop)
        self.records = records


class Saver:
    """Has the jobs of collectors written.

    Args:
        journal: The journal.
        writer: Who writes to it.
        registry: The jobs that this process knows.
        archive: Answers questions about all that are kept.
        claims: Whether anybody runs jobs, and those that are claimed.
        held: The jobs that this process holds, by id.
        ordered: Whether the jobs of one request go one after another.
        link: The way to the engine that the jobs are handed over to, if there is one.
    """

    def __init__(
        self,
        journal: Journal,
        writer: Writer,
        registry: Registry,
        archive: Archive,
        claims: Claims,
        held: dict[str, JobRecord],
        *,
        ordered: bool,
        link: Link | None,
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._registry = registry
        self._archive = archive
        self._claims = claims
        self._held = held
        self._ordered = ordered
        self._link = link

    def keep(self, record: JobRecord, declared: Task[..., Any] | None) -> JobRecord | Job:
        """Make a new record one that is kept; return it, or the job that has its key.

        The job runs with the arguments as they come back from the journal, now and after
        a crash.

        Raises:
            NotSerializable: An argument cannot be written down, or there is too much of it.
        """
        task = record.task
        call = self.write_call(record)
        record.kept = Kept(call, changes_of(task, declared))
        key = task.options.key
        if key is not None:
            holder = self._registry.hold_key(key, record)
            is_over = holder is not record and holder.finished_at is not None
            if is_over and self._journal.holder_of(key) is None:  # purged
                self._registry.free_key(holder)
                holder = self._registry.hold_key(key, record)
            if holder is not record:
                return holder
            if not self._claims:
                self._registry.free_key(record)
                raise JournalError("the runner was closed, and keeps no more jobs")
            self._archive.is_open.wait()  # some milliseconds, before the first job of a process
            former = self._journal.holder_of(key)
            if former is not None:
                self._registry.free_key(record)
                return self._registry.known(former) or KeptJob(self._archive, former, task.name)
        record.become(new_id(record.queued_at))
        self._held[record.id] = record
        return record

    def write_call(self, record: JobRecord) -> str:
        """Return the call of a record as JSON, and give it the arguments that come back."""
        task = record.task
        if isinstance(task.func, MethodType):
            raise NotSerializable(
                f"task {task.name} is bound to an object, of type "
                f"{type(task.func.__self__).__qualname__}, that the journal cannot keep; make it "
                "a function that is given plain data, or declare it with durable=False"
            )
        if isinstance(task, NativeTask) and self._link is not None:
            call = self._link.engine.encode_native(task.name, record.args, record.kwargs)
        else:
            call, record.args, record.kwargs = codec_of(task).encode(record.args, record.kwargs)
        if len(call) > self._journal.max_payload:
            raise NotSerializable(
                f"the arguments of task {task.name} take {len(call)} bytes as JSON, and the "
                f"limit is {self._journal.max_payload} (max_payload=); store large data "
                "elsewhere, and give the task its name"
            )
        return call

    def save(self, tasks: BackgroundTasks, loop: asyncio.AbstractEventLoop) -> Saving:
        """Have the new jobs of a collector written; the receipt tells when they are (J1)."""
        records = [record for record in tasks.take_unsaved() if record.finished_at is None]
        saving = Saving(self._new_jobs(tasks, records), records, loop)
        if not self._claims:
            saving.error = JournalError("the runner was closed, and keeps no more jobs")
            return saving
        self._writer.add(saving)
        return saving

    def save_late(self, tasks: BackgroundTasks) -> None:
        """Have the new jobs of a collector written that no response waits for."""
        records = [record for record in tasks.take_unsaved() if record.finished_at is None]
        if records:
            self._writer.add_late(self._new_jobs(tasks, records))

    def _new_jobs(self, tasks: BackgroundTasks, records: list[JobRecord]) -> list[NewJob]:
        jobs: list[NewJob] = []
        for record in records:
            kept = kept_of(record)
            kept.is_told = True
            priority = record.task.options.priority
            origin = record.origin()
            after = None
            if tasks.former is not None:
                # It cannot go before that one, so it must not stand in front of it.
                after, former_priority = tasks.former
                priority = min(priority, former_priority)
            if self._ordered:
                tasks.former = (record.id, priority)
            jobs.append(
                NewJob(
                    record.id,
                    record.task_name,
                    kept.call,
                    kept.options,
                    record.queued_at,
                    record.run_after,
                    priority,
                    record.task.options.key,
                    after,
                    True,
                    None if origin is None else write_origin(origin),
                )
            )
        return jobs
