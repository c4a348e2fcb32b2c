"""The status API: what a client needs to follow its own job, and nothing else (W2).

Needs the extra ``asgi_bg[web]``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from asgi_bg._runner import Runner
from asgi_bg._types import Receive, Scope, Send
from asgi_bg.exceptions import JournalError
from asgi_bg.web._ending import lasting
from asgi_bg.web._following import Follower, Following
from asgi_bg.web._leaving import Sender
from asgi_bg.web._openapi import document
from asgi_bg.web._state import JobState, state_of

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as exc:
    raise ImportError(
        "asgi_bg.web needs Starlette; install it with: pip install 'asgi_bg[web]'"
    ) from exc

if TYPE_CHECKING:
    from starlette.types import ExceptionHandler

__all__ = ["Authorize", "JobStatusApp"]

logger = logging.getLogger("asgi_bg")

Authorize: TypeAlias = Callable[[Request, str], "bool | Awaitable[bool]"]

WAIT_LIMIT: Final = 60.0
"""For how many seconds a request may wait, at most."""

HEARTBEAT: Final = 15.0
"""After how many seconds without an event a stream shows that it lives."""

EVENT_INTERVAL: Final = 0.1
"""How many seconds lie between two events of a stream, at least."""

STREAM_LIMIT: Final = 60.0
"""How many seconds a stream lasts, at most; browsers connect again, and go on where they were."""

RETRY_DELAY: Final = 1.0
"""After how many seconds a browser connects again, when a stream was interrupted."""

_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_QUALITY = re.compile(r";\s*q=([0-9.]+)\s*$")
_HEADERS = {
    "cache-control": "no-store",
    "vary": "Accept",
    "x-content-type-options": "nosniff",
}


class JobStatusApp:
    """Lets clients follow their jobs; an ASGI application to mount.

    ::

        app = Starlette(routes=[Mount("/jobs", JobStatusApp(runner))])

    ``GET /{id}`` answers JSON: id, status, progress, message, the three instants, and the
    result once there is one; no arguments, no error, no names. ``?wait=SECONDS`` makes it a
    long poll, ``Accept: text/event-stream`` a stream with an event for every change.
    ``GET /openapi.json`` describes all of it.

    Who knows a job's id may follow it: ids cannot be guessed.

    Guarantees: a client that waits costs no thread, and one that has disconnected nothing.
    Jobs of other processes that share the journal are followed like those of this one. An
    unknown id, a malformed one and one that is not allowed are answered alike.

    Args:
        runner: Whose jobs.
        authorize: Called with the request and the job's id, if there are more conditions;
            returns, or awaits, whether the client may follow that job. A plain function is
            called in a thread. It may raise Starlette's `HTTPException` for an answer of its
            own.

    Raises:
        TypeError: An argument is none of that.
    """

    def __init__(self, runner: Runner, *, authorize: Authorize | None = None) -> None:
        if not isinstance(runner, Runner):
            raise TypeError(f"runner must be an asgi_bg.Runner, got {runner!r}")
        if authorize is not None and not callable(authorize):
            raise TypeError(
                f"authorize must be a function of a request and a job's id, got {authorize!r}"
            )
        self._runner = runner
        self._authorize = authorize
        self._followings: dict[asyncio.AbstractEventLoop, Following] = {}
        handlers = {HTTPException: _refused, JournalError: _unavailable, Exception: _failed}
        self._app = Starlette(
            routes=[Route("/openapi.json", _describe), Route("/{id}", self._show)],
            exception_handlers=cast("Mapping[type[Exception], ExceptionHandler]", handlers),
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        sender = Sender(send)
        try:
            await self._app(scope, receive, sender)
        except Exception:
            if not sender.has_left:
                raise

    async def _show(self, request: Request) -> Response:
        wait = _wait_of(request)
        job_id: str = request.path_params["id"]
        if not _ID.fullmatch(job_id) or not await self._is_allowed(request, job_id):
            raise HTTPException(404)
        if request.method != "HEAD":
            if _is_stream_preferred(request.headers.get("accept", "")):
                return _Stream(self, job_id, request.headers.get("last-event-id"))
            if wait and "*" not in _tags_known(request):
                return _answer(request, await self._changed(request, job_id, wait))
        return _answer(request, await self._state(job_id))

    async def _is_allowed(self, request: Request, id: str) -> bool:
        authorize = self._authorize
        if authorize is None:
            return True
        if inspect.iscoroutinefunction(authorize):
            return bool(await authorize(request, id))
        allowed = await run_in_threadpool(authorize, request, id)
        return bool(await allowed if inspect.isawaitable(allowed) else allowed)

    async def _state(self, id: str) -> JobState | None:
        job = (await self._runner.infos((id,))).get(id)
        return None if job is None else state_of(job)

    async def _changed(self, request: Request, id: str, wait: float) -> JobState | None:
        """Wait until a job has ended, or is no longer as the client knows it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + lasting(wait)
        with self.follow(id, request.receive) as follower:
            state = await follower.first()
            known = _tags_known(request)
            while state is not None and not state.is_final and not follower.is_over:
                left = deadline - loop.time()
                if left <= 0 or (known and state.tag not in known):
                    break
                await follower.pause(left)
                state = follower.state
            return state

    def follow(self, id: str, receive: Receive) -> Follower:
        """Return a follower of a job, to be used in a ``with``; for streams."""
        loop = asyncio.get_running_loop()
        following = self._followings.get(loop)
        if following is None:
            # Loops come and go in tests; nobody follows on those that are gone.
            self._followings = {
                loop: other for loop, other in self._followings.items() if not other.is_idle
            }
            following = self._followings[loop] = Following(self._runner)
        return Follower(following, id, receive)


