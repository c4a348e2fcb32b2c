"""The status API under real servers: streams, disconnects, shutdown, restart, a crowd (W2)."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.helpers import need, wait_until

httpx = need("httpx")
need("starlette")
need("uvicorn")

from tests.services.web import DEADLINE  # noqa: E402
from tests.web.events import STREAM  # noqa: E402
from tests.web.status_harness import Site, events_of  # noqa: E402


@pytest.fixture(params=["h11", "httptools"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A running server, with either of uvicorn's ways to speak HTTP."""
    need(request.param)
    with Site(tmp_path, "--http", request.param) as started:
        yield started


@pytest.fixture(params=["uvicorn", "hypercorn"])
def either_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A running server of either kind that is told of a disconnect in its own way."""
    need(request.param)
    with Site(tmp_path, server=request.param) as started:
        yield started


@pytest.fixture
def any_site(tmp_path: Path) -> Iterator[Site]:
    """A running server, where nothing depends on which."""
    with Site(tmp_path) as started:
        yield started


def test_stream_brings_every_change_while_the_job_runs(site: Site) -> None:
    """W2: each is there before the next is made; the last has the result, and is the last."""
    (job,) = site.add("one")
    with site.client.stream("GET", f"/jobs/{job}", headers=STREAM) as response:
        events = events_of(response)
        for words in ("0.25", "0.5", "1"):
            site.tell("one", words)
            told = next(told for _, told in events if told["progress"] == float(words))
            assert (told["status"], told["message"]) == ("running", f"at {words}")
        site.tell("one", "end")
        ((_, told),) = list(events)
    assert (told["status"], told["result"]) == ("succeeded", "one has ended")
    assert site.facts()["followers"] == 0
    assert not site.facts()["is_looking"]


def test_failed_job_ends_its_stream_without_a_word_of_why(site: Site) -> None:
    """W2: what the task raised stays on the server."""
    (job,) = site.add("one")
    with site.client.stream("GET", f"/jobs/{job}", headers=STREAM) as response:
        site.tell("one", "fail")
        (*_, (_, told)) = list(events_of(response))
    assert told["status"] == "failed"
    assert "secret" not in str(told)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "wait"])
def test_client_that_disconnects_is_let_go_at_once(either_site: Site, stream: bool) -> None:
    """W2: within a moment, where the next heartbeat is a quarter of a minute away."""
    site = either_site
    (job,) = site.add("one")
    accept = "Accept: text/event-stream\r\n" if stream else ""
    clients = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(20)]
    for client in clients:
        client.sendall(f"GET /jobs/{job}?wait=60 HTTP/1.1\r\nHost: x\r\n{accept}\r\n".encode())
    wait_until(lambda: site.facts()["followers"] == 20, "followers")
    began = time.monotonic()
    for client in clients:
        client.close()
    wait_until(lambda: site.facts()["followers"] == 0, "end of following")
    assert time.monotonic() - began < 10
    assert not site.facts()["is_looking"]
    site.tell("one", "end")
    assert "Traceback" not in site.log()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "wait"])
def test_shutdown_waits_for_nobody_who_follows(site: Site, stream: bool) -> None:
    """W2: uvicorn waits for open connections, so those are ended when it is told to end."""
    (job,) = site.add("one")
    answers: list[str] = []

    def follow() -> None:
        headers = STREAM if stream else {}
        response = httpx.get(
            f"{site.url}/jobs/{job}?wait=60", headers=headers, timeout=DEADLINE, trust_env=False
        )
        answers.append(response.text)

    threads = [threading.Thread(target=follow) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: site.facts()["followers"] == 5, "followers")
    wait_until(lambda: site.job(job)["status"] == "running", "start")
    began = time.monotonic()
    site.stop()
    # The job itself, which does not end, is waited for until the drain's time is up (R6).
    assert time.monotonic() - began < 15
    for thread in threads:
        thread.join(DEADLINE)
    assert len(answers) == 5
    assert all('"status":"running"' in answer for answer in answers)
    assert "Traceback" not in site.log()


def test_stream_goes_on_after_a_restart_of_the_server(any_site: Site) -> None:
    """J3: the same id; nothing is told twice, and in the end the browser is told to stop."""
    site = any_site
    (job,) = site.add("one")
    site.tell("one", "0.5")
    with site.client.stream("GET", f"/jobs/{job}", headers=STREAM) as response:
        last = next(tag for tag, told in events_of(response) if told["progress"] == 0.5)
        site.kill()
    site.start()
    headers = {**STREAM, "last-event-id": last}
    with site.client.stream("GET", f"/jobs/{job}", headers=headers) as response:
        site.tell("one", "0.75")
        events = []
        for tag, told in events_of(response):
            events.append((tag, told))
            if told["progress"] == 0.75:
                site.tell("one", "end")
    assert last not in [tag for tag, _ in events]
    last, told = events[-1]
    assert (told["id"], told["status"], told["result"]) == (job, "succeeded", "one has ended")
    headers = {**STREAM, "last-event-id": last}
    assert site.client.get(f"/jobs/{job}", headers=headers).status_code == 204
    # Also by a process that has not seen it end.
    site.stop()
    site.start()
    assert site.client.get(f"/jobs/{job}", headers=headers).status_code == 204


def test_job_of_another_process_is_followed_like_one_of_this(tmp_path: Path) -> None:
    """J4: both share a journal, and a load balancer may lead a client to either."""
    with Site(tmp_path) as first, Site(tmp_path) as second:
        (job,) = first.add("one")
        assert first.facts()["pid"] != second.facts()["pid"]
        with second.client.stream("GET", f"/jobs/{job}", headers=STREAM) as response:
            events = events_of(response)
            first.tell("one", "0.5")
            next(told for _, told in events if told["progress"] == 0.5)
            first.tell("one", "end")
            (*_, (_, told)) = list(events)
        assert told["result"] == "one has ended"
        # Each of its two tags is the same here and there.
        known = [one.client.get(f"/jobs/{job}").headers["etag"] for one in (first, second)]
        assert known[0] == known[1]


def test_five_hundred_clients_cost_no_thread_each(any_site: Site) -> None:
    """W2: on as many connections, each with a job of its own; the app goes on beside them."""
    site = any_site
    count = 500
    names = [f"n{number}" for number in range(count)]
    jobs = [job for start in range(0, count, 50) for job in site.add(*names[start : start + 50])]
    process = psutil.Process(site.facts()["pid"])
    site.client.get(f"/jobs/{jobs[0]}?wait=0.1")
    threads = process.num_threads()
    clients = []
    for number, job in enumerate(jobs):
        client = socket.create_connection(("127.0.0.1", site.port))
        accept = "Accept: text/event-stream\r\n" if number % 2 else ""
        head = f"GET /jobs/{job}?wait=60 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        client.sendall(f"{head}{accept}\r\n".encode())
        clients.append(client)
    try:
        wait_until(lambda: site.facts()["followers"] == count, "followers")
        assert process.num_threads() <= threads + 2  # a reader of the journal may have come
        waits = []
        for _ in range(20):
            began = time.monotonic()
            site.facts()
            waits.append(time.monotonic() - began)
        assert sorted(waits)[10] < 1.0
        for name in names:
            site.tell(name, "end")
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(_read_all, clients))
    finally:
        for client in clients:
            client.close()
    for answer, name in zip(answers, names, strict=True):
        assert re.search(rb'"result":"%b has ended"' % name.encode(), answer), answer
    assert site.facts()["followers"] == 0


def _read_all(client: socket.socket) -> bytes:
    client.settimeout(DEADLINE)
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)
