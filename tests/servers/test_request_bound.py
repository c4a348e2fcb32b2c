"""Jobs inside the request's own call, where the server speaks no lifespan: R7."""

from __future__ import annotations

from tests.servers.conftest import StartServer
from tests.servers.harness import DAPHNE, unique


def test_task_outlasts_the_cancellation_of_its_call(share: StartServer) -> None:
    """R7: daphne cancels a call 10 seconds after its last message, and then every second.

    Async and sync alike. A call without tasks shows that it has come to that.
    """
    server = share(DAPHNE)
    ids = {"async": unique(), "sync": unique()}
    probe = unique()
    for task, call in ids.items():
        with server.connect() as connection:
            connection.get("/plain", id=call, task=[task, "async"], hold="task")
            server.at("task-started", id=call)
    server.get("/linger", id=probe, hold="app")
    server.until(lambda: len(server.events("app-cancelled", id=probe)) == 4, "4 cancellations")
    assert server.at("app-cancelled", id=probe) - server.at("final-sending", id=probe) >= 9.5
    server.open(f"{probe}.app")
    for call in ids.values():
        assert not server.has("task-ended", id=call)
        assert not server.has("call-ended", id=call)
        server.open(f"{call}.task")
    for call in ids.values():
        server.at("call-ended", id=call)
        tasks = [event for event in server.story(call) if event.startswith("task-")]
        assert tasks == ["task-started", "task-ended"] * 2
