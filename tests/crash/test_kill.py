"""Servers that are killed at named points and at random moments (J3), or ended in good order."""

from __future__ import annotations

import random
import time

import pytest

from tests.crash.harness import Site, kill_at_random, mixed, slow

ADDING = [
    "after-open",
    "before-commit:10",
    "mid-commit:1",
    "after-commit:10",
    "before-send:100",
    "after-send:100",
]
RUNNING = [
    "before-start:100",
    "after-start:100",
    "mid-task:100",
    "after-end:100",
    "before-note:100",
    "after-note:100",
    "before-result-commit:10",
    "mid-result-commit:10",
    "before-mixed-commit:5",
    "after-result-commit:10",
    "after-turn:10",
]
RECOVERING = [
    "before-recovery",
    "mid-recovery",
    "after-taking",
    "after-recovery",
    "mid-claim",
    "after-claim",
    "after-claim:3",
]


@pytest.mark.parametrize("point", [*ADDING, *RUNNING])
def test_server_killed_at_a_point_of_its_work_loses_nothing(site: Site, point: str) -> None:
    """J3: the next start runs what was answered, and nothing that had ended."""
    dying = site.start(point=point, is_awaited=point != "after-open")
    with site.load():
        dying.await_death()
    site.start()
    figures = site.finish()
    assert figures.kills == 1
    if point.startswith(("before-commit", "after-commit", "before-send")):
        assert figures.unanswered > 0


@pytest.mark.parametrize("steps", [1, 30, 100, 300, 1000])
def test_server_killed_in_the_middle_of_a_commit_loses_nothing(site: Site, steps: int) -> None:
    """J3: at the beginning of the statement, between the jobs of it, or close to its end."""
    dying = site.start(point="mid-result-commit:10", steps=steps)
    with site.load():
        dying.await_death()
    site.start()
    assert site.finish().kills == 1


def test_job_whose_response_was_held_back_by_the_kill_runs_once(site: Site) -> None:
    """J3: on disk before the answer; whether the client then sees it is chance."""
    dying = site.start(point="after-commit")
    with site.load(connections=1, limit=1):
        dying.await_death()
    site.start()
    figures = site.finish()
    assert (figures.accepted, figures.unanswered, figures.run, figures.again) == (0, 1, 1, 0)


def test_job_whose_response_was_sent_just_before_the_kill_runs_once(site: Site) -> None:
    """J3: acknowledged and not yet started."""
    dying = site.start(point="after-send")
    with site.load(connections=1, limit=1) as load:
        site.until_accepted(load, 1)
        dying.await_death()
    site.start()
    figures = site.finish()
    assert (figures.accepted, figures.run, figures.again) == (1, 1, 0)


def test_job_that_was_not_yet_written_at_the_kill_does_not_run(site: Site) -> None:
    """J1: nothing was promised, and nothing is done."""
    dying = site.start(point="before-commit")
    with site.load(connections=1, limit=1):
        dying.await_death()
    site.start()
    figures = site.finish()
    assert (figures.accepted, figures.unanswered, figures.run) == (0, 1, 0)


@pytest.mark.parametrize("task", ["async", "thread"])
def test_job_that_was_running_at_the_kill_runs_again_with_the_next_number(
    site: Site, task: str
) -> None:
    """J3: at least once, as the same job."""
    dying = site.start(point="mid-task")
    (job,) = site.add(dying, task, seconds=0.1)
    dying.await_death()
    site.start()
    figures = site.finish()
    assert (figures.run, figures.again) == (1, 1)
    assert [attempt for _, _, attempt, *_ in site.told("start", [job])] == ["1", "2"]


@pytest.mark.parametrize("point", ["after-note", "before-result-commit", "mid-result-commit"])
@pytest.mark.parametrize("task", ["async", "thread"])
def test_job_that_had_ended_before_the_kill_does_not_run_again(
    site: Site, task: str, point: str
) -> None:
    """J3: exactly once, though its end had not been committed."""
    dying = site.start(point=point)
    site.add(dying, task, seconds=0.05)
    dying.await_death()
    site.start()
    figures = site.finish()
    assert (figures.run, figures.again) == (1, 0)


def test_function_that_had_ended_beside_a_blocked_loop_does_not_run_again(site: Site) -> None:
    """J3: its end is not lost on the way from its thread to an event loop that is busy."""
    server = site.start()
    jobs = site.add(server, "thread", 5, gate="end")
    site.until_started(jobs)
    with site.block(server, 30):
        site.open("end")
        site.until(lambda: len(site.told("end", jobs)) == len(jobs), "end of the functions")
        # What takes a moment after that is told; what waits for the loop would not be by then.
        site.until(lambda: len(site.told("noted")) == len(jobs), "note of their ends", 20)
        server.kill()
    site.start()
    figures = site.finish()
    assert (figures.run, figures.again) == (5, 0)


@pytest.mark.parametrize("point", RECOVERING)
def test_server_killed_while_it_takes_over_loses_nothing(site: Site, point: str) -> None:
    """J3: the second death finds the jobs of the first one, some of them taken over."""
    first = site.start()
    with site.load(slow) as load:
        site.until_accepted(load, 200)
        first.kill()
    site.start(point=point, max_jobs=20, is_awaited=False).await_death()
    site.start()
    assert site.finish().kills == 2


