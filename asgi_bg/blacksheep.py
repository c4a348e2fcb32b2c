"""For BlackSheep: install the middleware, and reach a request's tasks.

Needs the extra ``asgi_bg[blacksheep]``, or a BlackSheep that is there anyway.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from asgi_bg._collector import SCOPE_KEY, BackgroundTasks
from asgi_bg._runner import Runner, RunnerOptions, runner_from
from asgi_bg._types import Message, Receive, RunOn, Scope, Send
from asgi_bg.exceptions import MiddlewareNotInstalled
from asgi_bg.middleware import BackgroundTaskMiddleware

try:
    from blacksheep import Application, Request, Response, WebSocket
    from blacksheep.server.bindings import Binder
except ImportError as exc:
    raise ImportError(
        "asgi_bg.blacksheep needs BlackSheep; install it with: pip install 'asgi_bg[blacksheep]'"
    ) from exc

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BackgroundTasks", "get_runner", "init_app", "tasks_from"]


def init_app(
    app: Application,
    *,
    runner: Runner | None = None,
    run_on: RunOn = "response",
    **runner_options: Unpack[RunnerOptions],
) -> Runner:
    """Put background tasks around an application, and return its runner.

    The application stays the same object, extended by BlackSheep's own `extend`. Everything
    that it serves is covered, mounted applications too. The runner starts before the
    application does, and drains before ``on_stop`` (R6).

    Args:
        app: An application that has not served anything yet.
        runner: The runner that runs the jobs; one is made if there is none.
        run_on: Which responses run their jobs; see `BackgroundTaskMiddleware`.
        **runner_options: The arguments of the `Runner` that is made.
    """
    runner = runner_from(runner, runner_options)
    cast("Any", app).extend(_Mixin)
    extended = cast("_Mixin", app)
    extended.asgi_bg = BackgroundTaskMiddleware(extended.serve, runner=runner, run_on=run_on)
    return runner


def get_runner(app: Application) -> Runner:
    """Return the runner of an application that `init_app` has set up.

    Raises:
        MiddlewareNotInstalled: It has not.
    """
    middleware = getattr(app, "asgi_bg", None)
    if not isinstance(middleware, BackgroundTaskMiddleware):
        raise MiddlewareNotInstalled(
            "this application has no runner; call init_app(app) first, or keep the runner that "
            "you gave to BackgroundTaskMiddleware"
        )
    return middleware.runner


def tasks_from(request: Request | WebSocket) -> BackgroundTasks:
    """Return the collector of a request or websocket.

    Raises:
        MiddlewareNotInstalled: No `BackgroundTaskMiddleware` serves it.
    """
    return BackgroundTasks.from_scope(cast("Any", request).scope or {})


class _Mixin:
    """What `init_app` extends an application by; the outermost of such mixins."""

    asgi_bg: BackgroundTaskMiddleware

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.asgi_bg(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as the application does without this mixin."""
        await cast("Any", super()).__call__(scope, receive, send)

    def extend(self, mixin: type) -> None:
        """Extend the application by another mixin, which mounting an application does."""
        self.__class__ = type(self).__bases__[1]  # what this mixin was put in front of
        try:
            self.extend(mixin)
        finally:
            self.extend(_Mixin)

    async def handle(self, request: Request) -> Response:
        """Handle a request; one of BlackSheep's test client comes by no ASGI call (R7)."""
        handle = cast("Any", super()).handle
        scope: Any = request.scope or {"type": "http", "path": "", "headers": []}
        if SCOPE_KEY in scope:
            return cast("Response", await handle(request))
        responses: list[Response] = []

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            response = cast("Response", await handle(request))
            await send({"type": "http.response.start", "status": response.status, "headers": []})
            responses.append(response)
            await send({"type": "http.response.body", "body": b""})

        middleware = BackgroundTaskMiddleware(
            respond, runner=self.asgi_bg.runner, run_on=self.asgi_bg.run_on
        )
        await middleware(scope, _receive, _send)
        return responses[0]


class TasksBinder(Binder):
    """Gives a handler its request's tasks, for a parameter of the type `BackgroundTasks`."""

    type_alias = BackgroundTasks

    def __init__(self, implicit: bool = True) -> None:
        cast("Any", super()).__init__(BackgroundTasks, implicit=implicit)

    async def get_value(self, request: Request) -> BackgroundTasks:
        return tasks_from(request)


async def _receive() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def _send(message: Message) -> None:
    """Send nothing: the test client has the response."""
