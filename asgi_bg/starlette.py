"""For Starlette: install the middleware, reach a request's tasks, keep writing as before.

Needs the extra ``asgi_bg[starlette]``, or a Starlette that is there anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asgi_bg import _collector
from asgi_bg._job import Job
from asgi_bg._runner import Runner, RunnerOptions, runner_from
from asgi_bg._task import P
from asgi_bg._types import RunOn
from asgi_bg.exceptions import MiddlewareNotInstalled
from asgi_bg.middleware import BackgroundTaskMiddleware

try:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask as _StarletteTask
    from starlette.background import BackgroundTasks as _StarletteTasks
    from starlette.requests import HTTPConnection
except ImportError as exc:
    raise ImportError(
        "asgi_bg.starlette needs Starlette; install it with: pip install 'asgi_bg[starlette]'"
    ) from exc

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BackgroundTask", "BackgroundTasks", "get_runner", "init_app", "tasks_from"]


def init_app(
    app: Starlette,
    *,
    runner: Runner | None = None,
    run_on: RunOn = "response",
    **runner_options: Unpack[RunnerOptions],
) -> Runner:
    """Add `BackgroundTaskMiddleware` to an application, and return its runner.

    Args:
        app: A Starlette or FastAPI application that has not served anything yet.
        runner: The runner that runs the jobs; one is made if there is none.
        run_on: Which responses run their jobs; see `BackgroundTaskMiddleware`.
        **runner_options: The arguments of the `Runner` that is made.
    """
    runner = runner_from(runner, runner_options)
    app.add_middleware(BackgroundTaskMiddleware, runner=runner, run_on=run_on)
    app.state.asgi_bg_runner = runner
    return runner


def get_runner(app: Starlette) -> Runner:
    """Return the runner of an application that `init_app` has set up.

    Raises:
        MiddlewareNotInstalled: It has not.
    """
    runner = getattr(app.state, "asgi_bg_runner", None)
    if not isinstance(runner, Runner):
        raise MiddlewareNotInstalled(
            "this application has no runner; call init_app(app) first, or keep the runner that "
            "you gave to BackgroundTaskMiddleware"
        )
    return runner


def tasks_from(request: HTTPConnection) -> _collector.BackgroundTasks:
    """Return the collector of a request or websocket.

    Raises:
        MiddlewareNotInstalled: No `BackgroundTaskMiddleware` serves it.
    """
    return _collector.BackgroundTasks.from_scope(request.scope)


class BackgroundTasks(_StarletteTasks):
    """Starlette's class of this name, with this package behind it.

    Change the import and keep the code: make one, add tasks, give it to a response as
    ``background=``. The tasks go to the collector of the request being served at once, so
    they run whether or not a response carries this object. Each fails alone, and all run
    under the application's `Runner`.
    """

    def __init__(self) -> None:
        # Starlette runs what is in here itself, in the request: for us, nothing.
        super().__init__()

    def add_task(  # type: ignore[override] # Starlette's returns nothing
        self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job:
        """Queue a call of ``func``; as `asgi_bg.add_task`."""
        return _collector.add_task(func, *args, **kwargs)


class BackgroundTask(_StarletteTask):
    """Starlette's class of this name: one task, queued with the request that makes it.

    Attributes:
        job: The queued job.
    """

    def __init__(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        super().__init__(func, *args, **kwargs)
        self.job = _collector.add_task(func, *args, **kwargs)

    async def __call__(self) -> None:
        """Do nothing: the job runs after the response without being called."""
