"""For Quart: install the middleware, and reach the tasks of the request being served.

Needs the extra ``asgi_bg[quart]``, or a Quart that is there anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from asgi_bg import _collector
from asgi_bg._job import Job
from asgi_bg._runner import Runner, RunnerOptions
from asgi_bg._task import P
from asgi_bg._types import RunOn
from asgi_bg.exceptions import MiddlewareNotInstalled
from asgi_bg.middleware import BackgroundTaskMiddleware

try:
    from quart import Quart, Request, Websocket
except ImportError as exc:
    raise ImportError(
        "asgi_bg.quart needs Quart; install it with: pip install 'asgi_bg[quart]'"
    ) from exc

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BackgroundTasks", "get_runner", "init_app", "tasks_from"]

_EXTENSION = "asgi_bg"


def init_app(
    app: Quart,
    *,
    runner: Runner | None = None,
    run_on: RunOn = "response",
    **runner_options: Unpack[RunnerOptions],
) -> Runner:
    """Wrap an application's ``asgi_app`` in `BackgroundTaskMiddleware`, and return its runner.

    The runner starts before the application's ``before_serving`` functions, and drains before
    its ``after_serving`` functions (R6).

    Args:
        app: An application that has not been started yet.
        runner: The runner that runs the jobs; one is made if there is none.
        run_on: Which responses run their jobs; see `BackgroundTaskMiddleware`.
        **runner_options: The arguments of the `Runner` that is made.
    """
    middleware = BackgroundTaskMiddleware(
        app.asgi_app, runner=runner, run_on=run_on, **runner_options
    )
    app.asgi_app = cast("Any", middleware)  # type: ignore[method-assign] # as Quart says
    app.extensions[_EXTENSION] = middleware.runner
    return middleware.runner


def get_runner(app: Quart) -> Runner:
    """Return the runner of an application that `init_app` has set up.

    Raises:
        MiddlewareNotInstalled: It has not.
    """
    runner = app.extensions.get(_EXTENSION)
    if not isinstance(runner, Runner):
        raise MiddlewareNotInstalled(
            "this application has no runner; call init_app(app) first, or keep the runner that "
            "you gave to BackgroundTaskMiddleware"
        )
    return runner


def tasks_from(request: Request | Websocket) -> _collector.BackgroundTasks:
    """Return the collector of a request or websocket.

    Args:
        request: Quart's ``request`` or ``websocket``.

    Raises:
        MiddlewareNotInstalled: No `BackgroundTaskMiddleware` serves it.
    """
    return _collector.BackgroundTasks.from_scope(cast("Mapping[str, Any]", request.scope))


class BackgroundTasks:
    """The collector of the request being served, whichever that is.

    Like Quart's own ``request``, one object does for all requests: make it where you like,
    once at the top of a module or in every handler. Each use finds the request of its caller,
    and raises `MiddlewareNotInstalled` where none is being served, or `init_app` was not
    called. The length and the iteration are those of the jobs that wait for the response.
    """

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> _collector.BackgroundTasks:
        """Return the collector of the request that has this scope.

        Raises:
            MiddlewareNotInstalled: There is none in it.
        """
        return _collector.BackgroundTasks.from_scope(scope)

    def add_task(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Queue a call of ``func``; as `asgi_bg.add_task`."""
        return _collector.add_task(func, *args, **kwargs)

    def __len__(self) -> int:
        return len(_current())

    def __bool__(self) -> bool:
        # Without this, `if tasks:` would ask for a request.
        return True

    def __iter__(self) -> Iterator[Job]:
        return iter(_current())


def _current() -> _collector.BackgroundTasks:
    try:
        return _collector.collecting.get()
    except LookupError:
        raise MiddlewareNotInstalled(
            "no request is being served here; call init_app(app), and use this in a request"
        ) from None
