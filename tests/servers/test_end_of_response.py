"""When jobs start, as a client of a real server sees it: M4, M5, R1, R2, R6, R7."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.servers.conftest import StartServer
from tests.servers.harness import DAPHNE, GRANIAN, UVICORN, Kind, Server, unique


@pytest.mark.parametrize("task", ["async", "sync", "process"])
def test_response_is_complete_while_its_task_runs(server: Server, task: str) -> None:
    """M4, R1: the client has the last byte before the task may end, on every executor."""
    call = unique()
    reply = server.get("/plain", id=call, task=task, hold="task")
    assert (reply.status, reply.body.split()[0]) == (200, call.encode())
    started = server.at("task-started", id=call)
    assert not server.has("task-ended", id=call)
    assert server.at("final-sending", id=call) <= started
    assert server.at("app-returned", id=call) <= started
    server.open(f"{call}.task")
    server.at("task-ended", id=call)


UNGUARDED = {GRANIAN: "granian", DAPHNE: "daphne"}


def test_process_task_runs_in_a_server_started_as_a_module(server: Server) -> None:
    """R1: in a worker process, whatever the server."""
    call = unique()
    server.get("/plain", id=call, task="process")
    server.at("task-ended", id=call)


@pytest.mark.parametrize("kind", UNGUARDED, ids=str)
def test_process_task_under_an_unguarded_main_module_says_what_to_do(
    share: StartServer, kind: Kind
) -> None:
    """Worker processes import the main module, and these two start a server when imported."""
    command = ("-m", UNGUARDED[kind], *kind.command[2:])
    server = share(replace(kind, name=f"{kind}-module", command=command))
    call = unique()
    server.get("/plain", id=call, task="process")
    server.until(lambda: "by its command instead of with python -m" in server.log(), "the advice")
    assert not server.has("task-ended", id=call)


def test_response_is_complete_while_the_app_cleans_up(server: Server) -> None:
    """M4: the cleanup after the response comes before the tasks, and may add more to them."""
    call = unique()
    server.get("/late", id=call, task="async", hold="app")
    server.at("app-waiting", id=call)
    assert not server.has("task-started", id=call)
    server.open(f"{call}.app")
    server.until_ended(call, 2)
    story = server.story(call)
    story.remove("call-ended")  # before or after the tasks: supervised, or request-bound
    story.remove("final-sent")
    assert story == [
        "app-called",
        "added",
        "final-sending",
        "app-waiting",
        "added",
        "app-returned",
        *("task-started", "task-ended") * 2,
    ]


def test_tasks_of_a_request_run_one_after_another(server: Server) -> None:
    """R2: in the order added, across executors."""
    call = unique()
    server.get("/plain", id=call, task=["sync", "async", "process", "async", "sync"])
    server.until_ended(call, 5)
    tasks = [event for event in server.story(call) if event.startswith("task-")]
    assert tasks == ["task-started", "task-ended"] * 5


def test_call_ends_before_or_after_its_tasks_as_the_server_speaks_lifespan(
    server: Server,
) -> None:
    """R6, R7: supervised jobs outlive the request's call, others run inside of it."""
    call = unique()
    server.get("/plain", id=call, task="async", hold="task")
    if server.kind.has_lifespan:
        server.at("call-ended", id=call)
        assert not server.has("task-ended", id=call)
    server.at("task-started", id=call)
    server.open(f"{call}.task")
    server.at("task-ended", id=call)
    if not server.kind.has_lifespan:
        assert server.at("call-ended", id=call) >= server.at("task-ended", id=call)


def test_app_that_fails_after_the_response_runs_its_tasks(server: Server) -> None:
    """M4: and the server hears of the failure as it would without us."""
    call = unique()
    assert server.get("/late-error", id=call, task=["async", "sync"]).status == 200
    server.until_ended(call, 2)
    server.until_logged(f"{call} fails on purpose")


@pytest.mark.parametrize("status", [404, 500])
def test_error_response_runs_tasks_unless_they_ask_for_success(server: Server, status: int) -> None:
    """M5: a response that ended is one, whatever its status; ``success`` asks for below 400."""
    ran, dropped = unique(), unique()
    assert server.get("/plain", id=ran, task="async", status=status).status == status
    server.at("task-ended", id=ran)
    reply = server.get("/plain", id=dropped, task="async", status=status, run_on="success")
    assert reply.status == status
    assert_is_dropped(server, dropped)


def test_endpoint_that_fails_drops_its_tasks_unless_they_run_always(server: Server) -> None:
    """M5: the server makes a 500 of it, which is no response of the app's."""
    dropped, ran = unique(), unique()
    assert server.get("/error", id=dropped, task="async").status == 500
    assert_is_dropped(server, dropped)
    assert server.get("/error", id=ran, task="async", run_on="always").status == 500
    server.at("task-ended", id=ran)


def test_middleware_asks_for_success_for_tasks_that_do_not_say(share: StartServer) -> None:
    """M5: the middleware's ``run_on="success"`` drops at 404; a task's own option counts more."""
    server = share(UVICORN, "success")
    ran, dropped, own = unique(), unique(), unique()
    server.get("/plain", id=ran, task="async")
    server.at("task-ended", id=ran)
    server.get("/plain", id=dropped, task="async", status=404)
    assert_is_dropped(server, dropped)
    server.get("/plain", id=own, task="async", status=404, run_on="response")
    server.at("task-ended", id=own)


def test_middleware_runs_tasks_of_failed_endpoints_where_told_so(share: StartServer) -> None:
    """M5: the middleware's ``run_on="always"``."""
    server = share(UVICORN, "always")
    call = unique()
    assert server.get("/error", id=call, task="async").status == 500
    server.at("task-ended", id=call)


def test_nested_middleware_runs_each_task_once(share: StartServer) -> None:
    """M7: two instances that share a runner act as one."""
    server = share(UVICORN, "nested")
    call = unique()
    server.get("/plain", id=call, task=["async", "sync"])
    server.settle()
    assert len(server.events("task-ended", id=call)) == 2


def assert_is_dropped(server: Server, call: str) -> None:
    """M5: it never starts, and one warning names the task and the job."""
    (added,) = server.events("added", id=call)
    server.until_logged(added["job"])
    server.settle()
    (line,) = [line for line in server.log().splitlines() if added["job"] in line]
    assert "1 job(s) dropped" in line
    assert "async_task" in line
    assert not server.has("task-started", id=call)
