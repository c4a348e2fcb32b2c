"""For OpenTelemetry: spans and metrics of jobs, by its conventions for messaging (W4).

Needs the extra ``asgi_bg[opentelemetry]``, which brings the API; the SDK, and where it sends
things, are the application's choice.
"""

from __future__ import annotations

from collections.abc import Callable

from asgi_bg import __version__
from asgi_bg._options import check_count
from asgi_bg._record import JobRecord
from asgi_bg._runner import Runner
from asgi_bg.events import JobEvent

try:
    from opentelemetry import metrics as metrics_api
    from opentelemetry import trace as trace_api

    from asgi_bg._telemetry_metrics import JobMetrics
    from asgi_bg._telemetry_spans import JobSpans
except ImportError as exc:
    raise ImportError(
        "asgi_bg.opentelemetry needs OpenTelemetry's API; install it with: "
        "pip install 'asgi_bg[opentelemetry]'"
    ) from exc

__all__ = ["SCHEMA_URL", "OpenTelemetryEvents"]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""The version of OpenTelemetry's semantic conventions that the names are from."""

_NAME = "asgi_bg"


class OpenTelemetryEvents:
    """Makes spans and metrics of a runner's jobs.

    Give it to the runner::

        runner = Runner(on_event=OpenTelemetryEvents())

    Every attempt has a span, ``process TASK``, which links to the span in which its job was
    added: that of the request, also after a restart and in an engine's worker, as it is kept
    with the job. The span is current inside the task, but for tasks in worker processes.
    Metrics have the task as an attribute, and never a job.

    As long as one with ``traces`` is open, `add_task` of every runner in the process keeps the
    trace context with the job.

    Args:
        tracer_provider: Whose tracer to use; None for the global one.
        meter_provider: Whose meter to use; None for the global one.
        traces: Whether to make spans.
        metrics: Whether to make metrics.
        measured: For how many attempts a second the histograms are called, each of which
            costs more than running a small task; beyond that, for a share of them drawn at
            random. Counters count all. None measures all attempts.

    Attributes:
        hear: Notes what has happened to a job of this process; called by the runner.

    Raises:
        TypeError, ValueError: ``measured`` is no count.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace_api.TracerProvider | None = None,
        meter_provider: metrics_api.MeterProvider | None = None,
        traces: bool = True,
        metrics: bool = True,
        measured: int | None = 250,
    ) -> None:
        if measured is not None:
            check_count("measured", measured, least=1)
        self._metrics: JobMetrics | None = None
        self._spans: JobSpans | None = None
        if metrics:
            meters = meter_provider or metrics_api.get_meter_provider()
            self._metrics = JobMetrics(meters.get_meter(_NAME, __version__, SCHEMA_URL), measured)
        if traces:
            tracers = tracer_provider or trace_api.get_tracer_provider()
            self._spans = JobSpans(tracers.get_tracer(_NAME, __version__, SCHEMA_URL))
        # One call less for each event, where there is one of them only.
        self.hear: Callable[[str, JobRecord], None] = self._hear_both
        if self._metrics is not None and self._spans is None:
            self.hear = self._metrics.hear

    def observe(self, runner: Runner, interval: float = 5.0) -> None:
        """Report how many jobs of a runner wait and run, and for how long the oldest waits.

        A thread asks the runner, every ``interval`` seconds or less often where that takes
        long, so that collecting metrics blocks nobody. Call it in the process that runs the
        jobs, not before a server forks. Without ``metrics`` it does nothing.

        Args:
            runner: The runner; it need not have been started.
            interval: The seconds between two looks.

        Raises:
            TypeError, ValueError: An argument does not fit.
        """
        if self._metrics is not None:
            self._metrics.observe(runner, interval)

    def close(self) -> None:
        """End the spans of attempts that were cut off, and what `observe` has begun.

        Call it after the runner was closed, and before the SDK is shut down.
        """
        if self._metrics is not None:
            self._metrics.close()
        if self._spans is not None:
            self._spans.close()

    def _hear_both(self, name: str, record: JobRecord) -> None:
        for each in (self._metrics, self._spans):
            if each is not None:
                each.hear(name, record)

    def __call__(self, event: JobEvent) -> None:
        """Note what has happened to a job that is not in this process; called by the runner."""
        if self._metrics is not None:
            self._metrics.hear_of(event)
