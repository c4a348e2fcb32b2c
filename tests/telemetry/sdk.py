"""A real SDK of OpenTelemetry, which keeps what it is given in memory."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import get_current_span

from asgi_bg.opentelemetry import OpenTelemetryEvents

__all__ = [
    "OpenTelemetryEvents",
    "Sampler",
    "SimpleSpanProcessor",
    "SpanExporter",
    "Telemetry",
    "TracerProvider",
    "get_current_span",
]


class Telemetry:
    """Subscribers, and what the SDK has received from them.

    Attributes:
        providers: The arguments that make a subscriber use this SDK.
        tracer: For spans of the test's own.
    """

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self._reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.providers = {"tracer_provider": self.tracers, "meter_provider": self.meters}
        self.tracer = self.tracers.get_tracer("test")
        self._made: list[OpenTelemetryEvents] = []

    def events(self, **options: Any) -> OpenTelemetryEvents:
        """Make a subscriber."""
        made = OpenTelemetryEvents(**{**self.providers, **options})
        self._made.append(made)
        return made

    def spans(self, kind: str = "CONSUMER") -> list[ReadableSpan]:
        """The spans that have ended, of this kind."""
        return [span for span in self._exporter.get_finished_spans() if span.kind.name == kind]

    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each metric."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found

    def numbers(self, name: str) -> dict[tuple[Any, Any], Any]:
        """The values of a metric, or the counts of a histogram, by task and kind of error."""
        return {
            (
                point.attributes.get("messaging.destination.name"),
                point.attributes.get("error.type"),
            ): getattr(point, "count", None) or getattr(point, "value", None)
            for point in self.metrics().get(name, ())
        }

    def close(self) -> None:
        for made in self._made:
            made.close()
        self.meters.shutdown()
        self.tracers.shutdown()
