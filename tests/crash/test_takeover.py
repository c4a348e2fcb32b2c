"""Processes that share a journal, and the death of some of them (J4, J5)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.conftest import IS_SOAK
from tests.crash.harness import Server, Site, kill_at_random

TAKEOVER = 5.0
"""Within how many seconds of a death others have its jobs (J4)."""

BLOCKED = 30.0 if IS_SOAK else 8.0
"""For how many seconds processes are silent here."""

MANY = 10_000


@pytest.fixture
def four(site: Site) -> list[Server]:
    """Four servers of one process each, on one journal."""
    servers = [site.start(is_awaited=False) for _ in range(4)]
    for server in servers:
        site.until(server.is_accepting, "server that comes up")
    return servers


def test_unfinished_jobs_of_a_killed_process_run_elsewhere_within_5_seconds(
    site: Site, four: list[Server]
) -> None:
    """J4: those that ran, and those that waited for them; nothing else is disturbed."""
    victim, *others = four
    running = [
        *site.add(victim, "async", 10, gate="end"),
        *site.add(victim, "thread", 5, gate="end"),
    ]
    waiting = site.add(victim, "narrow", 20, seconds=0.05, gate="end")
    undisturbed = [job for server in others for job in site.add(server, "async", 5, gate="end")]
    site.until_started([*running, *undisturbed])
    dead = victim.process.pid
    victim.kill()
    killed = time.monotonic()

    def are_running_elsewhere() -> bool:
        elsewhere = {
            job
            for _, job, _, process, _ in site.told("start", running)
            if not process.startswith(f"{dead}-")
        }
        return len(elsewhere) == len(running)

    site.until(are_running_elsewhere, "start elsewhere of all that ran", TAKEOVER)
    site.open("end")
    # The narrow ones need a second or so of work, if all of them went to one process.
    site.until_started(waiting, TAKEOVER - (time.monotonic() - killed) + 1.0)
    figures = site.finish()
    assert figures.run == len(running) + len(waiting) + len(undisturbed)
    assert len(site.told("start", undisturbed)) == len(undisturbed)


def test_jobs_of_a_killed_worker_run_in_the_others_within_5_seconds(site: Site) -> None:
    """J4: with ``--workers 4``, where the server starts a new worker besides."""
    server = site.start(workers=4)
    jobs = site.add(server, "async", 40, gate="end")
    site.until_started(jobs)
    victim = site.told("start", jobs)[0][3]
    of_victim = [job for _, job, _, process, _ in site.told("start", jobs) if process == victim]
    server.kill_one(victim)
    site.until(
        lambda: len(site.told("start", of_victim)) == 2 * len(of_victim),
        "start elsewhere of all that ran",
        TAKEOVER,
    )
    site.open("end")
    figures = site.finish()
    assert (figures.run, figures.again) == (len(jobs), len(of_victim))


@pytest.mark.timeout(120 + 4 * BLOCKED)
def test_silent_processes_lose_nothing_while_they_live(site: Site, four: list[Server]) -> None:
    """J4: one whose event loop is blocked, and one that is stopped altogether."""
    blocked, stopped, *others = four
    jobs = [
        job
        for server in four
        for task in ("async", "thread")
        for job in site.add(server, task, 5, gate="end")
    ]
    site.until_started(jobs)
    waiting = [job for server in four for job in site.add(server, "narrow", 5, seconds=0.01)]
    with site.block(blocked, BLOCKED):
        stopped.stop()
        silent_until = time.monotonic() + BLOCKED
        # The others go on as ever, and look for the dead all the time.
        while time.monotonic() < silent_until - 1:
            for server in others:
                site.add(server, "async", 2)
            assert len(site.told("start", jobs)) == len(jobs), site.report()
            time.sleep(0.2)
    stopped.go_on()
    site.open("end")
    figures = site.finish()
    assert (figures.again, figures.kills) == (0, 0)
    assert len(site.told("end", waiting)) == len(waiting)


@pytest.mark.timeout(300)
def test_ten_thousand_jobs_over_four_processes_killed_at_random(site: Site) -> None:
    """J3 and J4: none lost, none in two processes at once, none again but what ran."""
    figures = kill_at_random(site, random.Random(3), workers=4, kills=10, jobs=MANY)
    assert figures.run >= MANY


def test_job_that_kills_three_processes_is_failed_and_its_neighbours_finish(
    site: Site, four: list[Server]
) -> None:
    """J5: the fourth process is left in peace."""
    first, *_ = four
    neighbours = site.add(first, "async", 10, seconds=0.01, gate="begin")
    (poison,) = site.add(first, "poison", seconds=0.3)
    neighbours += site.add(first, "async", 10, seconds=0.01)
    neighbours += site.add(first, "narrow", 10, seconds=0.01)
    site.open("begin")
    site.until(lambda: site.rows()[poison].status == "failed", "failure of the poisonous job")
    figures = site.finish()
    assert (figures.kills, figures.poisonous, figures.run) == (3, 1, len(neighbours))
    assert len(site.told("start", [poison])) == 3
    row = site.rows()[poison]
    assert row.error is not None
    assert "died 3 times" in row.error
    assert sum(server.is_up() for server in four) == 1


def test_files_of_dead_processes_are_removed(site: Site, four: list[Server]) -> None:
    """J4: what marks a process as the owner of its jobs goes when somebody has them."""
    jobs = site.add(four[0], "async", 1, gate="end")
    site.until_started(jobs)
    for server in four[:3]:
        server.kill()
    site.until(lambda: len(list(_owner_files(site.directory))) == 1, "removal of three files")
    site.open("end")
    site.finish()


def _owner_files(directory: Path) -> Iterator[Path]:
    return directory.glob("jobs.db-owner-*")
