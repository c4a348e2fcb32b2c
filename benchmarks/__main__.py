"""Runs the whole suite; `run.py` calls this in the environment it has made."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass

from benchmarks import http_load, import_time, in_process, million, plot, report
from benchmarks.results import Results

COMMAND = "python3 benchmarks/run.py"


@dataclass(frozen=True, slots=True)
class Extent:
    """How long to measure."""

    rounds: int
    seconds: int
    cost_rounds: int
    cost_requests: int
    jobs: int
    imports: int


FULL = Extent(
    rounds=7, seconds=2, cost_rounds=30, cost_requests=5_000, jobs=million.JOBS, imports=10
)
QUICK = Extent(
    rounds=3, seconds=1, cost_rounds=5, cost_requests=2_000, jobs=million.JOBS // 10, imports=3
)


def main() -> int:
    """Measure and report; returns 1 if a benchmark shows that something is wrong."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Measure what asgi_bg costs.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure briefly, and leave README.md and the plot as they are",
    )
    is_quick = parser.parse_args().quick
    try:
        results = measure(QUICK if is_quick else FULL)
    except (http_load.BenchmarkError, RuntimeError, subprocess.CalledProcessError) as exc:
        print(f"\nThe benchmark has failed: {exc}", file=sys.stderr)
        return 1
    print("\n" + report.as_text(results))
    if is_quick:
        print("A quick run, for trying: README.md and the plot are as they were.")
    else:
        report.write_readme(results, COMMAND)
        plot.draw(results.rows, report.PLOT)
        print(f"Written to {report.README} and {report.PLOT}.")
    return 0 if results.memory.is_steady and not results.frameworks else 1


def measure(extent: Extent) -> Results:
    """Run all benchmarks, one after another."""
    rows = http_load.measure(extent.rounds, extent.seconds)
    _tell("in process: what a request costs over the bare app")
    costs = in_process.measure(extent.cost_rounds, extent.cost_requests)
    _tell(f"memory: {extent.jobs:,} jobs through one runner")
    memory = million.measure(extent.jobs)
    _tell("import time")
    return Results(
        rows=rows,
        costs=costs,
        memory=memory,
        import_ms=import_time.measure(extent.imports),
        frameworks=import_time.frameworks(),
    )


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
