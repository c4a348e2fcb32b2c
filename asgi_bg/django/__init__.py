"""For Django: wrap the ASGI application, add tasks from views, async or not.

::

    # asgi.py
    application = init_app(get_asgi_application())

Needs the extra ``asgi_bg[django]``, or a Django that is there anyway.
"""

from __future__ import annotations

try:
    from asgi_bg.django._middleware import BackgroundTasksMiddleware
    from asgi_bg.django._served import collect_tasks
    from asgi_bg.django._setup import get_runner, init_app, tasks_from
except ModuleNotFoundError as exc:
    if exc.name is None or exc.name.partition(".")[0] != "django":
        raise
    raise ImportError(
        "asgi_bg.django needs Django; install it with: pip install 'asgi_bg[django]'"
    ) from exc

from asgi_bg._collector import BackgroundTasks

__all__ = [
    "BackgroundTasks",
    "BackgroundTasksMiddleware",
    "collect_tasks",
    "get_runner",
    "init_app",
    "tasks_from",
]
