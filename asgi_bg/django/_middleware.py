"""Django's middleware for requests that come by no ASGI server: tests and WSGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, cast

from asgiref.sync import AsyncToSync, iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from asgi_bg._collector import SCOPE_KEY
from asgi_bg._types import Scope
from asgi_bg.django._places import RequestThread
from asgi_bg.django._served import Served, portal, within
from asgi_bg.django._setup import discover, has_tasks

__all__ = ["BackgroundTasksMiddleware"]

GetResponse = Callable[[HttpRequest], Any]


class BackgroundTasksMiddleware:
    """Gives requests a collector that do not come through `init_app`'s application.

    Those are the requests of Django's test clients, and of a WSGI server as ``runserver`` is
    one. Put it first in ``MIDDLEWARE``::

        MIDDLEWARE = ["asgi_bg.django.BackgroundTasksMiddleware", ...]

    Requests that `init_app` serves pass untouched. The jobs of the others run when Django
    closes the response, which a WSGI server asks for once it is sent, and inside that call
    (R7): the test client returns when they have ended. Plain functions run in the request's
    own thread, so that they share the connection, and the transaction of a ``TestCase``.

    Args:
        get_response: The next middleware, or the view.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        discover()
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        if has_tasks(request):
            return self._get_response(request)
        return self._serve_async(request) if self._is_async else self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        thread = RequestThread()
        served = Served(_scope_of(request), thread)
        served.call = portal.start(served.run())
        tasks = request.META[SCOPE_KEY] = served.collector.result()
        with within(tasks, thread):
            try:
                response: HttpResponseBase = self._get_response(request)
            except BaseException as exc:
                served.fail(exc)
                raise
        served.respond(response.status_code)
        served.promised.result()
        served.follow(response)
        return response

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        # With a sync caller above, as a test's, its thread is where the ORM is used.
        thread: Executor | None = getattr(AsyncToSync.executors, "current", None)
        served = Served(getattr(request, "scope", None) or _scope_of(request), thread)
        running = asyncio.get_running_loop().create_task(served.run())
        running.add_done_callback(served.ended)
        with within(await asyncio.wrap_future(served.collector), thread):
            try:
                response = await cast("Awaitable[HttpResponseBase]", self._get_response(request))
            except BaseException as exc:
                served.fail(exc)
                raise
        served.respond(response.status_code)
        await asyncio.wrap_future(served.promised)
        served.follow(response)
        return response


def _scope_of(request: HttpRequest) -> Scope:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
    ]
    return {
        "type": "http",
        "method": request.method or "GET",
        "path": request.path,
        "headers": headers,
    }
