"""For Litestar: a plugin, and a parameter of the handlers.

::

    app = Litestar([signup], plugins=[BackgroundTasksPlugin()])

Needs the extra ``asgi_bg[litestar]``, or a Litestar that is there anyway.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

from asgi_bg import _collector
from asgi_bg._options import check_run_on
from asgi_bg._runner import Runner, RunnerOptions, runner_from
from asgi_bg._supervision import Serving, Supervision
from asgi_bg._types import RunOn
from asgi_bg.exceptions import MiddlewareNotInstalled
from asgi_bg.middleware import BackgroundTaskMiddleware

try:
    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection
    from litestar.di import Provide
    from litestar.plugins import InitPlugin
    from litestar.types import ASGIApp, Scope
except ImportError as exc:
    raise ImportError(
        "asgi_bg.litestar needs Litestar 2.15 or newer; install it with: "
        "pip install 'asgi_bg[litestar]'"
    ) from exc

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "BackgroundTasks",
    "BackgroundTasksPlugin",
    "get_runner",
    "init_app",
    "tasks_from",
]

if TYPE_CHECKING:
    BackgroundTasks: TypeAlias = _collector.BackgroundTasks
    """The collector of the request, as the annotation of the parameter ``background_tasks`` of
    a handler or of a dependency, HTTP or websocket; it does not show in the OpenAPI schema.
    Without `BackgroundTasksPlugin` the application does not start, and says which handler
    lacks it."""
else:
    try:
        from litestar.di import NamedDependency
    except ImportError:  # before Litestar 2.23, where its forerunner is deprecated
        from litestar.params import Dependency

        BackgroundTasks = Annotated[_collector.BackgroundTasks, Dependency(skip_validation=True)]
    else:
        BackgroundTasks = NamedDependency[_collector.BackgroundTasks]


class BackgroundTasksPlugin(InitPlugin):
    """Runs the tasks that an application's handlers queue, after their responses.

    Its middleware is the outermost of the application's own. The runner starts before
    everything that the application opens, and drains before any of it is closed (R6).

    Attributes:
        runner: The runner that runs the jobs.

    Args:
        runner: The runner that runs the jobs; one is made if there is none.
        run_on: Which responses run their jobs; see `BackgroundTaskMiddleware`.
        dependency: The name of the parameter that gives handlers the collector; None for
            no such parameter.
        **runner_options: The arguments of the `Runner` that is made.

    Raises:
        TypeError: Both a runner and options for one are given.
        ValueError: An option's value does not fit; or, when the application is made, it has
            a dependency of that name already.
    """

    def __init__(
        self,
        *,
        runner: Runner | None = None,
        run_on: RunOn = "response",
        dependency: str | None = "background_tasks",
        **runner_options: Unpack[RunnerOptions],
    ) -> None:
        check_run_on(run_on)
        self._run_on: RunOn = run_on
        self.runner = runner_from(runner, runner_options)
        self._dependency = dependency
        self._serving = Serving()
        self._supervision = _Managers(self.runner, self._serving)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add middleware, lifespan and dependency; Litestar calls this."""
        name = self._dependency
        if name is not None:
            if name in app_config.dependencies:
                raise ValueError(
                    f"the application has a dependency {name!r} already; choose another name "
                    "with BackgroundTasksPlugin(dependency=...)"
                )
            app_config.dependencies[name] = Provide(_collector_of, sync_to_thread=False)
        app_config.middleware.insert(0, self.wrap)
        cast("Any", app_config).lifespan.insert(0, self._supervision.started)
        app_config.state.asgi_bg_runner = self.runner
        return app_config

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return a part of the application with `BackgroundTaskMiddleware` around it."""
        wrapped = BackgroundTaskMiddleware(app, runner=self.runner, run_on=self._run_on)
        # A shutdown waits for the requests of all routes, each of which has one of its own.
        wrapped.serving = self._serving
        return cast("ASGIApp", wrapped)

    def install(self, app: Litestar) -> None:
        """Do for an application that is made what `on_app_init` does, but for the parameter."""
        app.asgi_handler = self.wrap(app.asgi_handler)
        _managers_of(app).insert(0, self._supervision.started)
        app.state.asgi_bg_runner = self.runner


def init_app(
    app: Litestar,
    *,
    runner: Runner | None = None,
    run_on: RunOn = "response",
    **runner_options: Unpack[RunnerOptions],
) -> Runner:
    """Add `BackgroundTaskMiddleware` to an application that is made, and return its runner.

    Where you make the application yourself, take `BackgroundTasksPlugin`: this comes too late
    to give handlers the collector as a parameter. They use `tasks_from`, or
    `asgi_bg.add_task`.

    Args:
        app: An application that has not been started yet.
        runner: The runner that runs the jobs; one is made if there is none.
        run_on: Which responses run their jobs; see `BackgroundTaskMiddleware`.
        **runner_options: The arguments of the `Runner` that is made.
    """
    plugin = BackgroundTasksPlugin(runner=runner, run_on=run_on, **runner_options)
    plugin.install(app)
    return plugin.runner


def get_runner(app: Litestar) -> Runner:
    """Return the runner of an application that has the plugin, or was given to `init_app`.

    Raises:
        MiddlewareNotInstalled: It has no runner.
    """
    runner = app.state.get("asgi_bg_runner")
    if not isinstance(runner, Runner):
        raise MiddlewareNotInstalled(
            "this application has no runner; make it with "
            "Litestar(..., plugins=[BackgroundTasksPlugin()]), or call init_app(app) first"
        )
    return runner


def tasks_from(request: ASGIConnection[Any, Any, Any, Any]) -> _collector.BackgroundTasks:
    """Return the collector of a request or websocket.

    Raises:
        MiddlewareNotInstalled: No `BackgroundTaskMiddleware` serves it.
    """
    return _collector.BackgroundTasks.from_scope(request.scope)


def _collector_of(scope: Scope) -> _collector.BackgroundTasks:
    return _collector.BackgroundTasks.from_scope(scope)


class _Managers:
    """A supervision as two of Litestar's lifespan managers.

    Litestar lets nobody between itself and the server's lifespan messages.
    """

    def __init__(self, runner: Runner, serving: Serving) -> None:
        self._supervision = Supervision(runner, serving)

    @asynccontextmanager
    async def started(self, app: Litestar) -> AsyncGenerator[None, None]:
        """Start the runner before everything else, and close it after everything else."""
        # Last: behind what other plugins and Litestar itself (its stores) have added since.
        managers = _managers_of(app)
        if self.drained in managers:
            managers.remove(self.drained)
        managers.append(self.drained)
        try:
            await self._supervision.start()
            yield
        finally:
            await self._supervision.close()

    @asynccontextmanager
    async def drained(self, app: Litestar) -> AsyncGenerator[None, None]:
        """Wait for requests and jobs before anything is closed; cancel the rest."""
        yield
        await self._supervision.drain()


def _managers_of(app: Litestar) -> list[Any]:
    """Return the lifespan managers of an application, in the order of their entering.

    There is no public way to add one to an application that is made, nor to one that is
    being made behind those that Litestar adds itself.
    """
    return cast("list[Any]", cast("Any", app)._lifespan_managers)  # noqa: SLF001 - see above
