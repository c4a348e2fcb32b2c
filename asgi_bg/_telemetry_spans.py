"""Spans of attempts, through the API of OpenTelemetry."""

from __future__ import annotations

import re
from typing import Final
from weakref import WeakSet

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from asgi_bg import events
from asgi_bg._origin import Tracing
from asgi_bg._record import JobRecord
from asgi_bg._telemetry import ENDS, error_type_of
from asgi_bg._telemetry_metrics import (
    DESTINATION,
    ERROR_TYPE,
    MESSAGE_ID,
    OPERATION,
    OPERATION_TYPE,
    SYSTEM,
)

_TRACEPARENT: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch


def current_trace() -> str | None:
    """Return the current span as a ``traceparent``; None if there is none."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 0xFF:02x}"


def span_context_of(traceparent: str | None) -> SpanContext | None:
    """Return the span that a ``traceparent`` names; None if it names none."""
    parts = None if traceparent is None else _TRACEPARENT(traceparent)
    if parts is None:
        return None
    found = SpanContext(
        trace_id=int(parts[1], 16),
        span_id=int(parts[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(parts[3], 16)),
    )
    return found if found.is_valid else None


class JobSpans:
    """Makes a span of every attempt, which is current inside of it.

    It begins a trace of its own, and links to the span of the request: that may have ended
    days ago, and one request may have many jobs.

    Args:
        tracer: Who makes them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[str, Span] = {}
        _tracing.add(self)
        Tracing.current = current_trace

    def close(self) -> None:
        """End the spans of attempts that were cut off, and trace no more."""
        _tracing.discard(self)
        if not _tracing:
            Tracing.current = None
        for job in tuple(self._open):
            self._end_unfinished(job)

    def hear(self, name: str, record: JobRecord) -> None:
        """Begin or end the span of an attempt."""
        if name == events.STARTED:
            self._begin(record)
        elif name in ENDS:
            span = self._open.pop(record.id, None)
            if span is not None:
                _conclude(span, name, record)

    def _begin(self, record: JobRecord) -> None:
        self._end_unfinished(record.id)
        origin = record.origin()
        source = None if origin is None else span_context_of(origin.trace)
        span = self._tracer.start_span(
            f"process {record.task_name}",
            context=contexts.Context(),
            kind=SpanKind.CONSUMER,
            attributes=_attributes_of(record),
            links=None if source is None else [Link(source)],
        )
        self._open[record.id] = span
        # The attempt has this context for itself, and with its end it goes: nothing to detach.
        contexts.attach(trace.set_span_in_context(span))

    def _end_unfinished(self, job: str) -> None:
        """End the span of an attempt whose end nobody has told, if there is one."""
        span = self._open.pop(job, None)
        if span is not None:
            span.set_attribute("asgi_bg.status", "interrupted")
            span.end()


_tracing: WeakSet[JobSpans] = WeakSet()
"""Who makes spans in this process; as long as there are any the trace is kept with jobs."""


def _attributes_of(record: JobRecord) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        SYSTEM: "asgi_bg",
        OPERATION: "process",
        OPERATION_TYPE: "process",
        DESTINATION: record.task_name,
        MESSAGE_ID: record.id,
        "asgi_bg.attempt": record.attempt,
    }
    return found


def _conclude(span: Span, name: str, record: JobRecord) -> None:
    error = error_type_of(name, record)
    span.set_attribute("asgi_bg.status", name)
    if error is not None:
        span.set_attribute(ERROR_TYPE, error)
    if name in (events.FAILED, events.RETRYING):
        text = record.error or ""
        span.add_event(
            "exception",
            {
                "exception.type": error or "",
                "exception.message": text.partition(": ")[2],
                "exception.stacktrace": record.traceback or "",
            },
        )
        span.set_status(Status(StatusCode.ERROR, text))
    span.end()
