"""SAQ as an engine: the whole of it, in less than eighty lines."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from saq import Job, Queue, Status

from asgi_bg import JobStatus
from asgi_bg.engines import Again, Engine, Envelope, Message, Report
from asgi_bg.engines.worker import Worker

STATUS = {
    Status.NEW: JobStatus.queued,
    Status.QUEUED: JobStatus.queued,
    Status.ACTIVE: JobStatus.running,
    Status.ABORTING: JobStatus.running,
    Status.ABORTED: JobStatus.cancelled,
    Status.FAILED: JobStatus.failed,
    Status.COMPLETE: JobStatus.succeeded,
}


class SaqEngine(Engine):
    """Hands jobs over to SAQ. A job that is sent twice is there once, by its key."""

    name = "saq"
    supports = frozenset(("delay", "results", "retries", "timeout"))

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        self.timeout = timeout
        self.queue = Queue.from_url(url)
        self.worker = Worker(self)

    async def open(self) -> None:
        await self.queue.connect()

    async def close(self) -> None:
        await self.queue.disconnect()

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        await asyncio.gather(*(self.queue.enqueue(self.job_of(message)) for message in messages))
        return [None] * len(messages)

    def job_of(self, message: Message) -> Job:
        limit = message.options.timeout
        return Job(
            message.task,
            {"envelope": message.envelope},
            key=message.id,
            scheduled=math.ceil(message.run_after or 0),
            retries=message.options.retries + 1,
            timeout=0 if limit is None else math.ceil(limit) + 5,  # ours ends it before
        )

    async def fetch(self, id: str) -> Report | None:
        job = await self.queue.job(id)
        if job is None:
            return None
        error = job.error.strip().splitlines()[-1] if job.error else None
        status = STATUS[job.status]
        return Report(status=status, attempt=job.attempts, result=job.result, error=error)

    def function(self, name: str) -> tuple[str, Any]:
        """Return a declared task as a function of SAQ's worker."""

        async def perform(ctx: dict[str, Any], *, envelope: Envelope) -> Any:
            job = ctx["job"]
            try:
                return await self.worker.perform(name, envelope, job.attempts)
            except Again as again:
                job.retry_delay = again.delay
                raise again.error from None
            except Exception:
                job.retries = job.attempts  # it has failed for good
                raise

        return name, perform
