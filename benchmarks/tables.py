"""Turns the figures into tables; the first row of each is its head."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.backlog import Backlog
from benchmarks.engines import Engines
from benchmarks.forwarding import Forwarding
from benchmarks.history import History
from benchmarks.http_load import Row
from benchmarks.results import Results, targets
from benchmarks.variants import PAIRS
from benchmarks.workers import Workers

Table = Sequence[Sequence[str]]


def sections(results: Results) -> Iterator[tuple[str, Table]]:
    """Return the tables of what was measured, with their titles."""
    if results.rows:
        yield "Over HTTP", _in_memory(results.rows)
    if results.durable:
        yield "Durable jobs over HTTP", _durable(results.durable)
    if results.telemetry:
        yield "Telemetry over HTTP", _in_memory(results.telemetry)
    if results.engines is not None:
        yield "Engines over HTTP", _engines(results.engines)
        yield "Engines, from a journal", _forwardings(results.engines.forwardings)
    if results.costs:
        costs = [(label, f"{cost:.2f}") for label, cost in results.costs.items()]
        yield "In process", [("in process", "µs over the bare app"), *costs]
    if rest := _rest(results):
        yield "Memory, import and disk", [("other", "figure"), *rest]
    if results.backlog is not None:
        yield "Starting with a backlog", _backlog(results.backlog)
    if results.history is not None:
        yield "A long history", _history(results.history)
    if results.workers is not None:
        yield "Several workers", _workers(results.workers)
    if goals := _goals(results):
        yield "Targets", [("target", "wanted", "measured", "reached"), *goals]


def _in_memory(rows: list[Row]) -> Table:
    return [
        (
            *("over HTTP", "requests/s", "best", "spread", "share"),
            *("p99 ms", "/ plain", "peak MB", "/ plain"),
        ),
        *(
            (
                row.variant.label,
                f"{row.rate:,.0f}",
                f"{row.best:,.0f}",
                f"{row.spread:.0%}",
                f"{row.share:.3f}",
                f"{row.p99:.2f}",
                f"{row.p99_ratio:.2f}",
                f"{row.memory / 1e6:.1f}",
                f"{row.memory_ratio:.2f}",
            )
            for row in rows
        ),
    ]


def _durable(rows: list[Row]) -> Table:
    return [
        (
            *("one durable job", "requests/s", "spread", "share"),
            *("p50 ms", "p99 ms", "/ plain", "failed"),
        ),
        *(
            (
                row.variant.label,
                f"{row.rate:,.0f}",
                f"{row.spread:.0%}",
                f"{row.share:.3f}",
                f"{row.p50:.2f}",
                f"{row.p99:.2f}",
                f"{row.p99_ratio:.2f}",
                f"{row.failed}",
            )
            for row in rows
        ),
    ]


def _engines(engines: Engines) -> Table:
    times = {
        pair.ours: (f"{engines.answered(pair):.1f}", f"{engines.arrived(pair):.1f}")
        for pair in PAIRS
    }
    return [
        (
            *("one job for an engine", "responses/s", "times", "jobs/s", "times"),
            *("spread", "share", "p50 ms", "p99 ms", "/ plain", "peak MB"),
        ),
        *(
            (
                row.variant.label,
                f"{row.answered:,.0f}",
                times.get(row.variant, ("",))[0],
                f"{row.rate:,.0f}",
                times.get(row.variant, ("",))[-1],
                f"{row.spread:.0%}",
                f"{row.share:.3f}",
                f"{row.p50:.2f}",
                f"{row.p99:.2f}",
                f"{row.p99_ratio:.2f}",
                f"{row.memory / 1e6:.1f}",
            )
            for row in engines.rows
        ),
    ]


def _forwardings(found: list[Forwarding]) -> Table:
    return [
        ("waiting jobs in a journal", "jobs/s", "spread", "one by one", "times", "MB more"),
        *(
            (
                f"{one.jobs:,} for {one.pair.name}",
                f"{statistics.median(one.ours):,.0f}",
                f"{(max(one.ours) - min(one.ours)) / statistics.median(one.ours):.0%}",
                f"{statistics.median(one.own):,.0f}",
                f"{one.ratio:.1f}",
                f"{max(one.growth) / 1e6:.1f}",
            )
            for one in found
        ),
    ]


def _rest(results: Results) -> Table:
    rows: list[tuple[str, str]] = []
    if (memory := results.memory) is not None:
        rows.append((f"memory after {memory.jobs // 10:,} jobs", f"{memory.early:.1f} MB"))
        rows.append((f"memory after {memory.jobs:,} jobs", f"{memory.late:.1f} MB"))
    if (imported := results.imported) is not None:
        rows.append(("import asgi_bg, over asyncio and anyio", f"{imported.milliseconds:.1f} ms"))
    if results.flush is not None:
        rows.append(("one page flushed to the disk", f"{results.flush:.0f} µs"))
    return rows


def _backlog(backlog: Backlog) -> Table:
    return [
        ("unfinished jobs at the start", "s to the first 200", "peak MB", "jobs/s"),
        *(
            (
                f"{start.jobs:,}",
                f"{start.seconds:.2f}",
                f"{start.memory / 1e6:.1f}",
                f"{start.rate:,.0f}" if start.jobs else "-",
            )
            for start in (backlog.empty, backlog.few, backlog.full)
        ),
    ]


def _history(history: History) -> Table:
    return [
        ("finished jobs in the journal", "µs CPU a job", "jobs/s"),
        ("0 at first", f"{history.empty.cost:.1f}", f"{history.empty.rate:,.0f}"),
        (f"{history.rows:,}", f"{history.full.cost:.1f}", f"{history.full.rate:,.0f}"),
    ]


def _workers(workers: Workers) -> Table:
    return [
        ("uvicorn, 2 cores", "jobs/s", "p99 ms"),
        ("--workers 1", f"{workers.one.rate:,.0f}", f"{workers.one.p99:.2f}"),
        (
            f"--workers {workers.several.workers}",
            *(f"{workers.several.rate:,.0f}", f"{workers.several.p99:.2f}"),
        ),
    ]


def _goals(results: Results) -> Table:
    return [
        (target.what, target.wanted, target.measured, "yes" if target.is_reached else "no")
        for target in targets(results)
    ]
