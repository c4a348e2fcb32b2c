"""What can be done to jobs: asked for on a page, confirmed, checked, logged with who did it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from asgi_bg._job import JobInfo
from asgi_bg._runner import Runner
from asgi_bg.web import _query
from asgi_bg.web._access import named
from asgi_bg.web._render import Rendering
from asgi_bg.web._tokens import give_token, is_own, token_of

logger = logging.getLogger("asgi_bg")

PATIENCE = 10.0
"""How many seconds an answer waits for an action that takes long, which then goes on."""

VISITOR = "asgi_bg.visitor"
"""Where in the scope the name of who asks is."""


class Actions:
    """The pages that change something.

    Args:
        runner: Whose jobs they change.
        rendering: Makes HTML.
    """

    def __init__(self, runner: Runner, rendering: Rendering) -> None:
        self._runner = runner
        self._rendering = rendering
        self._going_on: set[asyncio.Task[int]] = set()

    async def retry(self, request: Request) -> Response:
        """Queue one job again."""
        return await self._one(request, "retry", self._runner.retry)

    async def cancel(self, request: Request) -> Response:
        """Cancel one job."""
        return await self._one(request, "cancel", self._runner.cancel)

    async def retry_failed(self, request: Request) -> Response:
        """Queue all failed jobs again, of one task or of all."""
        if request.method != "POST":
            task = _query.text_of(request.query_params, "task", _query.NAME_LIMIT)
            return self._ask(request, "retry-failed", fields={"task": task})
        form = await self._checked(request)
        task = _query.text_of(form, "task", _query.NAME_LIMIT)
        of = f"of task {named(task)}" if task else "of all tasks"
        return await self._many(
            request,
            "retry-failed",
            f"retry of all failed jobs {of}",
            lambda: self._runner.retry_failed(task or None),
        )

    async def purge(self, request: Request) -> Response:
        """Forget the jobs that have ended, by how and when."""
        if request.method != "POST":
            return self._ask(request, "purge", ages=_query.AGES)
        form = await self._checked(request)
        status = _query.status_of(form.get("status", ""))
        if status is not None and not status.is_final:
            raise _query.BadQuery
        age = _query.seconds_of(form, "older_than", _query.AGES)
        which = "all ended" if status is None else status.value
        return await self._many(
            request,
            "purge",
            f"purge of {which} jobs that ended at least {age} s ago",
            lambda: self._runner.purge(status=status, older_than=age),
        )

    async def _one(
        self, request: Request, name: str, act: Callable[[str], Awaitable[JobInfo]]
    ) -> Response:
        job = _query.id_of(request.path_params["id"])
        if request.method != "POST":
            return self._ask(request, name, depth=2, job=await self._runner.info(job))
        await self._checked(request)
        _log(f"{name} of job %s by %s", job, request.scope[VISITOR], job=job)
        try:
            await act(job)
        except ValueError:  # it has moved on since the page was shown
            return _back(f"../{job}", done="refused")
        return _back(f"../{job}", done=name)

    async def _many(
        self, request: Request, name: str, what: str, act: Callable[[], Awaitable[int]]
    ) -> Response:
        who = request.scope[VISITOR]
        _log("%s by %s", what, who)
        going = asyncio.ensure_future(_counted(act, what, who))
        # It must not end half done because the browser was closed.
        self._going_on.add(going)
        going.add_done_callback(self._going_on.discard)
        done, _ = await asyncio.wait((going,), timeout=PATIENCE)
        if not done:
            return _back("./", done="goes-on")
        return _back("./", done=name, n=going.result())

    def _ask(self, request: Request, action: str, depth: int = 0, **values: Any) -> Response:
        token = token_of(request)
        values = {"fields": {}, "job": None, **values}
        response = self._rendering.page("confirm.html", depth, action=action, token=token, **values)
        give_token(response, request, token)
        return response

    async def _checked(self, request: Request) -> dict[str, str]:
        form = await _query.form_of(request)
        if not is_own(request, form):
            logger.warning(
                "dashboard: refused a form that was not sent from its own page, for %s",
                request.scope[VISITOR],
            )
            raise HTTPException(403)
        return form


async def _counted(act: Callable[[], Awaitable[int]], what: str, who: str) -> int:
    try:
        count = await act()
    except Exception:
        logger.exception("dashboard: %s by %s failed", what, who)
        raise
    _log("%s by %s is done: %d jobs", what, who, count)
    return count


def _log(text: str, *values: object, job: str | None = None) -> None:
    # A warning, as a log without settings shows no less, and this is to be found in it.
    extra = {} if job is None else {"asgi_bg_job_id": job}
    logger.warning(f"dashboard: {text}", *values, extra=extra)


def _back(where: str, **notice: object) -> Response:
    return RedirectResponse(f"{where}?{urlencode(notice)}", 303, {"cache-control": "no-store"})
