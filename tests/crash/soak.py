"""Kills servers at random for a long time: ``python -m tests.crash.soak --kills 1000``.

Prints a table of what came of it, and exits with status 1 if a promise was broken, in which
case the record, the journal and the log of that round are kept.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.audit import Figures, table
from tests.crash.harness import Failure, Site, kill_at_random

KILLS_PER_ROUND = 25
"""How often the servers of one journal are killed, before it is checked and thrown away."""


def main() -> int:
    """Run as many rounds as it takes; one process and several, by turns."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.crash.soak")
    parser.add_argument("--kills", type=int, default=1000, help="how many processes to kill")
    parser.add_argument("--workers", type=int, default=4, help="of every other round")
    parser.add_argument("--seed", type=int, default=None, help="repeats the choice of moments")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    begun = time.monotonic()
    total = Figures()
    rounds = 0
    while total.kills < options.kills and not total.violations:
        kills = min(KILLS_PER_ROUND, options.kills - total.kills)
        total += _round(rng, kills, options.workers if rounds % 2 else 1)
        rounds += 1
        print(
            f"round {rounds}: {total.kills} kills, {total.accepted} accepted, {total.lost} lost, "
            f"{total.again} run again, {time.monotonic() - begun:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    print(table(total))
    return 1 if total.violations else 0


def _round(rng: random.Random, kills: int, workers: int) -> Figures:
    directory = Path(tempfile.mkdtemp(prefix="asgi_bg-crash-"))
    site = Site(directory)
    is_broken = True
    try:
        max_jobs = rng.choice((4, 50, 1000))
        figures = kill_at_random(site, rng, workers=workers, kills=kills, max_jobs=max_jobs)
        is_broken = False
    except Failure as exc:
        print(exc, file=sys.stderr)
        figures = exc.figures or Figures(violations=[str(exc)])
    finally:
        site.close()
        if is_broken:
            print(f"the evidence is in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    return figures


if __name__ == "__main__":
    sys.exit(main())
