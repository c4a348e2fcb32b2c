"""Long outages of an engine's broker: ``python -m tests.outage.soak --engine arq --seconds 30``.

Prints a line for each trial, and exits with status 1 if a promise was broken, in which case
the journals and the logs are kept. The ratio is how much longer the slowest hundredth of the
responses took during the outage than before it, in the same process; it says something on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.outage.brokers import KINDS, Broker
from tests.outage.harness import Site, running_broker
from tests.outage.outages import OF_THE_NETWORK, OUTAGES, go_through, go_without, share
from tests.outage.proxy import Proxy

Trial = Callable[[Site, argparse.Namespace], str]
"""Returns what was seen; raises `AssertionError` if a promise was broken."""


def _endured(outage: str) -> Trial:
    """With a journal: nothing is lost, and nobody notices."""

    def run(site: Site, options: argparse.Namespace) -> str:
        site.start(options.apps)
        seconds = options.seconds
        course = go_through(site, outage, seconds=seconds, healthy=seconds, rate=options.rate)
        assert (course.refused, course.unanswered) == (0, 0), course
        assert site.tracebacks() == 0, course
        return str(course)

    return run


def _restarted(outage: str) -> Trial:
    """With a journal, and apps that are killed and started anew in the middle of the outage."""

    def run(site: Site, options: argparse.Namespace) -> str:
        apps = site.start(options.apps)

        def restart() -> None:
            for app in apps:
                app.kill()
            site.start(options.apps)

        course = go_through(
            site, outage, seconds=options.seconds, rate=options.rate, meanwhile=restart
        )
        assert (course.refused, course.waiting > 0) == (0, True), course
        return str(course)

    return run


def _shared(site: Site, options: argparse.Namespace) -> str:
    """Two apps on one journal forward each job once."""
    site.start(2)
    wrong = share(site, options.seconds, options.rate)
    assert wrong == [], wrong
    return "each job once"


def _without(outage: str) -> Trial:
    """Without a journal: requests fail in time, and others are not disturbed."""

    def run(site: Site, options: argparse.Namespace) -> str:
        site.journal = None
        site.start()
        seen = go_without(site, outage, options.seconds)
        assert {answer.status for answer in seen.jobs} == {500}, seen
        assert max(answer.took for answer in seen.jobs) < site.timeout + 2.0, seen
        assert {answer.status for answer in seen.others} == {200}, seen
        return str(seen)

    return run


TRIALS: dict[str, tuple[str, Trial]] = {
    **{outage: (outage, _endured(outage)) for outage in OUTAGES},
    **{f"{outage}-restarted": (outage, _restarted(outage)) for outage in ("stopped", "killed")},
    "shared": ("", _shared),
    **{
        f"{outage}-without": (outage, _without(outage))
        for outage in ("stopped", "killed", "silent")
    },
}
"""By their names: the outage, and what is done."""


def main() -> int:
    """Make the trials that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.outage.soak")
    parser.add_argument("--engine", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--trial", choices=TRIALS, nargs="+", default=list(TRIALS))
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each outage lasts")
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument("--apps", type=int, default=1, help="how many share the journal")
    options = parser.parse_args()
    broken = [kind for kind in options.engine if not _try_all(kind, options)]
    return 1 if broken else 0


def _try_all(kind: str, options: argparse.Namespace) -> bool:
    """Make all trials with one engine; return whether all was well."""
    folder = Path(tempfile.mkdtemp(prefix="asgi_bg-outage-"))
    with running_broker(kind, folder / "broker") as broker:
        broken = [
            trial for trial in options.trial if not _try(kind, broker, folder, trial, options)
        ]
    if broken:
        print(f"the evidence is in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return not broken


def _try(kind: str, broker: Broker, folder: Path, trial: str, options: argparse.Namespace) -> bool:
    directory = folder / trial
    directory.mkdir()
    outage, run = TRIALS[trial]
    with Proxy(broker.service.port) as proxy:
        site = Site(kind, broker, directory, proxy if outage in OF_THE_NETWORK else None)
        try:
            said, is_well = run(site, options), True
        except AssertionError as exc:
            said, is_well = f"BROKEN: {exc}", False
        finally:
            site.close()
    print(f"{kind} {trial}: {said}", flush=True)
    return is_well


if __name__ == "__main__":
    sys.exit(main())