def test_one_process_killed_at_random_moments_loses_nothing(site: Site) -> None:
    """J3: and runs nothing again that was not running."""
    kill_at_random(site, random.Random(1), workers=1, kills=6)


def test_four_processes_killed_at_random_moments_lose_nothing(site: Site) -> None:
    """J3 and J4: one, two or all of them, while the others go on."""
    kill_at_random(site, random.Random(2), workers=4, kills=6)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_with_little_room_killed_at_random_moments_lose_nothing(
    site: Site, workers: int
) -> None:
    """J3 and R8: most jobs wait in the journal, for whoever has room."""
    kill_at_random(site, random.Random(4), workers=workers, kills=4, max_jobs=4)


def test_followers_keep_their_place_where_most_jobs_wait_in_the_journal(site: Site) -> None:
    """R2 and R8: a job that is given back for want of room takes its followers along."""
    site.start(max_jobs=4)
    with site.load() as load:
        site.until_accepted(load, 1000)
    assert site.finish().again == 0


def test_sigterm_with_a_backlog_runs_no_job_twice(site: Site) -> None:
    """R6 and J3: what is being claimed at that moment is left to the next start."""
    with site.load(lambda number: mixed(number).partition("&follower")[0]) as load:
        for _ in range(5):
            server = site.start(max_jobs=4, drain_timeout=0.05)
            site.until_accepted(load, len(load.accepted) + 150)
            server.terminate()
    site.start()
    site.finish()


def test_sigterm_leaves_unfinished_jobs_to_the_next_start(site: Site) -> None:
    """R6: those that ran and those that waited, and none counts as crashed."""
    server = site.start(drain_timeout=0.5)
    running = [
        *site.add(server, "async", 5, gate="end"),
        *site.add(server, "thread", 5, gate="end"),
    ]
    site.until_started(running)
    waiting = site.add(server, "narrow", 6, gate="end")
    done = site.add(server, "async", 5)
    server.terminate()
    rows = site.rows()
    assert {rows[job].status for job in (*running, *waiting)} == {"queued"}
    assert {rows[job].status for job in done} == {"succeeded"}
    site.open("end")
    site.start()
    figures = site.finish()
    assert figures.run == len(running) + len(waiting) + len(done)
    assert {(row.status, row.crashes) for row in site.rows().values()} == {("succeeded", 0)}
    assert figures.again == len(running) + 2  # of the narrow ones, two were running


def test_sigterm_and_sigkill_by_turns_under_load_lose_nothing(site: Site) -> None:
    """R6 and J3: what one start leaves, the next one does."""
    with site.load() as load:
        for turn in range(4):
            server = site.start(drain_timeout=0.02)
            site.until_accepted(load, len(load.accepted) + 200)
            if turn % 2:
                server.kill()
            else:
                server.terminate()
    site.start()
    assert site.finish().accepted >= 800


def test_process_killed_while_it_shuts_down_loses_nothing(site: Site) -> None:
    """R6 and J3: between the drain and the end of the process."""
    server = site.start(drain_timeout=0.1, point="before-close")
    jobs = site.add(server, "async", 10, gate="end")
    site.until_started(jobs)
    server.terminate()
    site.open("end")
    site.start()
    figures = site.finish()
    assert (figures.kills, figures.run) == (1, 10)


def test_follower_waits_for_the_job_before_it_after_a_kill_too(site: Site) -> None:
    """R2 and J3: the jobs of one request run one after another, whatever happens."""
    server = site.start()
    jobs = site.add(server, "async", 5, gate="end", follower="thread")
    jobs += site.add(server, "thread", 5, gate="end", follower="async")
    site.until(lambda: len(site.told("start")) == 10, "start of the first ones")
    server.kill()
    site.start()
    site.until(lambda: len(site.told("start")) == 20, "start of the first ones again")
    site.open("end")
    figures = site.finish()
    assert (len(jobs), figures.run, figures.again) == (20, 20, 10)


def test_delayed_job_is_not_forgotten_and_not_early_after_a_kill(site: Site) -> None:
    """J6: the instant is the one that the job was added with."""
    server = site.start()
    added = time.monotonic()
    site.add(server, "async", 5, delay=1.5)
    server.kill()
    site.start()
    figures = site.finish()
    assert (figures.run, figures.again) == (5, 0)
    assert min(float(start[4]) for start in site.told("start")) >= added + 1.5


def test_server_without_lifespan_loses_nothing_when_killed(site: Site) -> None:
    """J3 and R7: what a kill leaves is taken up with the first request after it."""
    server = site.start(lifespan="off")
    with site.load() as load:
        site.until_accepted(load, 200)
        server.kill()
    site.add(site.start(lifespan="off"), "async")
    site.finish()


def test_function_in_another_process_does_not_outlive_its_server(site: Site) -> None:
    """J4: or it would go on beside the second attempt, which the next server starts."""
    server = site.start()
    jobs = site.add(server, "process", 2, gate="end")
    site.until_started(jobs)
    (process,) = server.processes()
    server.kill_one(process)
    site.start()
    site.until(lambda: len(site.told("start", jobs)) == 4, "start of the second attempts")
    site.open("end")
    figures = site.finish()
    assert (figures.run, figures.again) == (2, 2)
