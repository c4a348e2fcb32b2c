"""All figures of one run, and how they compare to the targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks import telemetry
from benchmarks.backlog import Backlog
from benchmarks.engines import Engines
from benchmarks.history import History
from benchmarks.http_load import Row
from benchmarks.million import GROWTH_LIMIT, Memory
from benchmarks.variants import (
    INSTALLED,
    OURS_ASYNC,
    OURS_DURABLE,
    OURS_SYNC,
    PAIRS,
    Variant,
)
from benchmarks.workers import Workers


@dataclass(frozen=True, slots=True)
class Import:
    """What ``import asgi_bg`` takes and brings.

    Attributes:
        milliseconds: How much longer it takes than asyncio and anyio.
        frameworks: Frameworks that it brings along.
    """

    milliseconds: float
    frameworks: list[str]


@dataclass(slots=True)
class Results:
    """What was measured; empty or None is what was not.

    Attributes:
        rows: The variants over HTTP whose tasks live in memory.
        durable: Those whose jobs are kept.
        telemetry: Those of which somebody is told, and one of which nobody is.
        engines: Those that are handed over to engines.
        flush: Microseconds that the disk takes to keep one page.
        costs: Microseconds over the bare app in process, by label.
        memory: The million jobs.
        imported: The import.
        backlog: A start with a million unfinished jobs.
        history: The cost of a job among millions of finished ones.
        workers: Four workers on one journal.
    """

    rows: list[Row] = field(default_factory=list[Row])
    durable: list[Row] = field(default_factory=list[Row])
    telemetry: list[Row] = field(default_factory=list[Row])
    engines: Engines | None = None
    flush: float | None = None
    costs: dict[str, float] = field(default_factory=dict[str, float])
    memory: Memory | None = None
    imported: Import | None = None
    backlog: Backlog | None = None
    history: History | None = None
    workers: Workers | None = None

    @property
    def is_sound(self) -> bool:
        """Whether memory has stayed where it was, and the import has brought no framework."""
        is_steady = self.memory is None or self.memory.is_steady
        return is_steady and not (self.imported and self.imported.frameworks)

    def row(self, variant: Variant) -> Row:
        """Return the row of a variant; that of the plain app is the one in memory's table."""
        every = (*self.rows, *self.durable, *self.telemetry)
        return next(row for row in every if row.variant is variant)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach: what, how much, what was measured, and whether that does."""

    what: str
    wanted: str
    measured: str
    is_reached: bool


def targets(results: Results) -> Iterator[Target]:
    """Compare what was measured to the project's targets."""
    if results.rows:
        sync = results.row(OURS_SYNC)
        yield _share("installed, no task: share of the plain app", results.row(INSTALLED), 0.97)
        yield _share("one async task: share of the plain app", results.row(OURS_ASYNC), 0.85)
        yield _share("one sync task: share of the plain app", sync, 0.75)
        yield _at_most("one sync task: p99 latency, times the plain app's", sync.p99_ratio, 3.0)
        yield _at_most("one sync task: peak memory, times the plain app's", sync.memory_ratio, 1.3)
    if results.costs:
        cost = results.costs["asgi_bg, no task"]
        yield _at_most("in process, no task: µs over the bare app", cost, 1.5)
    if (memory := results.memory) is not None:
        yield Target(
            f"memory between {memory.jobs // 10:,} and {memory.jobs:,} jobs",
            f"± {GROWTH_LIMIT:g} MB",
            f"{memory.growth:+.1f} MB",
            memory.is_steady,
        )
    if (imported := results.imported) is not None:
        yield _at_most("import: ms over asyncio and anyio", imported.milliseconds, 60.0)
        frameworks = ", ".join(imported.frameworks) or "none"
        brought = "import: frameworks brought along"
        yield Target(brought, "none", frameworks, not imported.frameworks)
    if results.durable:
        ours = results.row(OURS_DURABLE)
        yield _share("one durable job: share of the plain app", ours, 0.6)
        yield _at_most("one durable job: p99 latency, times the plain app's", ours.p99_ratio, 5.0)
    if results.telemetry:
        off = results.row(telemetry.IMPORTED)
        yield _share("telemetry that is not used: share of the app without", off, 0.98)
        metrics = results.row(telemetry.METRICS)
        yield _share("OpenTelemetry, metrics: share of the app without", metrics, 0.95)
    if (found := results.engines) is not None:
        yield from _engine_targets(found)
    if (backlog := results.backlog) is not None:
        what = f"{backlog.full.jobs:,} unfinished jobs"
        yield _at_most(f"{what}: s to the first 200", backlog.full.seconds, 2.0)
        yield _at_most(f"{what}: MB more than without", backlog.memory, 60.0)
        few = f"{backlog.few.jobs:,}"
        yield _at_least(f"{what}: jobs/s, times those with {few}", backlog.speed, 0.9)
    if (history := results.history) is not None:
        what = f"a job among {history.rows:,} finished ones, times an empty journal's"
        yield _at_most(what, history.ratio, 1.3)
    if (workers := results.workers) is not None:
        what = f"{workers.several.workers} workers on one journal, times one worker's jobs/s"
        yield _at_least(what, workers.ratio, 1.3)


def _engine_targets(engines: Engines) -> Iterator[Target]:
    for pair in PAIRS:
        if pair.least is not None:
            what = f"{pair.name}: responses/s, times those with its own call"
            yield _at_least(what, engines.answered(pair), pair.least)
            what = f"{pair.name}: jobs/s that arrive, times those of its own call"
            yield _at_least(what, engines.arrived(pair), pair.least)
    for found in engines.forwardings:
        what = f"{found.jobs:,} waiting jobs to {found.pair.name}"
        yield _at_least(f"{what}: times one by one", found.ratio, 3.0)
        yield _at_most(f"{what}: MB of memory", max(found.growth) / 1e6, 30.0)


def _share(what: str, row: Row, least: float) -> Target:
    return Target(what, f"≥ {least:.2f}", f"{row.share:.3f}", row.share >= least)


def _at_least(what: str, value: float, least: float) -> Target:
    return Target(what, f"≥ {least:g}", f"{value:.2f}", value >= least)


def _at_most(what: str, value: float, most: float) -> Target:
    return Target(what, f"≤ {most:g}", f"{value:.2f}", value <= most)
