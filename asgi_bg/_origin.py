"""Where a job comes from: the request that added it, and its trace."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec

from asgi_bg._types import Scope

logger = logging.getLogger("asgi_bg")

TEXT_LIMIT = 500
"""To how many characters a path or a request's id is shortened."""

_REQUEST_IDS = (b"x-request-id", b"x-correlation-id")


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """The request that added a job.

    Attributes:
        method: Its method, ``WEBSOCKET`` for a websocket; None outside of requests.
        path: Its path, without the query; None outside of requests.
        request_id: What its header ``X-Request-ID`` or ``X-Correlation-ID`` says.
        trace: The trace context in which the job was added, as the header ``traceparent``
            has it (source: W3C Trace Context, 3.2).
    """

    method: str | None = None
    path: str | None = None
    request_id: str | None = None
    trace: str | None = None

    def origin(self, trace: str | None) -> Origin:
        """Return it, with this trace context if one is given."""
        return self if trace is None else msgspec.structs.replace(self, trace=trace)


class Tracing:
    """Who tells the trace context of the code that runs; one for the process.

    Attributes:
        current: Returns it as a ``traceparent``, or None; None while nobody traces.
    """

    current: ClassVar[Callable[..., str | None] | None] = None


def current_trace() -> str | None:
    """Return the trace context of the code that runs, or None.

    Somebody else's code tells it, and no job is lost because that fails.
    """
    current = Tracing.current
    if current is None:
        return None
    try:
        trace = current()
    except Exception:
        logger.exception("the trace context of a new job cannot be told, and is left out")
        return None
    return trace if isinstance(trace, str) else None


class Request:
    """What a collector knows of its request, read only if somebody wants to know.

    Args:
        scope: The request's scope, of which no more is kept than this needs.
    """

    __slots__ = ("_headers", "_method", "_path", "_plain")

    def __init__(self, scope: Scope) -> None:
        self._method: object = scope.get("method", "WEBSOCKET")
        self._path: object = scope.get("path", "")
        self._headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
        self._plain: Origin | None = None

    def origin(self, trace: str | None) -> Origin:
        """Return it as an origin.

        Args:
            trace: The trace context where the job was added; None for the request's own.
        """
        plain = self._plain
        if plain is None:
            plain = self._plain = self._read()
        return plain.origin(trace)

    def _read(self) -> Origin:
        request_id = trace = None
        for name, value in self._headers or ():
            if name == b"traceparent":
                trace = _text(value)
            elif name in _REQUEST_IDS and request_id is None:
                request_id = _text(value)
        return Origin(_text(self._method), _text(self._path), request_id, trace)


def _text(value: object) -> str | None:
    """Return what a scope says as text that can be kept; None for what the ASGI spec forbids.

    Scopes come from anywhere, and no response fails for what is only shown.
    """
    if isinstance(value, str):
        if value.isascii():  # nearly all, and cheaper
            return value[:TEXT_LIMIT]
        # Some servers leave bytes that are no UTF-8 as halves of surrogate pairs.
        return value[:TEXT_LIMIT].encode("utf-8", "backslashreplace").decode()
    return bytes(value[:TEXT_LIMIT]).decode("latin-1") if isinstance(value, bytes) else None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Origin).decode


def written(origin: Origin) -> str:
    """Return an origin as JSON text."""
    return _encode(origin).decode()


def read(text: Any) -> Origin | None:
    """Return the origin that `written` has written; None for anything else."""
    if text is None:
        return None
    try:
        return _decode(text)
    except (ValueError, TypeError):
        return None
