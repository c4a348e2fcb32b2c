"""What is set up once for a process: the runner, and the application around Django's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.urls import get_resolver
from django.utils.module_loading import autodiscover_modules

from asgi_bg._collector import SCOPE_KEY, BackgroundTasks
from asgi_bg._options import check_run_on
from asgi_bg._runner import Runner, RunnerOptions, runner_from
from asgi_bg._types import AnyASGIApp, RunOn
from asgi_bg.django._connections import prepare
from asgi_bg.middleware import BackgroundTaskMiddleware

if TYPE_CHECKING:
    from typing_extensions import Unpack

SETTING = "ASGI_BG"

_KEYS = frozenset({"run_on", *RunnerOptions.__annotations__})


class _Process:
    """What this process has set up.

    Attributes:
        runner: The runner, once there is one.
        is_from_settings: Whether it was made of the settings, and goes when they change.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runner: Runner | None = None
        self.is_from_settings = False


_process = _Process()


def init_app(
    app: AnyASGIApp,
    *,
    runner: Runner | None = None,
    run_on: RunOn | None = None,
    **runner_options: Unpack[RunnerOptions],
) -> BackgroundTaskMiddleware:
    """Return Django's ASGI application with background tasks around it, for ``asgi.py``.

    The setting ``ASGI_BG``, a dictionary, may hold the same options; those given here come
    first. Database connections of jobs are closed as those of requests are. The module
    ``tasks`` of each installed app and the URL configuration are imported, so that the tasks
    declared there are known when the journal brings their jobs (J8).

    Args:
        app: What ``get_asgi_application()`` returned, or what was made around it.
        runner: The runner that runs the jobs, not used before; one is made if there is none.
        run_on: Which responses run their jobs; None for what the setting says, or
            ``"response"``. See `BackgroundTaskMiddleware`.
        **runner_options: The arguments of the `Runner` that is made.

    Raises:
        ImproperlyConfigured: The setting does not fit.
        RuntimeError: The runner has been used already.
        TypeError, ValueError: An argument does not fit.
    """
    discover()
    if runner is not None or runner_options:
        if runner is None:
            runner_options = cast("RunnerOptions", {**_options(), **runner_options})
        runner = runner_from(runner, runner_options)
        prepare(runner)
        with _process.lock:
            _process.runner, _process.is_from_settings = runner, False
    return BackgroundTaskMiddleware(app, runner=get_runner(), run_on=run_on or configured_run_on())


def get_runner() -> Runner:
    """Return the runner of this process: that of `init_app`, else one made of the settings.

    So there is one in management commands, in the shell and in tests, too.

    Raises:
        ImproperlyConfigured: The setting ``ASGI_BG`` does not fit.
    """
    with _process.lock:
        if _process.runner is None:
            try:
                made = Runner(**_options())
            except (TypeError, ValueError) as exc:
                raise ImproperlyConfigured(f"the setting {SETTING} does not fit: {exc}") from exc
            prepare(made)
            _process.runner, _process.is_from_settings = made, True
        return _process.runner


def tasks_from(request: HttpRequest) -> BackgroundTasks:
    """Return the collector of a request.

    Raises:
        MiddlewareNotInstalled: Neither `init_app` nor `BackgroundTasksMiddleware` serves it.
    """
    scope = getattr(request, "scope", None)
    return BackgroundTasks.from_scope(request.META if scope is None else scope)


def discover() -> None:
    """Import what declares tasks: Django itself imports it with the first request."""
    autodiscover_modules("tasks")
    if getattr(settings, "ROOT_URLCONF", None):
        _ = get_resolver().url_patterns


def has_tasks(request: HttpRequest) -> bool:
    """Whether somebody gathers the jobs of a request already."""
    return SCOPE_KEY in getattr(request, "scope", ())


def configured_run_on() -> RunOn:
    """Return which responses run their jobs, by the settings.

    Raises:
        ImproperlyConfigured: There is no such word.
    """
    run_on: Any = _configured().get("run_on", "response")
    try:
        check_run_on(run_on)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"the setting {SETTING} does not fit: {exc}") from exc
    return cast("RunOn", run_on)


def _options() -> RunnerOptions:
    options = {key: value for key, value in _configured().items() if key != "run_on"}
    return cast("RunnerOptions", options)


def _configured() -> dict[str, Any]:
    found: Any = getattr(settings, SETTING, {})
    if not isinstance(found, dict):
        raise ImproperlyConfigured(f"the setting {SETTING} must be a dictionary, got {found!r}")
    configured = cast("dict[str, Any]", found)
    unknown = configured.keys() - _KEYS
    if unknown:
        raise ImproperlyConfigured(
            f"unknown option {sorted(unknown)[0]!r} in the setting {SETTING}; "
            f"there are {', '.join(sorted(_KEYS))}"
        )
    return configured


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    """Make another runner where a test overrides the setting."""
    if setting == SETTING:
        with _process.lock:
            if _process.is_from_settings:
                _process.runner = None


setting_changed.connect(_on_setting_changed, dispatch_uid="asgi_bg")
