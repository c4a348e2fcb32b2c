"""The settings of ARQ's workers, for ``arq module.WorkerSettings`` and for the app's own one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from arq.connections import RedisSettings
from arq.worker import Worker as ArqWorker

from asgi_bg._options import check_count
from asgi_bg._task import Task
from asgi_bg.engines._arq_jobs import Keeping, milliseconds
from asgi_bg.engines._arq_line import Target, connect, twin_of
from asgi_bg.engines._arq_roster import Roster
from asgi_bg.engines._arq_worker import LEASES, Functions, Leases
from asgi_bg.engines.base import each_declared
from asgi_bg.engines.worker import Worker
from asgi_bg.events import Events

__all__ = ["Plan", "Planner"]

KEEP_RESULT = 3600.0
"""For how many seconds ARQ keeps a result, unless it is told otherwise."""

OUR_OPTIONS = frozenset(
    ("job_deserializer", "job_serializer", "redis_pool", "redis_settings", "retry_jobs")
)
"""Those arguments of `arq.worker.Worker` that are the engine's to give."""

Hook = Callable[[dict[Any, Any]], Awaitable[Any]]


class Plan(NamedTuple):
    """How workers are made.

    Attributes:
        roster: Their functions.
        values: The arguments of `arq.worker.Worker`.
        keep_result: For how many milliseconds they keep a result; None for ever.
    """

    roster: Roster
    values: dict[str, Any]
    keep_result: int | None


class Planner:
    """Makes settings of workers.

    Args:
        target: Where Redis is.
        keeping: How jobs are kept there.
        lease: For how many seconds a worker that is not heard of keeps its jobs.
        worker: Who runs the jobs of declared tasks.
        functions: Makes what ARQ calls for those.
    """

    def __init__(
        self, target: Target, keeping: Keeping, lease: float, worker: Worker, functions: Functions
    ) -> None:
        self._target = target
        self._keeping = keeping
        self._lease = lease
        self._worker = worker
        self._functions = functions

    def plan(
        self,
        tasks: Sequence[Task[..., Any]],
        functions: Sequence[Any],
        subscribers: Events,
        options: Mapping[str, Any],
    ) -> Plan:
        """Return the settings of workers; see `ArqEngine.worker_settings`."""
        _check_options(options)
        limit: float | timedelta | None = options.get("job_timeout")
        roster = Roster(
            self._functions, functions, None if limit is None else milliseconds(limit) / 1000
        )
        each_declared(tasks, roster.add)
        values: dict[str, Any] = {
            "queue_name": self._keeping.queue,
            "expires_extra_ms": self._keeping.expires,
            **options,
            "functions": roster,
            "job_serializer": self._keeping.serializer,
            "job_deserializer": self._keeping.deserializer,
            "on_startup": self._startup(roster, subscribers, options.get("on_startup")),
            "on_shutdown": self._shutdown(options.get("on_shutdown")),
        }
        if not functions and not options.get("cron_jobs"):
            # For so long ARQ takes a job for running until it is held; this is no limit then.
            values["job_timeout"] = self._lease
        if isinstance(self._target, RedisSettings):
            values["redis_settings"] = self._target
        else:
            values["redis_pool"] = self._keeping.by(twin_of(self._target))
        keep: float | timedelta = options.get("keep_result", KEEP_RESULT)
        is_kept = bool(options.get("keep_result_forever"))
        return Plan(roster, values, None if is_kept else milliseconds(keep))

    async def connected(self, plan: Plan) -> dict[str, Any]:
        """Return the settings for a worker in this event loop, connected to Redis.

        Raises:
            Exception: Redis cannot be reached now.
        """
        pool = self._keeping.by(await connect(self._target))
        values = {key: value for key, value in plan.values.items() if key != "redis_settings"}
        return {**values, "redis_pool": pool}

    def _startup(self, roster: Roster, subscribers: Events, users: Hook | None) -> Hook:
        async def startup(ctx: dict[Any, Any]) -> None:
            # Only now, as others may be for the workers of another queue.
            self._worker.subscribe(subscribers.handlers)
            roster.lift_limits()
            ctx[LEASES] = Leases(ctx["redis"], self._lease)
            if users is not None:
                await users(ctx)

        return startup

    def _shutdown(self, users: Hook | None) -> Hook:
        async def shutdown(ctx: dict[Any, Any]) -> None:
            try:
                await self._worker.aclose()
                if users is not None:
                    await users(ctx)
            finally:
                if LEASES in ctx:
                    await ctx.pop(LEASES).aclose()

        return shutdown


def _check_options(options: Mapping[str, Any]) -> None:
    known = inspect.signature(ArqWorker).parameters.keys()
    for name in options:
        if name in OUR_OPTIONS:
            raise TypeError(f"{name} is the engine's to give; give it to ArqEngine, or leave it")
        if name not in known:
            raise TypeError(
                f"arq.worker.Worker takes no {name!r}; it takes {', '.join(sorted(known))}"
            )
    if "max_jobs" in options:
        check_count("max_jobs", options["max_jobs"], least=1)
