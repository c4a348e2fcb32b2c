"""The dashboard: what runs, what has failed and why, and what can be done about it.

Needs the extra ``asgi_bg[web]``.
"""

from __future__ import annotations

import logging
from typing import Any

# The first of these says what to install where something is missing.
from asgi_bg.web._access import Access, Authorize  # isort: skip

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, Router

from asgi_bg._runner import Runner
from asgi_bg._types import Message, Receive, Scope, Send
from asgi_bg.exceptions import JobNotFound, JournalError
from asgi_bg.web._actions import VISITOR, Actions
from asgi_bg.web._leaving import Sender
from asgi_bg.web._live import EventStream, Watches
from asgi_bg.web._panels import JobPanel, ListPanel, OverviewPanel, Panel
from asgi_bg.web._query import (
    SPANS,
    BadQuery,
    digest_of,
    id_of,
    search_of,
    seconds_of,
)
from asgi_bg.web._render import HEADERS, Rendering

logger = logging.getLogger("asgi_bg")

_SPAN = 3600


class Dashboard:
    """Shows the jobs of a runner to people, as an ASGI app to mount where you like (W1).

    Everything that shares the runner's journal is shown, also the jobs of other processes. ::

        app.mount("/jobs", Dashboard(runner, authorize=staff_only))

    Guarantees: nothing is shown or done without authorisation; actions are refused to other
    sites; everything shown is escaped; while nobody looks, nothing is asked of the journal.

    Args:
        runner: Whose jobs are shown; the application's middleware has the same one.
        authorize: Called with each `starlette.requests.Request`, may be async. False, None and
            the like are answered by 403; a `starlette.responses.Response` is sent as it is, such
            as a redirect to a login; anything else is who it is, whose ``str()`` the log of
            actions names. None serves clients of this machine only, and none through a proxy.

    Raises:
        TypeError: The runner is none, or ``authorize`` cannot be called.
    """

    def __init__(self, runner: Runner, *, authorize: Authorize | None = None) -> None:
        if not isinstance(runner, Runner):
            raise TypeError(f"runner must be an asgi_bg.Runner, got {runner!r}")
        self._runner = runner
        self._access = Access(authorize)
        self._rendering = Rendering()
        self._watches = Watches()
        actions = Actions(runner, self._rendering)
        both = ["GET", "POST"]
        self._router = Router(
            [
                Route("/", self._overview),
                Route("/list", self._list),
                Route("/job/{id}", self._job),
                Route("/job/{id}/retry", actions.retry, methods=both),
                Route("/job/{id}/cancel", actions.cancel, methods=both),
                Route("/retry-failed", actions.retry_failed, methods=both),
                Route("/purge", actions.purge, methods=both),
                Route("/live/overview", self._live_overview),
                Route("/live/list", self._live_list),
                Route("/live/job/{id}", self._live_job),
                Route("/static/{name}", self._static),
            ],
            redirect_slashes=False,
            default=_nothing,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; what is no request is turned away."""
        if scope["type"] == "lifespan":
            await _live_idly(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            sender = Sender(send)
            try:
                await self._serve(scope, receive, sender)
            except Exception:
                if not sender.has_left:
                    raise

    async def _serve(self, scope: Scope, receive: Receive, send: Sender) -> None:
        visitor = await self._access.visitor(Request(scope, receive))
        if isinstance(visitor, Response):
            await visitor(scope, receive, send)
            return
        answer = _Answer(send)
        # With handlers of errors of an application around this one, its pages would be shown,
        # and without an "app" Starlette's router would answer by itself.
        inner: Scope = {
            **scope,
            "app": self,
            "starlette.exception_handlers": ({}, {}),
            VISITOR: visitor,
        }
        try:
            await self._router(inner, receive, answer.send)
        except Exception as exc:
            if send.has_left:
                raise
            status = _status_of(exc)
            if isinstance(exc, JournalError):
                logger.error("dashboard: the jobs cannot be shown or changed now: %s", exc)
            elif status == 500:
                logger.exception("dashboard: a page could not be shown")
            if not answer.has_started:
                await self._error(inner, status, exc)(inner, receive, answer.send)

    def _error(self, scope: Scope, status: int, exc: Exception) -> Response:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        # For a browser an encoded slash begins no folder, and too many "../" lead out of here.
        encoded = (scope.get("raw_path") or b"").lower().count(b"%2f")
        depth = max(0, path.count("/") - encoded - 1)
        response = self._rendering.page("error.html", depth, status, status=status)
        if isinstance(exc, HTTPException) and exc.headers:
            response.headers.update(exc.headers)
        return response

    async def _overview(self, request: Request) -> Response:
        panel = self._overview_panel(request)
        return await self._page("overview.html", request, panel, 0, spans=SPANS)

    async def _list(self, request: Request) -> Response:
        search = search_of(request.query_params)
        panel = ListPanel(self._runner, self._rendering, search)
        return await self._page("list.html", request, panel, 0, search=search)

    async def _job(self, request: Request) -> Response:
        job = id_of(request.path_params["id"])
        panel = JobPanel(self._runner, self._rendering, job)
        return await self._page("job.html", request, panel, 1, id=job)

    async def _page(
        self, template: str, request: Request, panel: Panel, depth: int, **values: Any
    ) -> Response:
        state = await panel.state()
        return self._rendering.page(
            template,
            depth,
            state=state,
            notice=_notice_of(request),
            query=request.query_params,
            **values,
        )

    async def _live_overview(self, request: Request) -> Response:
        return self._stream(request, self._overview_panel(request))

    async def _live_list(self, request: Request) -> Response:
        search = search_of(request.query_params)
        return self._stream(request, ListPanel(self._runner, self._rendering, search))

    async def _live_job(self, request: Request) -> Response:
        job = id_of(request.path_params["id"])
        return self._stream(request, JobPanel(self._runner, self._rendering, job))

    def _stream(self, request: Request, panel: Panel) -> Response:
        if not self._watches.has_room_for(panel):
            raise HTTPException(503, headers={"retry-after": "10"})
        told = request.headers.get("last-event-id") or request.query_params.get("state", "")
        return EventStream(self._watches, panel, digest_of(told))

    def _overview_panel(self, request: Request) -> Panel:
        query = request.query_params
        seconds = seconds_of(query, "seconds", SPANS) if "seconds" in query else _SPAN
        return OverviewPanel(self._runner, self._rendering, seconds)

    async def _static(self, request: Request) -> Response:
        response = self._rendering.static(request.path_params["name"])
        if response is None:
            raise HTTPException(404)
        return response


class _Answer:
    """Sends an answer with the headers that all have, and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *extra]}
        await self._send(message)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    root = scope.get("root_path", "")
    if root and scope["path"] == root:
        # Asked for without the slash at its end, from which all links are relative.
        await RedirectResponse(f"./{root.rpartition('/')[2]}/", 308)(scope, receive, send)
        return
    raise HTTPException(404)


async def _live_idly(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _status_of(exc: Exception) -> int:
    match exc:
        case HTTPException():
            return exc.status_code
        case JobNotFound():
            return 404
        case BadQuery():
            return 400
        case JournalError():
            return 503
        case _:
            return 500


def _notice_of(request: Request) -> dict[str, Any] | None:
    """Return what was just done. Only words of ours are shown: a link can say anything."""
    done = request.query_params.get("done")
    if done is None:
        return None
    number = request.query_params.get("n", "")
    is_number = number.isascii() and number.isdigit() and len(number) < 12
    return {"done": done, "n": int(number) if is_number else None}
