"""`asgi_bg.django`, on a real Django: by its test clients, and by real servers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from asgi_bg import Runner, add_task, task
from asgi_bg.exceptions import MiddlewareNotInstalled, NotSerializable
from tests.helpers import Connection, need, wait_until
from tests.servers.harness import DAPHNE, ROOT, UVICORN, Kind, Server
from tests.servers.harness import Connection as Client_

need("django")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.integrations.django_site.settings")

import django  # noqa: E402

django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import AsyncClient, Client, RequestFactory, TestCase, override_settings  # noqa: E402
from django.test.utils import (  # noqa: E402
    setup_databases,
    setup_test_environment,
    teardown_databases,
    teardown_test_environment,
)
from django.urls import path  # noqa: E402

from asgi_bg.django import (  # noqa: E402
    BackgroundTasksMiddleware,
    _setup,
    collect_tasks,
    get_runner,
    init_app,
    tasks_from,
)
from asgi_bg.django._served import portal  # noqa: E402
from tests.integrations.django_site import tasks  # noqa: E402
from tests.integrations.django_site.models import Note  # noqa: E402
from tests.integrations.serving import Start, get_json, servers_of  # noqa: E402

SITE = "tests.integrations.django_site"


@pytest.fixture(scope="module", autouse=True)
def _database() -> Iterator[None]:
    """What Django's own test runner does around a run."""
    setup_test_environment()
    made = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(made, verbosity=0)
    teardown_test_environment()
    connections.close_all()


def words() -> list[str]:
    return list(Note.objects.order_by("id").values_list("word", flat=True))


class SyncClientTest(TestCase):
    """In the transaction that Django's `TestCase` puts around a test, and takes back."""

    def test_jobs_have_run_when_the_client_returns(self) -> None:
        """R7: sync and async views, plain and async tasks, all on the test's connection."""
        assert self.client.get("/sync?word=a").content == b"ok"
        assert self.client.get("/async?word=b").status_code == 200
        assert words() == ["a", "visitor a", "b", "b plain"]
        assert Note.objects.get(word="a").thread == threading.current_thread().name

    def test_sync_and_async_within_each_other(self) -> None:
        """R4: a job does not wait for a thread that was lent to the code which added it."""
        assert self.client.get("/nested?word=a").content == b"ok"
        assert self.client.get("/odd?word=b").content == b"ok"
        assert words() == ["a", "a through async", "a deep down", "b"]

    def test_outside_of_requests(self) -> None:
        """`collect_tasks`: as in a management command; what raises adds nothing."""
        with collect_tasks() as collected:
            add_task(tasks.note, "a")
            collected.add_task(tasks.anote, "b")
            assert words() == []
        assert words() == ["a", "b"]
        with self.assertLogs("asgi_bg", "WARNING"), pytest.raises(ValueError, match="block"):
            with collect_tasks():
                add_task(tasks.note, "c")
                raise ValueError("block")
        assert words() == ["a", "b"]

    def test_failing_job_fails_alone(self) -> None:
        """R3: the client does not hear of it."""
        with self.assertLogs("asgi_bg", "ERROR") as logged:
            assert self.client.get("/failing-tasks?word=a").content == b"ok"
        assert "anote_and_fail" in logged.output[0]
        assert words() == ["a"]

    def test_what_the_view_raises_is_as_before(self) -> None:
        """M5: Django makes a response of an error, and after that response the jobs run."""
        with self.assertLogs("django.request"):
            assert self.client.get("/not-found?word=a").status_code == 404
            with pytest.raises(RuntimeError, match="view"):
                self.client.get("/crash?word=b")
            client = Client(raise_request_exception=False)
            assert client.get("/crash?word=c").status_code == 500
        assert words() == ["a", "b", "c"]

    def test_run_on_success_of_the_settings(self) -> None:
        """M5: as in the setting."""
        with override_settings(ASGI_BG={"run_on": "success"}), self.assertLogs("asgi_bg"):
            assert self.client.get("/not-found?word=a").status_code == 404
        assert words() == []

    def test_on_commit_adds_a_task_when_django_says_so(self) -> None:
        """As everywhere in a `TestCase`: only where its commits are captured."""
        self.client.get("/on-commit?word=a")
        with collect_tasks() as collected, self.captureOnCommitCallbacks(execute=True) as callbacks:
            self.client.get("/on-commit?word=b")
        assert len(callbacks) == 1
        assert len(collected) == 0
        assert words() == ["a row", "b row", "b"]

    def test_stream_runs_its_jobs_when_it_has_been_read(self) -> None:
        """M3: at the end of the response, which is the end of the stream."""
        response = self.client.get("/stream?word=a")
        assert words() == []
        assert b"".join(response.streaming_content) == b"onetwo"  # type: ignore[arg-type]
        assert words() == ["a"]

    def test_retry_runs_though_the_request_is_over(self) -> None:
        """R7: in a thread of the runner's. Its row is of another connection, so it is not seen
        here, and the lock that this test holds may stand in its way; that it was tried counts."""
        with self.assertLogs("asgi_bg"):
            job = self.client.get("/flaky?word=a").content.decode()
        wait_until(lambda: self.client.get(f"/jobs/{job}").json()["attempt"] >= 2, "a second try")

    def test_durable_job_that_does_not_fit_fails_in_the_view(self) -> None:
        """J7 where there is a journal."""
        journal = Path(self.enterContext(tempfile.TemporaryDirectory()), "journal.sqlite3")
        with override_settings(ASGI_BG={"journal": journal}):
            with pytest.raises(NotSerializable, match="durable_note"):
                self.client.get("/unfit")
            job = self.client.get("/durable?word=kept").json()["job"]
            assert self.client.get(f"/jobs/{job}").json()["status"] == "succeeded"
            close(get_runner())
        assert words() == ["kept begun", "kept"]

    async def test_async_client(self) -> None:
        """The same by `AsyncClient`; what it uses of the ORM is the test's connection."""
        client = AsyncClient()
        assert (await client.get("/sync?word=a")).content == b"ok"
        assert (await client.get("/async?word=b")).status_code == 200
        assert (await client.get("/nested?word=n")).content == b"ok"
        response = await client.get("/async-stream?word=c")
        parts = [part async for part in response.streaming_content]  # type: ignore[union-attr]
        assert parts == [b"one", b"two"]
        expected = ["a", "visitor a", "b", "b plain", "n", "n through async", "n deep down", "c"]
        deadline = time.monotonic() + 40
        while (noted := [note.word async for note in Note.objects.order_by("id")]) != expected:
            assert time.monotonic() < deadline, noted
            await asyncio.sleep(0.01)


