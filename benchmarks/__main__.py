"""Runs the suite, or a part of it; `run.py` calls this in the environment it has made."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import (
    backlog,
    disk,
    durable,
    engines,
    forwarding,
    history,
    http_load,
    import_time,
    in_process,
    million,
    plot,
    report,
    telemetry,
    workers,
)
from benchmarks.results import Import, Results
from benchmarks.servers import BenchmarkError
from benchmarks.variants import VARIANTS

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
    backlog: int
    history: int
    history_rounds: int
    forwarded: int
    forwards: int


FULL = Extent(
    rounds=7,
    seconds=2,
    cost_rounds=30,
    cost_requests=5_000,
    jobs=million.JOBS,
    imports=10,
    backlog=backlog.JOBS,
    history=history.ROWS,
    history_rounds=history.ROUNDS,
    forwarded=forwarding.JOBS,
    forwards=engines.ROUNDS,
)
QUICK = Extent(
    rounds=3,
    seconds=1,
    cost_rounds=5,
    cost_requests=2_000,
    jobs=million.JOBS // 10,
    imports=3,
    backlog=backlog.JOBS // 10,
    history=history.ROWS // 50,
    history_rounds=3,
    forwarded=forwarding.JOBS // 10,
    forwards=1,
)


def main() -> int:
    """Measure and report; returns 1 if a benchmark shows that something is wrong."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Measure what asgi_bg costs.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure briefly, and leave README.md and the plot as they are",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=BENCHMARKS,
        help="run this benchmark (repeatable), and leave README.md and the plot as they are",
    )
    options = parser.parse_args()
    results = Results()
    try:
        for name in options.only or BENCHMARKS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            BENCHMARKS[name](results, QUICK if options.quick else FULL)
    except (BenchmarkError, RuntimeError, subprocess.CalledProcessError) as exc:
        print(f"\nThe benchmark has failed: {exc}", file=sys.stderr)
        return 1
    print("\n" + report.as_text(results))
    if options.quick or options.only:
        print("A run for trying: README.md and the plot are as they were.")
    else:
        report.write_readme(results, COMMAND)
        plot.draw(results.rows, report.PLOT)
        print(f"Written to {report.README} and {report.PLOT}.")
    return 0 if results.is_sound else 1


def _http(results: Results, extent: Extent) -> None:
    results.rows = http_load.measure(VARIANTS, extent.rounds, extent.seconds)


def _durable(results: Results, extent: Extent) -> None:
    results.flush = disk.measure()
    results.durable = durable.measure(extent.rounds, extent.seconds)


def _telemetry(results: Results, extent: Extent) -> None:
    results.telemetry = telemetry.measure(extent.rounds, extent.seconds)


def _engines(results: Results, extent: Extent) -> None:
    results.engines = engines.measure(
        extent.rounds, extent.seconds, extent.forwarded, extent.forwards
    )


def _in_process(results: Results, extent: Extent) -> None:
    results.costs = in_process.measure(extent.cost_rounds, extent.cost_requests)


def _memory(results: Results, extent: Extent) -> None:
    results.memory = million.measure(extent.jobs)


def _import(results: Results, extent: Extent) -> None:
    results.imported = Import(import_time.measure(extent.imports), import_time.frameworks())


def _backlog(results: Results, extent: Extent) -> None:
    results.backlog = backlog.measure(extent.backlog)


def _history(results: Results, extent: Extent) -> None:
    results.history = history.measure(extent.history, extent.history_rounds)


def _workers(results: Results, extent: Extent) -> None:
    results.workers = workers.measure(extent.rounds, extent.seconds)


BENCHMARKS: dict[str, Callable[[Results, Extent], None]] = {
    "http": _http,
    "durable": _durable,
    "telemetry": _telemetry,
    "engines": _engines,
    "in-process": _in_process,
    "memory": _memory,
    "import": _import,
    "backlog": _backlog,
    "history": _history,
    "workers": _workers,
}


if __name__ == "__main__":
    sys.exit(main())
