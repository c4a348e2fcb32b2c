"""Measures what telemetry costs over HTTP: the app with one task a request, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import http_load
from benchmarks.apps import async_task, served, starlette_app
from benchmarks.http_load import Row
from benchmarks.variants import Variant

OFF = Variant("telemetry-off", "asgi_bg, nobody is told", runs_task=True, baseline="telemetry-off")
IMPORTED = Variant(
    *("telemetry-imported", "the telemetry is imported, nobody is told"),
    runs_task=True,
    baseline=OFF.key,
)
METRICS = Variant("telemetry-metrics", "OpenTelemetry, metrics", runs_task=True, baseline=OFF.key)
METRICS_OF_ALL = Variant(
    *("telemetry-metrics-all", "OpenTelemetry, metrics, measured=None"),
    runs_task=True,
    baseline=OFF.key,
)
TRACES = Variant(
    *("telemetry-traces", "OpenTelemetry, metrics and a span for each"),
    runs_task=True,
    baseline=OFF.key,
)
SOME_TRACES = Variant(
    *("telemetry-some-traces", "OpenTelemetry, metrics and a span for 1 of 100"),
    runs_task=True,
    baseline=OFF.key,
)
PROMETHEUS = Variant("telemetry-prometheus", "Prometheus", runs_task=True, baseline=OFF.key)

VARIANTS = (OFF, IMPORTED, METRICS, METRICS_OF_ALL, TRACES, SOME_TRACES, PROMETHEUS)
EXPORT_INTERVAL = 1_000
"""Milliseconds; less than anybody would choose, so that exporting is part of every round."""


def measure(rounds: int, seconds: int) -> list[Row]:
    """Load every variant in turns; see `benchmarks.http_load.measure`."""
    return http_load.measure(VARIANTS, rounds, seconds)


def _app(make_handler: Callable[[], Any]) -> Any:
    """Return the app, with a subscriber if one is made."""
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response

    from asgi_bg import BackgroundTaskMiddleware, Runner, add_task

    async def greet(request: Request) -> Response:
        served.add()
        add_task(async_task)
        return PlainTextResponse("Hello, world!")

    handler = make_handler()
    runner = Runner(on_event=() if handler is None else handler)
    if handler is not None:
        handler.observe(runner)
    return BackgroundTaskMiddleware(starlette_app(greet), runner=runner)


def _opentelemetry(*, share: float = 0.0, measured: int | None = 250) -> Any:
    """Return the subscriber, with an SDK whose exporters throw everything away.

    Args:
        share: Of how many of all attempts spans are made; 0 for no tracing.
        measured: As its argument.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    from asgi_bg.opentelemetry import OpenTelemetryEvents

    class NoMetrics(MetricExporter):
        def export(self, *args: Any, **kwargs: Any) -> MetricExportResult:
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

        def shutdown(self, *args: Any, **kwargs: Any) -> None:
            pass

    class NoSpans(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    reader = PeriodicExportingMetricReader(NoMetrics(), EXPORT_INTERVAL)
    tracers = TracerProvider(sampler=TraceIdRatioBased(share))
    tracers.add_span_processor(BatchSpanProcessor(NoSpans()))
    return OpenTelemetryEvents(
        tracer_provider=tracers,
        meter_provider=MeterProvider([reader]),
        traces=share > 0,
        measured=measured,
    )


def _imported() -> Any:
    import asgi_bg.opentelemetry
    import asgi_bg.prometheus  # noqa: F401 - to have it, and no more


def _prometheus() -> Any:
    from asgi_bg.prometheus import PrometheusEvents

    return PrometheusEvents()


BUILDERS: dict[str, Callable[[], Any]] = {
    OFF.key: lambda: _app(lambda: None),
    IMPORTED.key: lambda: _app(_imported),
    METRICS.key: lambda: _app(_opentelemetry),
    METRICS_OF_ALL.key: lambda: _app(lambda: _opentelemetry(measured=None)),
    TRACES.key: lambda: _app(lambda: _opentelemetry(share=1.0)),
    SOME_TRACES.key: lambda: _app(lambda: _opentelemetry(share=0.01)),
    PROMETHEUS.key: lambda: _app(_prometheus),
}
