"""Declared tasks in an ARQ worker: the functions that it calls, and what keeps their jobs safe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix
from arq.jobs import Serializer, serialize_job
from arq.utils import to_unix_ms
from arq.worker import Function, Retry, func

from asgi_bg._job import job_extras
from asgi_bg.engines._arq_json import is_ours
from asgi_bg.engines._failing import CRASH_LIMIT, POISONOUS
from asgi_bg.engines.base import Again, Envelope, Performer
from asgi_bg.exceptions import JobFailed

__all__ = ["CANCEL_TIMEOUT", "LEASES", "Functions", "Leases", "cancelled"]

logger = logging.getLogger("asgi_bg")

LEASES = "asgi_bg_leases"
"""Where a worker's `Leases` are in its ``ctx``."""

MAX_TRIES = 2**31
"""How often ARQ may start a job of ours: it is the task's options that say when to give up."""

CANCEL_TIMEOUT = 2.0
"""How many seconds jobs that are cancelled get to tell Redis that they are to be run again."""


class Leases:
    """Tells Redis which jobs are being run, as long as they are.

    ARQ marks a job for as long as the longest job may take, and a job of a worker that died
    waits for the end of that time. With leases it waits for a part of it, and a job that runs
    may take longer.

    Args:
        redis: A client.
        seconds: For how long a worker that is not heard of keeps its jobs.
    """

    def __init__(self, redis: ArqRedis, seconds: float) -> None:
        self._redis = redis
        self._seconds = seconds
        self._held: set[str] = set()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    @contextlib.asynccontextmanager
    async def held(self, id: str) -> AsyncGenerator[None, None]:
        """Hold a job, until the block ends."""
        self._held.add(id)
        try:
            # Before it begins, as it may be what its worker dies of.
            await self._renew((id,))
            yield
        finally:
            self._held.discard(id)

    async def aclose(self) -> None:
        """Let go of all."""
        await cancelled((self._keeping,))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 4)
            if self._held:
                await self._renew(tuple(self._held))

    async def _renew(self, ids: Sequence[str]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for job in ids:
                    pipe.pexpire(in_progress_key_prefix + job, int(self._seconds * 1000))
                await pipe.execute()
        except Exception as exc:
            # What was said before still counts; the next time may be in time.
            logger.debug("%d job(s) could not be held: %r", len(ids), exc)


class Functions:
    """Makes what ARQ calls for declared tasks.

    Args:
        performer: Who runs one attempt.
        write_call: Writes the arguments of a call as JSON.
        serializer: Writes jobs.
        expires: For how many milliseconds a job is kept, if no worker takes it.
    """

    def __init__(
        self,
        performer: Performer,
        write_call: Callable[[str, tuple[Any, ...], dict[str, Any]], str],
        serializer: Serializer,
        expires: int,
    ) -> None:
        self._performer = performer
        self._write_call = write_call
        self._serializer = serializer
        self._expires = expires

    def of(self, name: str) -> Function:
        """Return a new function to register with ARQ under the name of a task."""

        async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
            return await self._run(name, ctx, args, kwargs)

        return func(run, name=name, max_tries=MAX_TRIES)

    async def _run(
        self, name: str, ctx: dict[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        envelope = self._envelope(name, ctx, args, kwargs)
        # A worker's end is no failure of the task, so ARQ's own count is not the task's.
        attempt = envelope.get("attempt", 1)
        crashes = ctx["job_try"] - envelope.get("job_try", 1)
        if crashes >= CRASH_LIMIT:
            raise JobFailed(envelope["id"], name, POISONOUS)
        try:
            async with ctx[LEASES].held(envelope["id"]):
                return await self._performer.perform(name, envelope, attempt)
        except Again as again:
            await self._note(name, ctx, envelope, attempt + 1, again.delay)
            raise Retry(defer=again.delay) from again.error
        except asyncio.CancelledError:
            # If ARQ has it run again, this was not one of the worker's crashes.
            await asyncio.shield(self._note_calmly(name, ctx, envelope, attempt))
            raise

    def _envelope(
        self, name: str, ctx: dict[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Envelope:
        if not kwargs and is_ours(args):
            return dict(args[0])
        # Somebody else has enqueued it, by its name.
        call = self._write_call(name, args, kwargs)
        return {"id": ctx["job_id"], "call": call, "options": None}

    async def _note_calmly(
        self, name: str, ctx: dict[Any, Any], envelope: Envelope, attempt: int
    ) -> None:
        try:
            await self._note(name, ctx, envelope, attempt, 0.0)
        except Exception as exc:
            logger.debug(
                "what becomes of job %s could not be noted: %r",
                envelope["id"],
                exc,
                extra=job_extras(envelope["id"], name),
            )

    async def _note(
        self, name: str, ctx: dict[Any, Any], envelope: Envelope, attempt: int, delay: float
    ) -> None:
        """Have the job itself say which attempt comes next, and keep it for as long as it takes."""
        job_try = ctx["job_try"] + 1
        noted = {**envelope, "attempt": attempt, "job_try": job_try}
        data = serialize_job(
            name,
            (noted,),
            {},
            job_try,
            to_unix_ms(ctx["enqueue_time"]),
            serializer=self._serializer,
        )
        keep = int(delay * 1000) + self._expires
        await ctx["redis"].set(job_key_prefix + envelope["id"], data, px=keep, xx=True)


async def cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for their end, but not for long."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # which is nobody's any more
