"""A broker that is away delays jobs, and neither loses them nor slows responses down (E1, E2).

Outages are short here, and not all of them are tried with all engines; `tests.outage.soak`
takes its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import need
from tests.outage.brokers import KINDS, Broker
from tests.outage.harness import Site, running_broker
from tests.outage.load import quantile
from tests.outage.outages import Course, go_through, go_without, share
from tests.outage.proxy import Proxy

SECONDS = 2.0
"""How long outages last here."""

SLOWEST = 2.0
"""How many seconds a response may take, on a machine that may be busy with other things."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """An engine and its broker."""
    name: str = request.param
    need(KINDS[name].module)
    need("uvicorn")
    return name


@pytest.fixture(scope="module")
def broker(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for all tests of its kind."""
    with running_broker(kind, tmp_path_factory.mktemp(kind)) as running:
        yield running


@pytest.fixture
def site(kind: str, broker: Broker, tmp_path: Path) -> Iterator[Site]:
    """A journal, and no app yet."""
    made = Site(kind, broker, tmp_path)
    yield made
    made.close()


@pytest.fixture
def far_site(kind: str, broker: Broker, tmp_path: Path) -> Iterator[Site]:
    """One whose way to the broker can be disturbed."""
    with Proxy(broker.service.port) as proxy:
        made = Site(kind, broker, tmp_path, proxy)
        yield made
        made.close()


def check(course: Course) -> None:
    """Check that there were good responses only, in time."""
    print(course)
    assert course.refused == 0
    assert course.slowest < SLOWEST


def test_broker_and_app_that_die_lose_nothing(site: Site) -> None:
    """E1 and J3: every response is good meanwhile, and every promised job arrives."""
    (app,) = site.start()
    stopped = go_through(site, "stopped", seconds=SECONDS, healthy=0.5)
    check(stopped)
    assert stopped.unanswered == 0
    assert stopped.waiting > 0

    def restart() -> None:
        app.kill()
        site.start()

    # The jobs of the first app are found in the journal by the second one.
    killed = go_through(site, "killed", seconds=SECONDS, healthy=0.5, meanwhile=restart)
    check(killed)
    assert killed.waiting > 0
    assert site.tracebacks() == 0, site.log()


@pytest.mark.parametrize(
    "kind", ["celery-rabbitmq", "procrastinate"], indirect=True, scope="module"
)
def test_jobs_arrive_over_a_broken_network(far_site: Site) -> None:
    """E1: over one that is cut, slow, or loses connections."""
    far_site.start()
    for outage in ("cut", "slow", "dropping"):
        course = go_through(far_site, outage, seconds=1.5, healthy=0.5)
        check(course)
        assert course.unanswered == 0
    assert far_site.tracebacks() == 0, far_site.log()


def test_two_apps_forward_each_job_once(site: Site) -> None:
    """E2: as long as nothing dies."""
    site.start(2)
    assert share(site, 1.5) == []


def test_without_a_journal_requests_fail_in_time_while_the_broker_is_away(site: Site) -> None:
    """E1: the loop goes on meanwhile, and all is well afterwards."""
    site.journal = None
    site.timeout = 1.0
    site.start()
    seen = go_without(site, "stopped", 1.5)
    print(seen)
    assert {answer.status for answer in seen.jobs} == {500}
    assert max(answer.took for answer in seen.jobs) < site.timeout + 2.0
    assert {answer.status for answer in seen.others} == {200}
    assert quantile(seen.others, 0.99) < 0.5
