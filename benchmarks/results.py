"""All figures of one run, and how they compare to the targets."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.http_load import Row
from benchmarks.million import GROWTH_LIMIT, Memory
from benchmarks.variants import INSTALLED, OURS_ASYNC, OURS_SYNC, Variant


@dataclass(frozen=True, slots=True)
class Results:
    """What was measured.

    Attributes:
        rows: The variants over HTTP.
        costs: Microseconds over the bare app in process, by label.
        memory: The million jobs.
        import_ms: Milliseconds that the import takes.
        frameworks: Frameworks that it brings along.
    """

    rows: list[Row]
    costs: dict[str, float]
    memory: Memory
    import_ms: float
    frameworks: list[str]

    def row(self, variant: Variant) -> Row:
        """Return the row of a variant."""
        return next(row for row in self.rows if row.variant is variant)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach: what, how much, what was measured, and whether that does."""

    what: str
    wanted: str
    measured: str
    is_reached: bool


def targets(results: Results) -> list[Target]:
    """Compare the figures to the project's targets."""
    sync = results.row(OURS_SYNC)
    no_task = results.costs["asgi_bg, no task"]
    memory = results.memory
    return [
        _share("installed, no task: share of the plain app", results.row(INSTALLED), 0.97),
        _share("one async task: share of the plain app", results.row(OURS_ASYNC), 0.85),
        _share("one sync task: share of the plain app", sync, 0.75),
        _at_most("one sync task: p99 latency, times the plain app's", sync.p99_ratio, 3.0),
        _at_most("one sync task: peak memory, times the plain app's", sync.memory_ratio, 1.3),
        _at_most("in process, no task: µs over the bare app", no_task, 1.5),
        Target(
            f"memory between {memory.jobs // 10:,} and {memory.jobs:,} jobs",
            f"± {GROWTH_LIMIT:g} MB",
            f"{memory.growth:+.1f} MB",
            memory.is_steady,
        ),
        _at_most("import: ms over asyncio and anyio", results.import_ms, 60.0),
        Target(
            "import: frameworks brought along",
            "none",
            ", ".join(results.frameworks) or "none",
            not results.frameworks,
        ),
    ]


def _share(what: str, row: Row, least: float) -> Target:
    return Target(what, f"≥ {least:.2f}", f"{row.share:.3f}", row.share >= least)


def _at_most(what: str, value: float, most: float) -> Target:
    return Target(what, f"≤ {most:g}", f"{value:.2f}", value <= most)
