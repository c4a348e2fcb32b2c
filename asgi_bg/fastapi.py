"""For FastAPI: change one import.

::

    from asgi_bg.fastapi import BackgroundTasks  # instead of: from fastapi import ...

Needs the extra ``asgi_bg[fastapi]``, or a FastAPI that is there anyway.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from asgi_bg import _collector

try:
    from fastapi import Depends
    from fastapi.requests import HTTPConnection
except ImportError as exc:
    raise ImportError(
        "asgi_bg.fastapi needs FastAPI; install it with: pip install 'asgi_bg[fastapi]'"
    ) from exc

from asgi_bg.starlette import get_runner, init_app, tasks_from

__all__ = ["BackgroundTasks", "get_runner", "init_app", "tasks_from"]


async def _collector_of(connection: HTTPConnection) -> _collector.BackgroundTasks:
    return tasks_from(connection)


BackgroundTasks: TypeAlias = Annotated[_collector.BackgroundTasks, Depends(_collector_of)]
"""The collector of the request, as the annotation of a parameter of an endpoint or of a
dependency, HTTP or websocket; it does not show in the OpenAPI schema."""
