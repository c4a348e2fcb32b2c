"""For Falcon: wrap the application, and reach a request's tasks.

Needs the extra ``asgi_bg[falcon]``, or a Falcon that is there anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from asgi_bg._collector import BackgroundTasks
from asgi_bg._runner import Runner, RunnerOptions, runner_from
from asgi_bg._types import RunOn
from asgi_bg.exceptions import MiddlewareNotInstalled
from asgi_bg.middleware import BackgroundTaskMiddleware

try:
    from falcon.asgi import App, Request
except ImportError as exc:
    raise ImportError(
        "asgi_bg.falcon needs Falcon; install it with: pip install 'asgi_bg[falcon]'"
    ) from exc

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BackgroundTasks", "get_runner", "init_app", "tasks_from"]


def init_app(
    app: App[Any, Any],
    *,
    runner: Runner | None = None,
    run_on: RunOn = "response",
    **runner_options: Unpack[RunnerOptions],
) -> BackgroundTaskMiddleware:
    """Return a Falcon application with background tasks around it, to be served in its place.

    Falcon's own middleware sees a response before it is sent, so none could tell when it has
    ended. Routes and middleware are added to the application itself, before or after this.

    Args:
        app: An application of ``falcon.asgi``.
        runner: The runner that runs the jobs; one is made if there is none.
        run_on: Which responses run their jobs; see `BackgroundTaskMiddleware`.
        **runner_options: The arguments of the `Runner` that is made.

    Raises:
        TypeError: It is an application of Falcon's for WSGI, or an argument does not fit.
    """
    if not isinstance(cast("object", app), App):
        raise TypeError(f"app must be a falcon.asgi.App, got {app!r}")
    return BackgroundTaskMiddleware(app, runner=runner_from(runner, runner_options), run_on=run_on)


def get_runner(app: BackgroundTaskMiddleware) -> Runner:
    """Return the runner of an application that `init_app` has returned.

    Raises:
        MiddlewareNotInstalled: It is not such a one.
    """
    if not isinstance(app, BackgroundTaskMiddleware):
        raise MiddlewareNotInstalled(
            "this application has no runner; give get_runner() what init_app(app) has returned"
        )
    return app.runner


def tasks_from(request: Request) -> BackgroundTasks:
    """Return the collector of a request or websocket.

    Raises:
        MiddlewareNotInstalled: `init_app` was not called, or the application is served that it
            was given instead of the one that it returned.
    """
    return BackgroundTasks.from_scope(request.scope)
