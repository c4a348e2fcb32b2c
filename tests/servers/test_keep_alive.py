"""The connection goes on, whatever the tasks of a request before do: M2, R3."""

from __future__ import annotations

import pytest

from tests.servers.conftest import StartServer
from tests.servers.harness import UVICORN, UVICORN_HTTPTOOLS, Kind, Server, unique


@pytest.mark.parametrize("task", ["async", "sync"])
def test_next_request_is_served_while_a_task_runs(server: Server, task: str) -> None:
    """M4: on the same connection, twice."""
    first, second, third = unique(), unique(), unique()
    with server.connect() as connection:
        connection.get("/plain", id=first, task=task, hold="task")
        server.at("task-started", id=first)
        assert connection.get("/plain", id=second, task=task, hold="task").status == 200
        server.at("task-started", id=second)
        assert connection.get("/plain", id=third).status == 200
        assert not server.has("task-ended", id=first)
        assert not server.has("task-ended", id=second)
    for call in (first, second):
        server.open(f"{call}.task")
        server.at("task-ended", id=call)


@pytest.mark.parametrize("task", ["fail", "fail-sync", "exit", "exit-sync"])
def test_failing_task_leaves_the_request_in_flight_alone(server: Server, task: str) -> None:
    """R3: uvicorn closes a connection, and hypercorn and daphne exit, when it reaches them.

    So the second request is being answered at the moment when the first one's task fails.
    """
    first, second, third = unique(), unique(), unique()
    with server.connect() as connection:
        connection.get("/plain", id=first, task=[task, "async"], hold="task")
        server.at("task-started", id=first)
        connection.send("/plain", id=second, hold="app")
        server.at("app-waiting", id=second)
        server.open(f"{first}.task")
        # The next job of the request ends, so what the failing one raised has been dealt with.
        server.until_ended(first, 2)
        assert_is_logged_once(server, first)
        server.open(f"{second}.app")
        assert connection.read().status == 200
        assert connection.get("/plain", id=third).status == 200
    assert server.is_alive()


def assert_is_logged_once(server: Server, call: str) -> None:
    """R3: one message and one traceback for the first job of a request."""
    job = server.events("added", id=call)[0]["job"]
    server.until_logged(job)
    lines = server.log().splitlines()
    (index,) = [index for index, line in enumerate(lines) if job in line]
    assert "_task failed in attempt 1 of 1" in lines[index]
    assert lines[index + 1].startswith("Traceback")


@pytest.mark.parametrize("kind", [UVICORN, UVICORN_HTTPTOOLS], ids=str)
@pytest.mark.parametrize("task", ["async", "sync"])
def test_running_tasks_do_not_eat_the_concurrency_limit(
    share: StartServer, kind: Kind, task: str
) -> None:
    """R6: the limit counts calls that have not ended, and jobs are none."""
    server = share(kind, "app", "--limit-concurrency", "3")
    ids = [unique() for _ in range(6)]
    with server.connect() as connection:
        for call in ids:
            assert connection.get("/plain", id=call, task=task, hold="task").status == 200
        for call in ids:
            server.at("task-started", id=call)
        assert connection.get("/plain", id=unique()).status == 200
        assert not any(server.has("task-ended", id=call) for call in ids)
    for call in ids:
        server.open(f"{call}.task")
        server.at("task-ended", id=call)


def test_many_requests_on_one_connection_run_all_their_tasks(server: Server) -> None:
    """M4: one after another, as fast as they come."""
    ids = [unique() for _ in range(100)]
    with server.connect() as connection:
        for call in ids:
            assert connection.get("/plain", id=call, task=["async", "sync"]).status == 200
    server.settle()
    for call in ids:
        server.until_ended(call, 2)