class _Stream(Response):
    """The states of a job as server-sent events, until it has ended."""

    def __init__(self, app: JobStatusApp, id: str, last: str | None) -> None:
        super().__init__(
            headers={**_HEADERS, "x-accel-buffering": "no"}, media_type="text/event-stream"
        )
        # It is not known how long it will be.
        del self.headers["content-length"]
        self._app = app
        self._id = id
        self._last = last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._app.follow(self._id, receive) as follower:
            state = await follower.first()
            if state is None:
                raise HTTPException(404)
            if state.is_final and state.tag == self._last:
                # With this answer a browser stops connecting again.
                await Response(status_code=204, headers=_HEADERS)(scope, receive, send)
                return
            try:
                await send(
                    {
                        "type": "http.response.start",
                        "status": 200,
                        "headers": self.raw_headers,
                    }
                )
                await _send_part(send, b"retry: %d\n\n" % (RETRY_DELAY * 1000))
                await self._send_events(follower, send)
                if not follower.has_left:
                    await send({"type": "http.response.body", "body": b""})
            except OSError:
                return  # what servers raise when the client has left

    async def _send_events(self, follower: Follower, send: Send) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + lasting(STREAM_LIMIT)
        while True:
            state = follower.state
            if state is None:
                return  # purged; the answer to the next request will be 404
            is_new = state.tag != self._last
            if is_new:
                self._last = state.tag
                await _send_part(send, b"id: %b\ndata: %b\n\n" % (state.tag.encode(), state.body))
            if state.is_final or follower.is_over:
                return
            if is_new:
                await asyncio.sleep(EVENT_INTERVAL)
            left = end - loop.time()
            if left <= 0:
                return
            if not await follower.pause(min(left, HEARTBEAT)):
                await _send_part(send, b":\n\n")


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


def _wait_of(request: Request) -> float:
    """Return how long a request is to wait, in seconds.

    Raises:
        HTTPException: It does not say so; the text is for the client.
    """
    values = request.query_params.getlist("wait")
    if not values:
        return 0.0
    if len(values) > 1:
        raise HTTPException(400, "wait must be given once; leave out all but one")
    text = values[0]
    seconds = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not seconds >= 0:
        raise HTTPException(
            400, f"wait must be a number of seconds, 0 or more, got {text[:50]!r}; try wait=30"
        )
    return min(seconds, WAIT_LIMIT)


def _is_stream_preferred(accept: str) -> bool:
    """Whether a client names the stream's type, and does not like JSON as much."""
    quality = {"text/event-stream": 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        kind = part.partition(";")[0].strip()
        if kind in quality:
            found = _QUALITY.search(part)
            try:
                quality[kind] = float(found[1]) if found else 1.0
            except ValueError:
                return False
    return quality["text/event-stream"] > quality["application/json"]


def _tags_known(request: Request) -> set[str]:
    """Return the tags of the states that a client says it knows; ``*`` is any."""
    text = request.headers.get("if-none-match", "")
    return {tag.strip().removeprefix("W/").strip('"') for tag in text.split(",") if tag.strip()}


def _answer(request: Request, state: JobState | None) -> Response:
    if state is None:
        raise HTTPException(404)
    headers = {**_HEADERS, "etag": f'"{state.tag}"'}
    if not {state.tag, "*"}.isdisjoint(_tags_known(request)):
        return Response(status_code=304, headers=headers)
    return Response(state.body, headers=headers, media_type="application/json")


async def _describe(request: Request) -> Response:
    return _json(document(request.scope.get("root_path", "") or "/"), 200)


def _json(value: object, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(value),
        status,
        headers={**_HEADERS, **(headers or {})},
        media_type="application/json",
    )


async def _refused(request: Request, exc: HTTPException) -> Response:
    text = "there is no such job" if exc.status_code == 404 else exc.detail
    return _json({"error": text}, exc.status_code, exc.headers)


async def _unavailable(request: Request, exc: JournalError) -> Response:
    logger.error("the status of a job cannot be told: %s", exc)
    return _json({"error": "not available now; try again later"}, 503, {"retry-after": "1"})


async def _failed(request: Request, exc: Exception) -> Response:
    # Starlette raises it again for the server's log.
    return _json({"error": "internal error"}, 500)