def close(runner: Runner) -> None:
    """Close the runner of the test clients, in the event loop that it runs in."""
    portal.start(runner.aclose(5)).result(40)


def test_without_either_the_view_says_what_to_do() -> None:
    """M8."""
    request = RequestFactory().get("/sync")
    with pytest.raises(MiddlewareNotInstalled):
        tasks_from(request)
    with pytest.raises(MiddlewareNotInstalled):
        add_task(print)


def test_middleware_called_by_hand() -> None:
    """As a test of somebody's own middleware does; the jobs run when the response is closed."""
    done: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        tasks_from(request).add_task(done.append, "done")
        return HttpResponse("ok")

    response = BackgroundTasksMiddleware(view)(RequestFactory().get("/"))
    assert done == []
    response.close()
    response.close()
    assert done == ["done"]


def test_view_that_raises_through_the_middleware() -> None:
    """M5: there is no response, so the jobs are dropped, but for those that run always."""
    done: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        add_task(done.append, "response")
        add_task(task(name="django always", run_on="always")(done.append), "always")
        raise RuntimeError("view")

    with pytest.raises(RuntimeError, match="view"):
        BackgroundTasksMiddleware(view)(RequestFactory().get("/"))
    assert done == ["always"]


def test_settings_and_arguments_make_the_runner(tmp_path: Path) -> None:
    """The setting is the base, arguments come first, faults are told in Django's words."""
    application = get_asgi_application()
    with override_settings(ASGI_BG={"history": 5, "run_on": "success"}):
        first = init_app(application)
        assert get_runner() is first.runner
        assert first.run_on == "success"
        own = init_app(application, run_on="always", journal=tmp_path / "journal", history=7)
        assert own.run_on == "always"
        assert get_runner() is own.runner
        shared = Runner()
        assert init_app(application, runner=shared).runner is shared
        assert init_app(application, runner=shared).runner is shared
        with pytest.raises(TypeError, match="either runner= or its options"):
            init_app(application, runner=shared, history=5)
    for wrong in ({"jurnal": "x"}, {"run_on": "sometimes"}, ["journal"], {"max_jobs": 0}):
        with override_settings(ASGI_BG=wrong), pytest.raises(ImproperlyConfigured, match="ASGI_BG"):
            _setup._process.runner = None
            init_app(application)


@pytest.mark.anyio
async def test_runner_in_use_is_refused(anyio_backend: Any) -> None:
    """Its threads are there already."""
    async with Runner() as runner:
        with pytest.raises(RuntimeError, match="right after the runner is made"):
            init_app(get_asgi_application(), runner=runner)


# Real servers.


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    environment = {**os.environ, "ASGI_BG_SERVER_TEST": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment["DJANGO_SETTINGS_MODULE"] = f"{SITE}.settings"
    command = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "-v", "0"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=60)
    with servers_of(f"{SITE}.asgi:application", tmp_path) as start:
        yield start


def stored(server: Server) -> list[str]:
    found: list[str] = get_json(server, "/words")["words"]
    return found


KINDS = pytest.mark.parametrize("kind", [UVICORN, DAPHNE], ids=str)


