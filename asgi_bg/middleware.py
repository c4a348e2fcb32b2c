"""The middleware: watches a response go by, and hands its jobs over when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from asgi_bg._collector import SCOPE_KEY, BackgroundTasks, collecting
from asgi_bg._lifespan import Lifespan
from asgi_bg._options import check_run_on
from asgi_bg._origin import Request
from asgi_bg._record import JobRecord
from asgi_bg._response import ENDED, FAILED, SUCCEEDED, Response
from asgi_bg._runner import Runner, RunnerOptions, runner_from
from asgi_bg._scheduling.lane import Gate, Lane
from asgi_bg._scheduling.scheduler import Scheduler
from asgi_bg._supervision import Serving
from asgi_bg._types import AnyASGIApp, ASGIApp, Receive, RunOn, Scope, Send
from asgi_bg.exceptions import EngineError, JournalError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from asgi_bg._keeping.saving import Saving

__all__ = ["BackgroundTaskMiddleware"]

_SERVED = frozenset({"http", "websocket"})


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
        **runner_options: Unpack[RunnerOptions],
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be an ASGI application, got {app!r}")
        check_run_on(run_on)
        self.app = cast("ASGIApp", app)
        self.run_on: RunOn = run_on
        self.runner = runner_from(runner, runner_options)
        self.gates: dict[frozenset[RunOn], Gate] = {
            permitted: (permitted, run_on) for permitted in (FAILED, ENDED, SUCCEEDED)
        }
        self.serving = Serving()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await Lifespan(self.runner, self.serving, scope, receive, send).run(self.app)
            return
        scheduler = self.runner.scheduler()
        outer: BackgroundTasks | None = scope.get(SCOPE_KEY)
        if kind not in _SERVED or (outer is not None and outer.is_of(scheduler)):
            await self.app(scope, receive, send)
            return
        tasks = BackgroundTasks(scheduler)
        exchange = _Exchange(scope, receive, send, tasks, scheduler, self)
        scope[SCOPE_KEY] = tasks
        token = collecting.set(tasks)
        serving = self.serving
        serving.count += 1
        is_dropped = False
        try:
            await self.app(scope, exchange.receive, exchange.send)
            if exchange.accepted:
                exchange.app_returned()
        except GeneratorExit:
            # The server has thrown the call away (granian, at shutdown): no loop is left.
            is_dropped = True
            raise
        finally:
            if not is_dropped:  # or this is not the context that it was set in
                collecting.reset(token)
            if outer is not None:
                scope[SCOPE_KEY] = outer
            lane = None
            if is_dropped:
                exchange.drop_all()
            elif tasks.listener is exchange and tasks.seal():
                tasks.listener = None  # the way of most requests: nobody runs anything
            else:
                lane = exchange.hand_over()
            if not exchange.has_left:
                serving.count -= 1
            if lane is not None and not scheduler.is_supervised:
                await lane.finished()
                await scheduler.forwarded()


class _Exchange(Response):
    """One request and its response, and the way of its jobs to the runner.

    The collector in the scope leads here only until the app has returned: the server's
    call holds the scope, this holds the server's `send`, and with a reference cycle in
    every request the garbage collector makes the slowest requests four times slower.

    Attributes:
        has_left: Whether it no longer counts as being served, though the app has not
            returned.
    """

    __slots__ = (
        "_is_awaited",
        "_is_over",
        "_lane",
        "_middleware",
        "_receipts",
        "_scheduler",
        "_scope",
        "_tasks",
        "has_left",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        tasks: BackgroundTasks,
        scheduler: Scheduler,
        middleware: BackgroundTaskMiddleware,
    ) -> None:
        # What the constructor of `Response` does, without the call: every request pays here.
        self._scope = scope
        self._receive = receive
        self._send = send
        self._trailers = self.ended = self.client_left = False
        self.accepted = self.is_watched = self.is_held = False
        self.status = None
        self._tasks = tasks
        self._scheduler = scheduler
        self._middleware = middleware
        self._is_awaited = self._is_over = False
        self._lane: Lane | None = None
        self._receipts: tuple[Saving, ...] = ()
        self.has_left = False
        tasks.listener = self

    def job_added(self) -> None:
        """Watch for the end of the response, as there is something to do after it."""
        self.is_watched = True
        if self._tasks.unsaved is not None:
            self.is_held = True
        if self.ended:
            self._scheduler.call(self._await_return)

    def request(self) -> Request:
        """Return what the collector may know of this request."""
        return Request(self._scope)

    async def hold(self) -> None:
        """Wait until the journal has what was added, before a message goes on (J1).

        Every message of this response that comes meanwhile waits here too.

        Raises:
            JournalError, EngineError: It cannot be written, or handed over. The jobs are
                dropped, as nothing may be promised now (J2).
        """
        while self.is_held:
            if self._tasks.unsaved is not None:
                self._drop_unwanted(self._tasks.unsaved)
                self._receipts = (*self._receipts, self._scheduler.save(self._tasks))
            if not self._receipts:
                self.is_held = False
                # Another thread may add one more at this moment.
                self.is_held = self._tasks.unsaved is not None
                continue
            receipt = self._receipts[0]
            try:
                await receipt.written()
            except (JournalError, EngineError) as exc:
                self._scheduler.refuse(receipt, str(exc))
                raise
            finally:
                if receipt.is_over:
                    self._receipts = tuple(r for r in self._receipts if r is not receipt)

    def _drop_unwanted(self, records: list[JobRecord]) -> None:
        """Drop jobs that the status is against (M5), before somebody else has them."""
        if self.status is not None and self.status >= 400:
            default = self._middleware.run_on
            unwanted = [r for r in records if (r.task.options.run_on or default) == "success"]
            if unwanted:
                self._scheduler.drop(unwanted)

    def on_end(self) -> None:
        """Give the app its time to return."""
        self._await_return()

    def _await_return(self) -> None:
        if not (self._is_awaited or self._is_over):
            self._is_awaited = True
            self._scheduler.returns.add(self)

    def expire(self) -> None:
        """Start the jobs of an app that has not returned in time (M4)."""
        if self.ended and self._lane is None and not self._is_over:
            self.has_left = True
            self._middleware.serving.count -= 1
            self._lane = self._open_lane()
            self._lane.pump()

    def hand_over(self) -> Lane:
        """Hand the jobs over, now that the app has returned."""
        self._is_over = True
        lane, self._lane = self._lane, None
        if lane is None:
            self._tasks.listener = None
            if self._is_awaited:
                self._scheduler.returns.discard(self)
            lane = self._open_lane()
        lane.is_complete = True
        self._scheduler.soon(lane)
        return lane

    def drop_all(self) -> None:
        """End the jobs that can no longer be run."""
        dropped = self._tasks.take()
        if dropped:
            self._scheduler.drop(dropped)

    def _open_lane(self) -> Lane:
        """Open a lane for the jobs; it keeps nothing of the request alive (M5)."""
        middleware = self._middleware
        gate = middleware.gates[self.permitted()]
        return Lane(self._scheduler, self._tasks, gate)
