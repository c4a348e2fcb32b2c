"""What can be wrong with a broker or the way to it, and how apps under load take it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import NamedTuple

from tests.outage.harness import DEADLINE, Site
from tests.outage.load import Answer, quantile, times

WARM_UP = 0.5
"""For how many seconds an app has been under load before its responses are looked at."""


@contextlib.contextmanager
def stopped(site: Site) -> Generator[None, None, None]:
    """The broker does nothing, while connections stay open (SIGSTOP)."""
    site.broker.service.freeze()
    try:
        yield
    finally:
        site.broker.service.thaw()


@contextlib.contextmanager
def killed(site: Site) -> Generator[None, None, None]:
    """The broker is gone (SIGKILL), and started anew on its data."""
    site.broker.service.kill()
    try:
        yield
    finally:
        site.broker.service.start()


@contextlib.contextmanager
def cut(site: Site) -> Generator[None, None, None]:
    """Connections are reset, and new ones refused."""
    site.proxy.cut()
    try:
        yield
    finally:
        site.proxy.mend()


@contextlib.contextmanager
def silent(site: Site) -> Generator[None, None, None]:
    """Nothing comes through, while connections stay open; what has gathered comes then."""
    site.proxy.freeze()
    try:
        yield
    finally:
        site.proxy.thaw()


@contextlib.contextmanager
def slow(site: Site) -> Generator[None, None, None]:
    """All takes 200 ms, in each direction."""
    site.proxy.delay = 0.2
    try:
        yield
    finally:
        site.proxy.delay = 0.0


@contextlib.contextmanager
def dropping(site: Site) -> Generator[None, None, None]:
    """Connections are reset at random."""
    site.proxy.drop_chance = 0.1
    try:
        yield
    finally:
        site.proxy.drop_chance = 0.0


OUTAGES: dict[str, Callable[[Site], AbstractContextManager[None]]] = {
    outage.__name__: outage for outage in (stopped, killed, cut, silent, slow, dropping)
}

OF_THE_NETWORK = ("cut", "silent", "slow", "dropping")
"""Those that need a proxy."""


# With a journal.


class Course(NamedTuple):
    """What was seen before, during and after an outage.

    Attributes:
        before, during, after: The responses, by when they were due.
        refused: How many responses were none of the good ones.
        unanswered: How many requests got none.
        waiting: How many jobs were in the journal alone when the outage ended.
        again: How many deliveries there were beyond the first of each job.
        lag: How many seconds after the end of the load the last job was at the broker.
    """

    before: list[Answer]
    during: list[Answer]
    after: list[Answer]
    refused: int
    unanswered: int
    waiting: int
    again: int
    lag: float

    @property
    def ratio(self) -> float:
        """How much longer the slowest hundredth took than before."""
        return quantile(self.during, 0.99) / quantile(self.before, 0.99)

    @property
    def slowest(self) -> float:
        """The longest that any response took, in seconds."""
        return max(answer.took for answer in (*self.before, *self.during, *self.after))

    def __str__(self) -> str:
        parts = zip(("before", "during", "after"), self[:3], strict=True)
        return (
            f"{', '.join(f'{name} {times(answers)}' for name, answers in parts)}, "
            f"ratio {self.ratio:.2f}; {self.refused} refused, {self.unanswered} unanswered, "
            f"{self.waiting} waited, {self.again} delivered again, the last {self.lag:.1f} s "
            "after the load"
        )


def go_through(
    site: Site,
    outage: str,
    *,
    seconds: float,
    healthy: float = 2.0,
    rate: float = 150.0,
    meanwhile: Callable[[], object] | None = None,
) -> Course:
    """Put the apps of a site under load, and have an outage in the middle of it.

    Returns when the broker has all jobs that were promised.

    Args:
        site: Where; its apps have been started.
        outage: One of `OUTAGES`.
        seconds: How long it lasts.
        healthy: How long the load goes on before it, and after it.
        rate: How many requests a second there are.
        meanwhile: What else is done in the middle of the outage.
    """
    # The load goes on by itself; the time in which it does is what all of this is about.
    with site.load(rate) as load:
        time.sleep(WARM_UP)
        begin = time.monotonic()
        time.sleep(healthy)
        broken = time.monotonic()
        with OUTAGES[outage](site):
            time.sleep(seconds / 2)
            if meanwhile is not None:
                meanwhile()
            time.sleep(max(0.0, broken + seconds - time.monotonic()))
            waiting = site.counts()["queued"]
            mended = time.monotonic()
        time.sleep(healthy)
    end = time.monotonic()
    site.until_delivered(DEADLINE + seconds)
    lag = time.monotonic() - end
    return Course(
        before=load.between(begin, broken),
        during=load.between(broken, mended),
        after=load.between(mended, math.inf),
        refused=sum(answer.status not in (0, 200) for answer in load.answers),
        unanswered=sum(answer.status == 0 for answer in load.answers),
        waiting=waiting,
        again=site.again(),
        lag=lag,
    )


def share(site: Site, seconds: float, rate: float = 300.0) -> list[str]:
    """Put apps that share a journal under load, with nothing wrong.

    Returns:
        The ids of jobs that were not delivered exactly once.
    """
    # As what is done for the first time, such as loading a script into Redis, is tried twice.
    with site.load(rate):
        time.sleep(WARM_UP)
    site.until_delivered()
    with site.broker.watch() as sent:
        with site.load(rate) as load:
            time.sleep(seconds)  # in which the load goes on
        site.until_delivered()
        counts = Counter(sent())
    return [job for job in counts | Counter(load.accepted) if counts[job] != 1]


# Without a journal.


class Refusals(NamedTuple):
    """What was seen of an app without a journal, while its broker was away.

    Attributes:
        jobs: What became of the requests that add jobs.
        others: What became of those that do not.
        return_took: How many seconds after the outage there was a job again.
    """

    jobs: list[Answer]
    others: list[Answer]
    return_took: float

    def __str__(self) -> str:
        return (
            f"requests with jobs {times(self.jobs)}, others {times(self.others)}; "
            f"jobs again {self.return_took:.1f} s after the end"
        )


def go_without(site: Site, outage: str, seconds: float) -> Refusals:
    """Put an app without a journal under load, and have an outage.

    Returns when all is well again, and the broker has all jobs that were promised.
    """
    with site.load(50.0) as load:
        time.sleep(WARM_UP)
    assert {answer.status for answer in load.answers} == {200}, site.log()
    with OUTAGES[outage](site):
        with site.load(100.0, target="GET /?n={}".format) as others, site.load(20.0) as jobs:
            time.sleep(seconds)  # in which the load goes on
    mended = time.monotonic()
    with site.load(20.0) as load:
        site.until(lambda: len(load.accepted) > 10, "good responses after the outage")
    first = min(answer.due + answer.took for answer in load.answers if answer.is_promise)
    site.until_delivered()
    return Refusals(jobs.answers, others.answers, first - mended)