@KINDS
def test_jobs_of_every_kind_of_view(serve: Start, kind: Kind) -> None:
    """M4, R4, R6, R7: behind real servers, with lifespan and without."""
    server = serve(kind)
    assert server.get("/sync", word="a").status == 200
    assert server.get("/async", word="b").status == 200
    assert server.get("/not-found", word="c").status == 404
    assert server.get("/nested", word="n").status == 200
    assert server.get("/odd", word="o").status == 200
    assert server.get("/crash", word="d").status == 500
    assert server.get("/on-commit", word="e").status == 200
    assert server.get("/stream", word="f").body == b"onetwo"
    assert server.get("/async-stream", word="g").body == b"onetwo"
    expected = ["a", "visitor a", "b", "b plain", "c", "d", "e row", "e", "f", "g"]
    expected += ["n", "n through async", "n deep down", "o"]
    server.until(lambda: sorted(stored(server)) == sorted(expected), "all notes")
    assert "Traceback" not in server.log().replace(_traceback_of_crash(server), "")


def _traceback_of_crash(server: Server) -> str:
    log = server.log()
    start = log.find("Internal Server Error: /crash")
    return log[start : log.find("RuntimeError: view", start)]


@KINDS
@pytest.mark.parametrize("conn_max_age", ["0", "600"])
def test_connections_stay_few(
    serve: Start, kind: Kind, conn_max_age: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Django does after a request: no job leaves a connection that its setting forbids,
    and async ones, failed ones too, leave neither connection nor thread."""
    monkeypatch.setenv("ASGI_BG_CONN_MAX_AGE", conn_max_age)
    server = serve(kind)
    before = get_json(server, "/connections")
    for number in range(40):
        server.get("/async", word=f"a{number}")
        server.get("/failing-tasks", word=f"f{number}")
        server.get("/odd", word=f"o{number}")
    server.until(lambda: len(stored(server)) == 160, "160 notes")
    kept = 4 if conn_max_age == "600" else 0  # one for each of the runner's threads

    seen = [before]

    def is_settled() -> bool:
        now = get_json(server, "/connections")
        seen.append(now)
        return bool(
            now["open"] <= before["open"] + kept and now["threads"] <= before["threads"] + 8
        )

    server.until(is_settled, f"few connections: {seen}")


@KINDS
def test_journal_keeps_jobs_through_a_crash(serve: Start, kind: Kind) -> None:
    """J1, J3: what was acknowledged is run by the next process, with connections as ever."""
    server = serve(kind)
    ids = [
        get_json(server, "/durable", word="wait-1")["job"],
        get_json(server, "/durable", word="wait-2", **{"async": 1})["job"],
    ]
    server.until(lambda: {"wait-1 begun", "wait-2 begun"} <= set(stored(server)), "their begin")
    server.kill()
    again = serve(kind)
    again.open("wait-1.gate")
    again.open("wait-2.gate")
    if kind is DAPHNE:
        again.get("/durable", word="another")  # without lifespan, the journal is opened by need
    again.until(lambda: {"wait-1", "wait-2"} <= set(stored(again)), "both notes")
    for job in ids:
        again.until(lambda job=job: get_json(again, f"/jobs/{job}")["status"] == "succeeded", job)


def test_sigterm_waits_for_running_jobs(serve: Start) -> None:
    """R6: Django refuses the lifespan scope, and is answered for."""
    server = serve()
    get_json(server, "/durable", word="wait-1")
    get_json(server, "/durable", word="wait-2", **{"async": 1})
    server.until(lambda: {"wait-1 begun", "wait-2 begun"} <= set(stored(server)), "their begin")
    server.terminate()
    server.until_logged("Waiting for application shutdown")
    server.open("wait-1.gate")
    server.open("wait-2.gate")
    server.exit_code()
    # Each has been begun and ended once, the second server has nothing left to do.
    expected = ["wait-1", "wait-1 begun", "wait-2", "wait-2 begun"]
    assert sorted(stored(serve())) == expected


def test_wsgi_server_runs_jobs_after_the_response(tmp_path: Path) -> None:
    """R7: `BackgroundTasksMiddleware`, as under ``runserver``."""
    started, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        go_on.wait(40)
        done.set()

    def view(request: HttpRequest) -> HttpResponse:
        tasks_from(request).add_task(wait)
        # As `CommonMiddleware` sets it; without, the client waits for the connection's end.
        return HttpResponse("ok", headers={"Content-Length": "2"})

    class Quiet(WSGIRequestHandler):
        def log_message(self, *arguments: Any) -> None: ...

    urls: Any = types.ModuleType("asgi_bg_wsgi_urls")
    urls.urlpatterns = [path("", view)]
    with override_settings(ROOT_URLCONF=urls):
        with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with Client_(server.server_port) as client:
                assert client.get("/").body == b"ok"
                assert started.wait(40)
                assert not done.is_set()
                go_on.set()
            thread.join(40)
    assert done.is_set()


@pytest.mark.anyio
async def test_collector_is_in_the_scope(anyio_backend: Any) -> None:
    """M1, M2: around Django as around any other app."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["asgi_bg"])

    await Connection().call(init_app(app, history=3))
    assert len(seen[0]) == 0
    assert connection.settings_dict["ENGINE"].endswith("sqlite3")
