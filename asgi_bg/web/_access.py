"""Who may come in, and as whom: `authorize=`, or loopback clients where there is none."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address
from typing import Any, TypeAlias

try:
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import Response
except ImportError as exc:
    raise ImportError(
        "asgi_bg.web needs Starlette and Jinja2; install them with: pip install 'asgi_bg[web]'"
    ) from exc

logger = logging.getLogger("asgi_bg")

NAME_LIMIT = 200
"""To how many characters the name of a visitor is shortened."""

Authorize: TypeAlias = "Callable[[Request], Any] | Callable[[Request], Awaitable[Any]]"

_FORWARDING = ("forwarded", "via", "x-real-ip")


class Access:
    """Decides who may come in.

    Args:
        authorize: Called with each request, also of the static files and the event streams. What
            it returns decides: false refuses, a `Response` is sent as it is, and anything else
            says who it is. None for loopback clients only.

    Raises:
        TypeError: It cannot be called.
    """

    def __init__(self, authorize: Authorize | None) -> None:
        if authorize is not None and not callable(authorize):
            raise TypeError(
                f"authorize must be a function of one request, got {authorize!r}; leave it out "
                "to serve loopback clients only"
            )
        self._authorize = authorize
        called = getattr(authorize, "__call__", None)  # noqa: B004 # of objects with an async one
        self._is_async = inspect.iscoroutinefunction(authorize) or inspect.iscoroutinefunction(
            called
        )
        self._has_told = False

    async def visitor(self, request: Request) -> str | Response:
        """Return who it is that asks, fit for a log; or what to answer instead."""
        if self._authorize is None:
            return self._loopback(request)
        try:
            answer = await self._ask(self._authorize, request)
        except Exception:
            logger.exception("dashboard: authorize failed, so nobody was let in")
            return refusal(500)
        if isinstance(answer, Response):
            return answer
        return named(answer) if answer else refusal(403)

    async def _ask(self, authorize: Authorize, request: Request) -> Any:
        # A plain function may ask a database, which must not hold up the event loop.
        if self._is_async:
            answer: Any = authorize(request)
        else:
            answer = await run_in_threadpool(authorize, request)
        return await answer if inspect.isawaitable(answer) else answer

    def _loopback(self, request: Request) -> str | Response:
        if is_from_loopback(request):
            return f"loopback client {request.client.host}" if request.client else "nobody"
        if not self._has_told:
            self._has_told = True
            logger.warning(
                "dashboard: refused a client that is not of this machine, or came through a "
                "proxy; to let others in, say who may with Dashboard(runner, authorize=...)"
            )
        return refusal(403)


def is_from_loopback(request: Request) -> bool:
    """Whether a request comes straight from this machine, for a name of this machine.

    Not if a proxy stands between, as then everybody comes from the proxy's address. One that adds
    no header may be known by its HTTP/1.0, which no browser speaks. And not if
    the page was opened by another name, which a stranger's domain may have been given to reach
    this address by way of the browser (DNS rebinding).
    """
    client = request.client
    return (
        client is not None
        and _is_loopback(client.host)
        and request.scope.get("http_version") != "1.0"
        and not any(
            name in _FORWARDING or name.startswith("x-forwarded-") for name in request.headers
        )
        and _is_name_of_loopback(request.headers.getlist("host"))
    )


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def _is_name_of_loopback(hosts: list[str]) -> bool:
    if len(hosts) != 1:
        return False
    host = hosts[0].lower()
    if host.startswith("["):
        name, end, rest = host[1:].partition("]")
        return bool(end) and (not rest or rest.startswith(":")) and _is_loopback(name)
    name = host.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def refusal(status: int) -> Response:
    """Return an answer that tells nothing, for those who have not been let in."""
    words = {403: "Forbidden", 500: "Internal Server Error"}[status]
    return Response(
        words, status, {"cache-control": "no-store"}, media_type="text/plain; charset=utf-8"
    )


def named(who: object) -> str:
    """Return what ``authorize`` has returned as text that cannot forge lines of a log."""
    text = str(who)[:NAME_LIMIT]
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
