"""SAQ as an engine: the whole of it, in less than a hundred lines."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from saq import Job, Status
from saq.queue.redis import RedisQueue

from asgi_bg import JobStatus
from asgi_bg.engines import Again, Engine, Envelope, Message, Report
from asgi_bg.engines.worker import Worker

LOST = "its worker has died"
STATUSES = {Status.QUEUED: "queued", Status.COMPLETE: "succeeded", Status.ABORTED: "cancelled"}


class WorkerQueue(RedisQueue):
    """For SAQ's workers; with SAQ's own queue, what one has only just begun is taken for lost."""

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:
        if not await self.redis.set(self.namespace("sweep"), 1, ex=lock, nx=True):
            return []  # another worker does it
        before = {(job.key, job.touched) for job in await self.silent()}
        await asyncio.sleep(abort)  # a job is moved first, and noted as begun then
        lost = [job for job in await self.silent() if (job.key, job.touched) in before]
        for job in lost:
            job.scheduled = 0  # or SAQ would queue it twice
            await (job.retry(LOST) if job.retryable else job.finish(Status.FAILED, error=LOST))
        return [job.key for job in lost]

    async def silent(self) -> list[Job]:
        redis: Any = self.redis
        ids = await redis.lrange(self.namespace("active"), 0, -1)
        jobs = await self.jobs(self.job_key_from_id(key.decode()) for key in ids) if ids else []
        return [job for job in jobs if job and (job.status != Status.ACTIVE or job.stuck)]


class SaqEngine(Engine):
    """A job whose worker is silent for ``lease`` seconds is run by another one."""

    name = "saq"
    supports = frozenset(("delay", "results", "retries", "timeout"))

    def __init__(self, url: str, *, timeout: float = 5.0, lease: int = 30) -> None:
        self.url, self.timeout, self.lease = url, timeout, lease
        self.worker, self.queue = Worker(self), RedisQueue.from_url(url)

    async def open(self) -> None:
        await self.close()  # also what an event loop has left that has ended
        self.queue = RedisQueue.from_url(self.url)
        await self.queue.version()  # asks the server

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.queue.redis.aclose(close_connection_pool=True)

    async def send(self, messages: Sequence[Message]) -> Sequence[str | None]:
        batch = RedisQueue(self.queue.redis)
        async with self.queue.redis.pipeline(transaction=False) as batch.redis:
            for message in messages:
                job = Job(message.task, {"envelope": message.envelope}, key=message.id, timeout=0)
                job.heartbeat, job.retries = self.lease, message.options.retries + 3  # for deaths
                job.scheduled = int(message.run_after or -1) + 1  # SAQ knows whole seconds
                await batch.enqueue(job)  # into the pipeline
            await batch.redis.execute()
        return [None] * len(messages)

    async def fetch(self, id: str) -> Report | None:
        if (job := await self.queue.job(id)) is None:
            return None
        status = JobStatus(STATUSES.get(job.status, "failed" if job.completed else "running"))
        error = job.error.strip().splitlines()[-1] if job.error else None
        return Report(status=status, attempt=job.attempts, result=job.result, error=error)

    async def run(self, ctx: dict[str, Any], *, envelope: Envelope) -> Any:
        """Run one attempt; SAQ's workers are given ``(task.name, engine.run)`` for each task."""
        job: Job = ctx["job"]
        job.scheduled = 0  # or SAQ would queue a retry without delay twice
        attempt = asyncio.ensure_future(self.worker.perform(job.function, envelope, job.attempts))
        try:
            while not (await asyncio.wait((attempt,), timeout=self.lease / 3))[0]:
                await job.update()  # its heart beats
            return attempt.result()
        except Again as again:
            job.retry_delay = again.delay
            raise again.error from None
        except Exception:
            job.retries = job.attempts  # it has failed for good
            raise
        finally:
            attempt.cancel()
            await asyncio.wait((attempt,))
