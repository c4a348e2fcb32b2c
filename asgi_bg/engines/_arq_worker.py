"""Declared tasks in an ARQ worker: the functions that it calls, and what keeps their jobs safe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, overload

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix
from arq.jobs import Serializer, serialize_job
from arq.utils import to_unix_ms
from arq.worker import Function, Retry, func

from asgi_bg._job import job_extras
from asgi_bg._task import Task, declared_task
from asgi_bg.engines._arq_json import is_envelope
from asgi_bg.engines.base import Again, Envelope, Performer
from asgi_bg.exceptions import EngineError, JobFailed

__all__ = ["LEASES", "Functions", "Leases", "Roster", "cancelled"]

logger = logging.getLogger("asgi_bg")

CRASH_LIMIT = 3
"""Running in so many workers that died fails a job, as it does without an engine (J5)."""

LEASES = "asgi_bg_leases"
"""Where a worker's `Leases` are in its ``ctx``."""

MAX_TRIES = 2**31
"""How often ARQ may start a job of ours: it is the task's options that say when to give up."""

NO_LIMIT = 10.0 * 365 * 86400
"""How many seconds ARQ gives an attempt of ours: its time limit is the runner's to keep."""

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
            raise JobFailed(
                envelope["id"],
                name,
                f"the workers that ran it died {CRASH_LIMIT} times during it, so it is not run "
                "any more",
            )
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
        if not kwargs and is_envelope(args):
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


class Roster(Sequence[Function]):
    """The functions of ARQ workers: the user's own, and one for each declared task.

    It grows while tasks are declared. Each worker that goes through it gets functions of its
    own for those, as a limit is put on them before and another one after it was made.

    Args:
        functions: Makes them.
        own: Functions of ARQ's own.
        limit: How many seconds an attempt may take, of tasks that do not say; None for any.
    """

    def __init__(self, functions: Functions, own: Sequence[Any], limit: float | None) -> None:
        self._functions = functions
        self._own = [func(each) for each in own]
        self._limit = limit
        self._names: dict[str, None] = {}
        self._made: list[Function] = []

    def add(self, task: Task[..., Any]) -> None:
        """Take a declared task in.

        Raises:
            EngineError: A function of ARQ's own has its name.
        """
        if any(own.name == task.name for own in self._own):
            raise EngineError(
                f"the worker has an ARQ function called {task.name!r} already; "
                "give the declared task another name"
            )
        self._names[task.name] = None

    def __iter__(self) -> Iterator[Function]:
        yield from self._own
        for name in self._names:
            self._made.append(self._functions.of(name))
            yield self._made[-1]

    def __len__(self) -> int:
        return len(self._own) + len(self._names)

    @overload
    def __getitem__(self, index: int) -> Function: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Function]: ...
    def __getitem__(self, index: int | slice) -> Function | Sequence[Function]:
        return list(self)[index]

    def lift_limits(self) -> None:
        """Take ARQ's time limit off the jobs of declared tasks.

        ARQ takes the longest limit of all functions for how long a job counts as running, so
        this is for when a worker has done that.
        """
        made, self._made = self._made, []
        for function in made:
            self._lift_limit(function)

    def late(self, name: str) -> Function:
        """Return the function for a task that was declared when the worker had been made.

        Raises:
            KeyError: There is none of that name.
        """
        if name not in self._names:
            raise KeyError(name)
        function = self._functions.of(name)
        self._lift_limit(function)
        return function

    def _lift_limit(self, function: Function) -> None:
        task = declared_task(function.name)
        has_own = task is not None and task.options.timeout is not None
        function.timeout_s = NO_LIMIT if has_own or self._limit is None else self._limit


async def cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for their end, but not for long."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # which is nobody's any more
