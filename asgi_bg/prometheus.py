"""For Prometheus: metrics of jobs, through its client (W4).

Needs the extra ``asgi_bg[prometheus]``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

from asgi_bg import events
from asgi_bg._record import JobRecord
from asgi_bg._runner import Runner
from asgi_bg._telemetry import ENDS, LONG_BUCKETS, duration_of, had_attempt, wait_of
from asgi_bg._telemetry_watch import Standing, Watch, together
from asgi_bg.events import JobEvent

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError as exc:
    raise ImportError(
        "asgi_bg.prometheus needs prometheus-client; install it with: "
        "pip install 'asgi_bg[prometheus]'"
    ) from exc

__all__ = ["PrometheusEvents"]


class PrometheusEvents:
    """Makes metrics of a runner's jobs.

    Give it to the runner::

        runner = Runner(on_event=PrometheusEvents())

    It has, with the names that they have under the usual namespace:

    - ``asgi_bg_jobs_added_total``, ``asgi_bg_jobs_dropped_total``,
      ``asgi_bg_jobs_refused_total`` and ``asgi_bg_jobs_handed_over_total``, by task
    - ``asgi_bg_attempt_duration_seconds``, a histogram by task and outcome, which is one of
      ``succeeded``, ``failed``, ``retrying`` and ``cancelled``
    - ``asgi_bg_queue_wait_seconds``, a histogram by task: how long jobs were due before their
      first attempt began
    - and from `observe` on the gauges ``asgi_bg_jobs_in_flight``, ``asgi_bg_jobs_queued`` and
      ``asgi_bg_oldest_job_age_seconds``.

    No label is one of a job. Where ``PROMETHEUS_MULTIPROC_DIR`` is set the client joins the
    metrics of all processes, these too.

    Args:
        registry: Where the metrics are registered; None for the client's own registry.
        namespace: What their names begin with.
        buckets: The bounds of the histograms' buckets, in seconds.

    Raises:
        ValueError: The registry has metrics of these names already.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        namespace: str = "asgi_bg",
        buckets: Sequence[float] = LONG_BUCKETS,
    ) -> None:
        self._registry = REGISTRY if registry is None else registry
        self._namespace = namespace
        self._watches: list[Watch] = []
        self._gauges: _Gauges | None = None
        added = self._counter("jobs_added", "Jobs that were added.")
        dropped = self._counter(
            "jobs_dropped", "Jobs that are not run, as their response did not end as they ask."
        )
        refused = self._counter(
            "jobs_refused", "Jobs that have failed without being run, or without being run again."
        )
        handed_over = self._counter("jobs_handed_over", "Jobs that were handed over to an engine.")
        self._counters = {
            events.QUEUED: lru_cache(None)(added.labels),
            events.DROPPED: lru_cache(None)(dropped.labels),
            events.HANDED_OVER: lru_cache(None)(handed_over.labels),
        }
        self._refused = lru_cache(None)(refused.labels)
        durations = self._histogram(
            "attempt_duration_seconds", "How long attempts took.", ("task", "outcome"), buckets
        )
        waits = self._histogram(
            "queue_wait_seconds",
            "How long jobs were due before their first attempt began.",
            ("task",),
            buckets,
        )
        # Asking a metric for its labels takes longer than adding to it.
        self._durations = lru_cache(None)(durations.labels)
        self._waits = lru_cache(None)(waits.labels)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("task",), namespace=self._namespace, registry=self._registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(
            name,
            text,
            labels,
            namespace=self._namespace,
            registry=self._registry,
            buckets=buckets,
        )

    def observe(self, runner: Runner, interval: float = 5.0) -> None:
        """Report how many jobs of a runner wait and run, and for how long the oldest waits.

        A thread asks the runner, every ``interval`` seconds or less often where that takes
        long, so that a scrape blocks nobody. Call it in the process that runs the jobs, not
        before a server forks.

        Args:
            runner: The runner; it need not have been started.
            interval: The seconds between two looks.

        Raises:
            TypeError, ValueError: An argument does not fit.
        """
        watch = Watch(runner, interval, self._show)
        if self._gauges is None:
            is_shared = runner.journal_path is not None
            self._gauges = _Gauges(self._registry, self._namespace, is_shared=is_shared)
        self._watches.append(watch)
        watch.start()

    def _show(self, _: Standing) -> None:
        standing = together(watch.standing for watch in self._watches)
        if standing is not None and self._gauges is not None:
            self._gauges.show(standing)

    def close(self) -> None:
        """End what `observe` has begun."""
        for watch in self._watches:
            watch.close()

    def hear(self, name: str, record: JobRecord) -> None:
        """Note what has happened to a job of this process; called by the runner."""
        if name in self._counters:
            self._counters[name](record.task_name).inc()
        elif name in ENDS and had_attempt(record):
            self._durations(record.task_name, name).observe(duration_of(record))
            wait = wait_of(name, record)
            if wait is not None:
                self._waits(record.task_name).observe(wait)
        elif name == events.FAILED:
            self._refused(record.task_name).inc()

    def __call__(self, event: JobEvent) -> None:
        """Note what has happened to a job that is not in this process; called by the runner."""
        if event.name == events.HANDED_OVER:
            self._counters[event.name](event.task).inc()
        elif event.name == events.FAILED:  # it was not run here, or it would be in this process
            self._refused(event.task).inc()


class _Gauges:
    """How the jobs stand.

    Where several processes report, those that run are taken together; what waits in a journal
    that they share is the same to all, so that the greatest figure is the figure.
    """

    def __init__(self, registry: CollectorRegistry, namespace: str, *, is_shared: bool) -> None:
        def gauge(name: str, text: str, *, is_same: bool) -> Gauge:
            return Gauge(
                name,
                text,
                namespace=namespace,
                registry=registry,
                multiprocess_mode="livemax" if is_same else "livesum",
            )

        self._in_flight = gauge("jobs_in_flight", "Attempts under way.", is_same=False)
        self._queued = gauge("jobs_queued", "Jobs that wait.", is_same=is_shared)
        self._oldest = gauge(
            "oldest_job_age_seconds", "For how long the oldest job has waited.", is_same=True
        )

    def show(self, standing: Standing) -> None:
        """Show this from now on."""
        self._in_flight.set(standing.in_flight)
        self._queued.set(standing.queued)
        self._oldest.set(standing.age(time.time()))
