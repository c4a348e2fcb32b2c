"""The middleware: watches a response go by, and hands its jobs over when it has ended."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from asgi_bg._collector import SCOPE_KEY, BackgroundTasks, collecting
from asgi_bg._lane import Lane, rule_of
from asgi_bg._lifespan import Lifespan, Serving
from asgi_bg._response import Response
from asgi_bg._runner import Runner
from asgi_bg._scheduler import Scheduler
from asgi_bg._task import check_run_on
from asgi_bg._types import AnyASGIApp, ASGIApp, Receive, RunOn, Scope, Send

__all__ = ["BackgroundTaskMiddleware"]

RETURN_TIMEOUT = 5.0
"""How many seconds after the last message jobs start though the app has not returned (M4)."""


class BackgroundTaskMiddleware:
    """Runs the tasks that a request queues, after its response has ended.

    Wrap any ASGI application, anywhere in its stack::

        app = BackgroundTaskMiddleware(app)

    Inside, ``scope["asgi_bg"]`` holds the request's `BackgroundTasks`, and
    `asgi_bg.add_task` finds it from any depth. Messages pass through untouched, in order
    and undelayed (M2).

    Guarantees: the jobs of a request start once its response has ended and the app has
    returned (M4), whatever the client does (M6). Where the server speaks lifespan, they
    outlive the request and are drained at shutdown (R6); elsewhere they run inside the
    request's own ASGI call (R7).

    Args:
        app: The ASGI application.
        runner: The runner that runs the jobs; one is made if there is none.
        run_on: Which responses run their jobs: ``"response"``, any that ended;
            ``"success"``, a status below 400; ``"always"``, also where the app failed (M5).
        **runner_options: The arguments of the `Runner` that is made.

    Raises:
        TypeError: The app is no callable, or both a runner and options for one are given.
        ValueError: An option's value does not fit.
    """

    def __init__(
        self,
        app: AnyASGIApp,
        *,
        runner: Runner | None = None,
        run_on: RunOn = "response",
        **runner_options: Any,
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be an ASGI application, got {app!r}")
        if runner is not None and runner_options:
            raise TypeError(
                f"give either runner= or its options, got both: {', '.join(runner_options)}; "
                "pass the options to the Runner"
            )
        if runner is not None and not isinstance(runner, Runner):
            raise TypeError(f"runner must be an asgi_bg.Runner, got {runner!r}")
        check_run_on(run_on)
        self.app = cast("ASGIApp", app)
        self.runner = Runner(**runner_options) if runner is None else runner
        self.run_on: RunOn = run_on
        self._serving = Serving()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await Lifespan(self.runner, self._serving, scope, receive, send).run(self.app)
            return
        scheduler = self.runner.scheduler()
        outer = scope.get(SCOPE_KEY)
        if kind not in ("http", "websocket") or (
            outer is not None and cast("BackgroundTasks", outer).is_of(scheduler)
        ):
            await self.app(scope, receive, send)
            return
        tasks = BackgroundTasks(scheduler)
        exchange = _Exchange(receive, send, tasks, scheduler, self)
        scope[SCOPE_KEY] = tasks
        token = collecting.set(tasks)
        is_dropped = False
        self._serving.count += 1
        try:
            await self.app(scope, exchange.receive, exchange.send)
            if exchange.accepted:
                exchange.app_returned()
        except GeneratorExit:
            # The server has thrown the call away (granian, at shutdown): no loop is left.
            is_dropped = True
            raise
        finally:
            collecting.reset(token)
            if outer is not None:
                scope[SCOPE_KEY] = outer
            lane = None if is_dropped else exchange.hand_over()
            exchange.leave()
            if lane is not None and not scheduler.is_supervised:
                await lane.finished()


class _Exchange(Response):
    """One request and its response: the collector, and the way of its jobs to the runner."""

    __slots__ = (
        "_ended_at",
        "_is_served",
        "_lane",
        "_middleware",
        "_scheduler",
        "_tasks",
        "_timer",
    )

    def __init__(
        self,
        receive: Receive,
        send: Send,
        tasks: BackgroundTasks,
        scheduler: Scheduler,
        middleware: BackgroundTaskMiddleware,
    ) -> None:
        super().__init__(receive, send)
        self._tasks = tasks
        self._scheduler = scheduler
        self._middleware = middleware
        self._is_served = False
        self._lane: Lane | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended_at = 0.0

    def on_end(self) -> None:
        """Give the app its time to return; the clock runs only where there are jobs."""
        self._ended_at = self._scheduler.loop.time()
        if len(self._tasks):
            self._await_return()
        else:
            self._tasks.listener = self._added_late

    def _added_late(self) -> None:
        self._scheduler.call(self._await_return)

    def _await_return(self) -> None:
        if self._timer is None and self._lane is None:
            self._timer = self._scheduler.loop.call_at(
                self._ended_at + RETURN_TIMEOUT, self._start_jobs
            )

    def _start_jobs(self) -> None:
        """Start the jobs of an app that has not returned."""
        self._timer = None
        if self.ended and self._lane is None:
            self._lane = self._open_lane()
            self._lane.start()
            self.leave()

    def hand_over(self) -> Lane | None:
        """Hand the jobs over, now that the app has returned; None if there are none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # A request must leave no reference cycle: collecting those of many requests is what
        # makes the slowest ones slow. So neither listener nor lane stays with us.
        lane, self._lane = self._lane, None
        if lane is None:
            self._tasks.listener = None
            if self._tasks.seal():
                return None
            lane = self._open_lane()
        lane.complete()
        return lane

    def _open_lane(self) -> Lane:
        rule = rule_of(self.permits, self._middleware.run_on)
        return self._middleware.runner.open_lane(self._tasks, rule)

    def leave(self) -> None:
        """Count the request as served; once."""
        if not self._is_served:
            self._is_served = True
            self._middleware._serving.leave()
