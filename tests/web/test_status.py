"""The status API in process: what it answers, to whom, and what it does not tell (W2)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from asgi_bg import Job, Runner, current_job, task
from asgi_bg.exceptions import JobFailed, JournalError
from tests.helpers import need, until
from tests.web.events import STREAM, events_in

httpx = need("httpx")
need("starlette")

from starlette.exceptions import HTTPException  # noqa: E402

from asgi_bg.web import status  # noqa: E402
from asgi_bg.web.status import JobStatusApp  # noqa: E402

pytestmark = pytest.mark.anyio

MakeRunner = Callable[..., Awaitable[Runner]]
UNKNOWN = "0" * 32
FIELDS = [
    "id",
    "status",
    "progress",
    "message",
    "queued_at",
    "started_at",
    "finished_at",
    "result",
]


class Guide:
    """A job that does what it is told.

    Attributes:
        job: The job.
    """

    job: Job

    def __init__(self) -> None:
        self._told: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self) -> Any:
        while True:
            words = await self._told.get()
            if isinstance(words, BaseException):
                raise words
            if not isinstance(words, float):
                return words
            current_job().progress(words, f"at {words}")

    def tell(self, words: Any) -> None:
        """Have it report this progress, raise this exception, or return this."""
        self._told.put_nowait(words)


@pytest.fixture(params=["memory", "journal"])
async def runner(request: pytest.FixtureRequest, make_runner: MakeRunner, tmp_path: Any) -> Runner:
    """A runner without a journal, and one with."""
    options = {"journal": tmp_path / "jobs.db"} if request.param == "journal" else {}
    return await make_runner(**options)


@pytest.fixture
async def app(runner: Runner) -> JobStatusApp:
    return JobStatusApp(runner)


@pytest.fixture
async def client(app: JobStatusApp) -> AsyncIterator[Any]:
    async with client_of(app) as made:
        yield made
    # Nobody follows any more, and nothing goes on.
    for following in app._followings.values():
        assert following.is_idle
        assert following._looking == []


def client_of(app: Any) -> Any:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://test",
        timeout=60,
    )


async def guided(runner: Runner) -> Guide:
    guide = Guide()
    guide.job = await runner.add_task(task(name="guided", durable=False)(guide.run))
    return guide


class Streaming:
    """A stream as far as it has come; `httpx` would give it as a whole, when it has ended.

    Attributes:
        head: The message with the status and the headers.
        text: What has come of the body.
    """

    def __init__(self, app: JobStatusApp, id: str) -> None:
        headers = [(b"accept", b"text/event-stream")]
        scope = {"type": "http", "method": "GET", "path": f"/{id}", "query_string": b""}
        self.head: Any = None
        self.text = ""
        self._served = asyncio.create_task(
            app({**scope, "headers": headers}, self._receive, self._send)
        )

    async def _receive(self) -> Any:
        return await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.head = message
        else:
            self.text += message["body"].decode()

    async def until(self, words: str) -> None:
        """Wait until it has brought these words."""
        await until(lambda: words in self.text, 60)

    async def end(self) -> list[tuple[str, dict[str, Any]]]:
        """Wait for its end, and return its events."""
        await asyncio.wait_for(self._served, 60)
        return list(events_in(self.text.splitlines()))


async def progressed(client: Any, job: Job) -> Any:
    """Ask until the job has made progress, and return that response."""
    deadline = time.monotonic() + 60
    while (response := await client.get(f"/{job.id}")).json()["progress"] is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return response


async def until_followed(app: JobStatusApp) -> None:
    """Wait until somebody follows a job."""
    await until(lambda: any(not one.is_idle for one in app._followings.values()), 60)


def events_of(response: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the tag and the data of each event of a whole stream."""
    return list(events_in(response.text.splitlines()))


# What is told.


async def test_job_is_told_with_what_its_client_needs_and_nothing_else(
    runner: Runner, client: Any
) -> None:
    """W2: these fields, as JSON that nobody keeps; instants are UTC."""
    guide = await guided(runner)
    guide.tell(0.25)
    await until(lambda: runner.stats()["running"] == 1)
    response = await progressed(client, guide.job)
    told = response.json()
    assert list(told) == FIELDS
    assert told["id"] == guide.job.id
    assert (told["status"], told["progress"], told["message"]) == ("running", 0.25, "at 0.25")
    assert told["queued_at"] <= told["started_at"]
    assert told["started_at"].endswith("Z")
    assert told["finished_at"] is None
    assert told["result"] is None
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    guide.tell({"rows": [1, 2]})
    assert await guide.job.result(60) == {"rows": [1, 2]}
    told = (await client.get(f"/{guide.job.id}")).json()
    assert (told["status"], told["result"]) == ("succeeded", {"rows": [1, 2]})
    assert told["finished_at"] >= told["started_at"]


@task
async def leaky(secret: str) -> None:
    logging.getLogger("secret-log").warning("secret-line %s", secret)
    raise ValueError(f"secret-error {secret}")


@pytest.mark.parametrize("headers", [{}, STREAM], ids=["json", "stream"])
async def test_failed_job_tells_no_argument_error_traceback_log_task_or_owner(
    runner: Runner, client: Any, headers: dict[str, str]
) -> None:
    """W2: a client is told that its job has failed, and not a word of why."""
    job = await runner.add_task(leaky, "secret-argument")
    with pytest.raises(JobFailed):
        await job.result(60)
    info = await job.info()
    assert "secret-argument" in str(info.error)
    assert "secret-argument" in str(info.traceback)
    response = await client.get(f"/{job.id}", headers=headers)
    assert '"status":"failed"' in response.text
    for words in ("secret", "ValueError", "leaky", "Traceback", "pid:"):
        assert words not in response.text


class Odd:
    """What no JSON can hold."""


@pytest.mark.parametrize(
    "result", [Odd(), {"odd": Odd()}, "\ud800", [10**400, Odd()]], ids=["odd", "in", "text", "list"]
)
async def test_result_that_is_no_json_is_null(make_runner: MakeRunner, result: Any) -> None:
    """The job has succeeded all the same."""
    runner = await make_runner()
    guide = await guided(runner)
    guide.tell(result)
    await guide.job.result(60)
    async with client_of(JobStatusApp(runner)) as client:
        told = (await client.get(f"/{guide.job.id}")).json()
    assert (told["status"], told["result"]) == ("succeeded", None)


async def test_message_that_is_no_unicode_text_is_told_as_far_as_it_is(
    make_runner: MakeRunner,
) -> None:
    """It comes from the task, and must not stop all following."""

    async def speak() -> None:
        current_job().progress(0.5, "a \ud800 b")

    runner = await make_runner()
    job = await runner.add_task(speak)
    async with client_of(JobStatusApp(runner)) as client:
        assert (await client.get(f"/{job.id}?wait=60")).json()["message"] == "a ? b"


# To whom.


async def test_unknown_malformed_and_unauthorised_ids_are_answered_alike(runner: Runner) -> None:
    """W2: a stranger learns nothing, whichever way it asks."""
    job = await runner.add_task(asyncio.sleep, 0)
    asked: list[str] = []

    def authorize(request: Any, job_id: str) -> bool:
        asked.append(job_id)
        return job_id != job.id

    paths = [job.id, UNKNOWN, "x", job.id.upper(), f"{job.id}0", f"{job.id}%0A", "0x" + "0" * 30]
    async with client_of(JobStatusApp(runner, authorize=authorize)) as client:
        for headers in ({}, STREAM):
            for query in ("", "?wait=60"):
                answers = [await client.get(f"/{path}{query}", headers=headers) for path in paths]
                assert {(one.status_code, one.text, str(one.headers)) for one in answers} == {
                    (404, '{"error":"there is no such job"}', str(answers[0].headers))
                }
    # What is no id does not get as far.
    assert set(asked) == {job.id, UNKNOWN}


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable", "object"])
async def test_authorize_decides_by_request_and_id(runner: Runner, kind: str) -> None:
    """A plain function does so in a thread, as it may block."""
    job = await runner.add_task(asyncio.sleep, 0)
    threads: list[int] = []

    def is_allowed(request: Any, job_id: str) -> bool:
        threads.append(threading.get_ident())
        assert job_id == job.id
        return bool(request.headers.get("x-user") == "ada")

    async def is_allowed_later(request: Any, job_id: str) -> bool:
        return is_allowed(request, job_id)

    class Guard:
        async def __call__(self, request: Any, job_id: str) -> bool:
            return is_allowed(request, job_id)

    authorize: Any = {
        "plain": is_allowed,
        "async": is_allowed_later,
        "awaitable": lambda request, job_id: is_allowed_later(request, job_id),
        "object": Guard(),
    }[kind]
    async with client_of(JobStatusApp(runner, authorize=authorize)) as client:
        for user, code in (("ada", 200), ("eve", 404), ("", 404)):
            response = await client.get(f"/{job.id}", headers={"x-user": user})
            assert response.status_code == code
    assert (threads[0] == threading.get_ident()) is (kind != "plain")


async def test_authorize_may_answer_by_itself(runner: Runner) -> None:
    """Such as 401 with the header that asks for a password."""

    async def authorize(request: Any, job_id: str) -> bool:
        raise HTTPException(401, "who is it?", {"www-authenticate": "Basic"})

    async with client_of(JobStatusApp(runner, authorize=authorize)) as client:
        response = await client.get(f"/{UNKNOWN}")
    assert (response.status_code, response.json()) == (401, {"error": "who is it?"})
    assert response.headers["www-authenticate"] == "Basic"


async def test_authorize_that_fails_allows_nothing_and_tells_nothing(runner: Runner) -> None:
    """The error goes to the server's log, not to the client."""

    def authorize(request: Any, job_id: str) -> bool:
        raise RuntimeError("secret")

    async with client_of(JobStatusApp(runner, authorize=authorize)) as client:
        response = await client.get(f"/{UNKNOWN}")
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})


@pytest.mark.parametrize("arguments", [{"runner": object()}, {"authorize": "yes"}])
async def test_argument_that_does_not_fit_is_refused(arguments: dict[str, Any]) -> None:
    """When the app is made, by its name."""
    (name,) = arguments
    with pytest.raises(TypeError, match=f"^{name} must be"):
        JobStatusApp(**{"runner": Runner(), **arguments})


# HTTP.


async def test_methods_other_than_get_are_as_starlette_has_them(
    runner: Runner, client: Any
) -> None:
    """HEAD answers at once, even where GET would wait; the rest is not allowed."""
    guide = await guided(runner)
    began = time.monotonic()
    for headers in ({}, STREAM):
        response = await client.head(f"/{guide.job.id}?wait=60", headers=headers)
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.headers["etag"]
    assert time.monotonic() - began < 30
    for method in ("OPTIONS", "POST", "DELETE"):
        response = await client.request(method, f"/{guide.job.id}")
        assert response.status_code == 405
        assert sorted(response.headers["allow"].split(", ")) == ["GET", "HEAD"]
        assert response.json() == {"error": "Method Not Allowed"}
    for path in ("/", f"/{guide.job.id}/", f"/{guide.job.id}/x"):
        assert (await client.get(path)).status_code == 404
    guide.tell(1)


@pytest.mark.parametrize(
    "query",
    [
        "wait=",
        "wait=x",
        "wait=-1",
        "wait=nan",
        "wait=inf",
        "wait=1_0",
        "wait=1&wait=2",
        "wait=%D9%A1",
        "wait=%3Cscript%3E",
    ],
)
@pytest.mark.parametrize("headers", [{}, STREAM], ids=["json", "stream"])
async def test_wait_that_is_no_number_of_seconds_is_refused(
    runner: Runner, client: Any, query: str, headers: dict[str, str]
) -> None:
    """The answer says what was expected, and what came."""
    job = await runner.add_task(asyncio.sleep, 0)
    response = await client.get(f"/{job.id}?{query}", headers=headers)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["error"].startswith("wait must be ")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/*", "application/json"),
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("Text/Event-Stream;q=0.5", "text/event-stream; charset=utf-8"),
        ("text/event-stream, */*;q=0.1", "text/event-stream; charset=utf-8"),
        ("application/json;q=0.1, text/event-stream", "text/event-stream; charset=utf-8"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream;q=0", "application/json"),
        ("text/event-stream;q=..", "application/json"),
        ("", "application/json"),
    ],
)
async def test_stream_is_for_who_prefers_it_to_json(
    runner: Runner, client: Any, accept: str, kind: str
) -> None:
    """As browsers' EventSource does; and caches are told what decided."""
    job = await runner.add_task(asyncio.sleep, 0)
    await job.result(60)
    response = await client.get(f"/{job.id}", headers={"accept": accept})
    assert response.headers["content-type"] == kind
    assert response.headers["vary"] == "Accept"
    assert response.headers["cache-control"] == "no-store"


async def test_state_that_the_client_knows_is_not_sent_again(runner: Runner, client: Any) -> None:
    """By its tag, which a proxy may have made a weak one."""
    guide = await guided(runner)
    await until(lambda: runner.stats()["running"] == 1)
    tag = (await client.get(f"/{guide.job.id}")).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = await client.get(f"/{guide.job.id}", headers={"if-none-match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    guide.tell(1)
    await guide.job.result(60)
    response = await client.get(f"/{guide.job.id}", headers={"if-none-match": tag})
    assert response.status_code == 200
    assert response.headers["etag"] != tag


# Long polls.


async def test_wait_without_a_tag_ends_with_the_job(
    runner: Runner, app: JobStatusApp, client: Any
) -> None:
    """And not with its progress; the result is in the answer."""
    guide = await guided(runner)
    asked = asyncio.create_task(client.get(f"/{guide.job.id}?wait=60"))
    await until_followed(app)
    guide.tell(0.5)
    await asyncio.sleep(0.5)  # for what must not happen: two looks see the progress
    assert not asked.done()
    guide.tell("done")
    assert (await asked).json()["result"] == "done"


async def test_wait_with_a_tag_ends_with_any_change(runner: Runner, client: Any) -> None:
    """Each answer brings the tag for the next, so no change is missed for ever."""
    guide = await guided(runner)
    await until(lambda: runner.stats()["running"] == 1)
    response = await client.get(f"/{guide.job.id}")
    seen = [response.json()["progress"]]
    for words in (0.25, 0.5, 0.75, "done"):
        guide.tell(words)
        response = await client.get(
            f"/{guide.job.id}?wait=60", headers={"if-none-match": response.headers["etag"]}
        )
        assert response.status_code == 200
        seen.append(response.json()["progress"])
    assert seen == [None, 0.25, 0.5, 0.75, 0.75]
    assert response.json()["status"] == "succeeded"
    # There is nothing to wait for any more.
    response = await client.get(
        f"/{guide.job.id}?wait=60", headers={"if-none-match": response.headers["etag"]}
    )
    assert response.status_code == 304


async def test_wait_that_was_in_vain_tells_how_the_job_stands(runner: Runner, client: Any) -> None:
    """Once its time is up: 200, or 304 for who knows that already."""
    guide = await guided(runner)
    await until(lambda: runner.stats()["running"] == 1)
    began = time.monotonic()
    response = await client.get(f"/{guide.job.id}?wait=0.3")
    assert time.monotonic() - began >= 0.3
    assert (response.status_code, response.json()["status"]) == (200, "running")
    began = time.monotonic()
    response = await client.get(
        f"/{guide.job.id}?wait=3e-1", headers={"if-none-match": response.headers["etag"]}
    )
    assert time.monotonic() - began >= 0.3
    assert response.status_code == 304
    guide.tell(1)


async def test_wait_has_a_limit(
    runner: Runner, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is taken as that."""
    assert status.WAIT_LIMIT == 60
    monkeypatch.setattr(status, "WAIT_LIMIT", 0.2)
    guide = await guided(runner)
    for wait in ("61", "1e999", "9" * 400):
        response = await client.get(f"/{guide.job.id}", params={"wait": wait})
        assert response.json()["finished_at"] is None
    guide.tell(1)


async def test_wait_is_over_when_the_job_is_forgotten(
    runner: Runner, app: JobStatusApp, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it can be purged: 404, not the rest of the minute."""
    guide = await guided(runner)
    await until(lambda: runner.stats()["running"] == 1)
    asked = asyncio.create_task(client.get(f"/{guide.job.id}?wait=60"))
    await until_followed(app)
    await asyncio.sleep(0.3)  # until it has been found once, as one that was never is 404, too
    assert not asked.done()

    async def forgotten(ids: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(runner, "infos", forgotten)
    assert (await asked).status_code == 404
    guide.tell(1)


# Streams.


async def test_stream_has_an_event_for_every_change_and_ends_with_the_job(
    runner: Runner, app: JobStatusApp, client: Any
) -> None:
    """Each says all; its id is the tag of that state."""
    guide = await guided(runner)
    stream = Streaming(app, guide.job.id)
    await stream.until("data: ")
    for words in (0.25, 0.5):
        guide.tell(words)
        await stream.until(f'"progress":{words},')
    guide.tell("done")
    events = await stream.end()
    assert stream.head["status"] == 200
    assert dict(stream.head["headers"])[b"x-accel-buffering"] == b"no"
    assert stream.text.startswith("retry: 1000\n\n")
    assert [told["progress"] for _, told in events][-3:] == [0.25, 0.5, 0.5]
    assert list(events[-1][1]) == FIELDS
    assert (events[-1][1]["status"], events[-1][1]["result"]) == ("succeeded", "done")
    assert all(told["status"] in ("queued", "running") for _, told in events[:-1])
    assert f'"{events[-1][0]}"' == (await client.get(f"/{guide.job.id}")).headers["etag"]


async def test_stream_that_goes_on_repeats_nothing(
    runner: Runner, app: JobStatusApp, client: Any
) -> None:
    """By ``Last-Event-ID``; where the client has seen the end, 204 makes a browser stop."""
    guide = await guided(runner)
    guide.tell(0.5)
    response = await progressed(client, guide.job)
    known = response.headers["etag"].strip('"')
    streamed = asyncio.create_task(
        client.get(f"/{guide.job.id}", headers={**STREAM, "last-event-id": known})
    )
    await until_followed(app)
    await asyncio.sleep(0.3)  # for what must not happen: an event of what is known
    guide.tell("done")
    ((last, told),) = events_of(await streamed)
    assert told["status"] == "succeeded"
    response = await client.get(f"/{guide.job.id}", headers={**STREAM, "last-event-id": last})
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["cache-control"] == "no-store"
    # Who has not seen it sees it.
    response = await client.get(f"/{guide.job.id}", headers={**STREAM, "last-event-id": known})
    assert [tag for tag, _ in events_of(response)] == [last]


async def test_stream_of_a_fast_job_has_few_events(runner: Runner, client: Any) -> None:
    """At most ten a second, and never without the last."""

    async def run() -> None:
        for number in range(1000):
            current_job().progress(number / 1000)
            await asyncio.sleep(0.001)

    began = time.monotonic()
    job = await runner.add_task(run)
    response = await client.get(f"/{job.id}", headers=STREAM)
    events = events_of(response)
    assert 2 <= len(events) <= 10 * (time.monotonic() - began) + 2
    assert (events[-1][1]["status"], events[-1][1]["progress"]) == ("succeeded", 0.999)


async def test_stream_without_events_shows_that_it_lives(
    runner: Runner, app: JobStatusApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a proxy would take it for dead."""
    monkeypatch.setattr(status, "HEARTBEAT", 0.1)
    guide = await guided(runner)
    stream = Streaming(app, guide.job.id)
    await stream.until("\n\n:\n\n")
    guide.tell(1)
    await stream.end()


async def test_stream_ends_now_and_then_to_be_gone_on_with(
    runner: Runner, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For servers whose shutdown waits for it; the next one repeats nothing."""
    assert status.STREAM_LIMIT == 60
    monkeypatch.setattr(status, "STREAM_LIMIT", 0.3)
    guide = await guided(runner)
    await until(lambda: runner.stats()["running"] == 1)
    began = time.monotonic()
    response = await client.get(f"/{guide.job.id}", headers=STREAM)
    assert time.monotonic() - began >= 0.3
    ((tag, told),) = events_of(response)
    assert told["status"] == "running"
    response = await client.get(f"/{guide.job.id}", headers={**STREAM, "last-event-id": tag})
    assert response.status_code == 200
    assert events_of(response) == []
    guide.tell(1)


async def test_stream_of_a_job_that_is_forgotten_ends(
    runner: Runner, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an event, and only if it is missing twice: it may be on its way (J3)."""
    guide = await guided(runner)
    await until(lambda: runner.stats()["running"] == 1)
    infos = runner.infos
    answers = [True, False, True, False, False]

    async def forgetful(ids: Any) -> dict[str, Any]:
        return await infos(ids) if not answers or answers.pop(0) else {}

    monkeypatch.setattr(runner, "infos", forgetful)
    response = await client.get(f"/{guide.job.id}", headers=STREAM)
    assert [told["status"] for _, told in events_of(response)] == ["running"]
    assert answers == []
    guide.tell(1)


# What following costs, and what may go wrong.


async def test_many_followers_share_few_questions(runner: Runner, client: Any) -> None:
    """W2: one for all jobs, a few times a second, whoever follows and in whichever way."""
    guides = [await guided(runner) for _ in range(100)]
    asked: list[int] = []
    infos = runner.infos

    async def counted(ids: Any) -> dict[str, Any]:
        asked.append(len(ids))
        return await infos(ids)

    runner.infos = counted  # type: ignore[method-assign]
    began = time.monotonic()
    answers = [
        asyncio.create_task(client.get(f"/{guide.job.id}", **options))
        for guide in guides
        for options in ({"params": {"wait": 60}}, {"headers": STREAM})
    ]
    await until(lambda: asked.count(100) >= 3, 60)
    assert not any(answer.done() for answer in answers)
    for guide in guides:
        guide.tell("done")
    for response in await asyncio.gather(*answers):
        assert '"status":"succeeded"' in response.text
    # The first looks are for those that have come since the one before.
    assert len(asked) <= 5 * (time.monotonic() - began) + 50
    runner.infos = infos  # type: ignore[method-assign]


async def test_engine_that_is_away_holds_up_only_those_who_follow_its_jobs(
    runner: Runner, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1: it is asked for each of its jobs, so less often, and it may not answer."""
    here, there = await guided(runner), await guided(runner)
    infos = runner.infos
    is_there = asyncio.Event()
    is_there.set()
    asked: list[float] = []

    async def through_an_engine(ids: Any) -> dict[str, Any]:
        if there.job.id in ids:
            asked.append(time.monotonic())
            await is_there.wait()
        found = await infos(ids)
        if there.job.id in found:
            info = found[there.job.id]
            found[there.job.id] = replace(info, handed_over_at=info.queued_at)
        return found

    monkeypatch.setattr(runner, "infos", through_an_engine)
    began = time.monotonic()
    streams = [
        asyncio.create_task(client.get(f"/{guide.job.id}", headers=STREAM))
        for guide in (here, there)
    ]
    await until(lambda: len(asked) >= 3, 60)
    assert len(asked) <= 2 + (time.monotonic() - began)
    is_there.clear()
    here.tell("done")
    there.tell("done")
    assert events_of(await streams[0])[-1][1]["result"] == "done"
    assert not streams[1].done()
    is_there.set()
    assert events_of(await streams[1])[-1][1]["result"] == "done"


@pytest.mark.parametrize("headers", [{}, STREAM], ids=["wait", "stream"])
async def test_client_that_disconnects_is_let_go_at_once(
    runner: Runner, app: JobStatusApp, headers: dict[str, str]
) -> None:
    """W2: not at the next event or heartbeat."""
    guide = await guided(runner)
    left = asyncio.Event()
    sent: list[Any] = []
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if incoming:
            return incoming.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if left.is_set():
            raise OSError("gone")
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/{guide.job.id}",
        "query_string": b"wait=60",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    served = asyncio.create_task(app(scope, receive, send))
    await until(lambda: bool(app._followings))
    (following,) = app._followings.values()
    await until(lambda: not following.is_idle, 60)
    await asyncio.sleep(0.3)  # for what must not happen
    assert not served.done()
    left.set()
    await until(served.done, 5)
    assert following.is_idle
    assert following._looking == []
    if headers:
        served.result()
    else:  # as from any endpoint whose client has left
        assert isinstance(served.exception(), OSError | None)
    guide.tell(1)


@pytest.mark.parametrize("sends", [0, 1, 2])
async def test_stream_to_a_client_that_is_gone_ends_in_peace(
    runner: Runner, app: JobStatusApp, sends: int
) -> None:
    """Some servers tell of it by the `OSError` of a ``send`` alone (M6)."""
    guide = await guided(runner)
    left = sends

    async def send(message: Any) -> None:
        nonlocal left
        if not left:
            raise OSError("gone")
        left -= 1

    async def receive() -> Any:
        return await asyncio.Event().wait()

    headers = [(b"accept", b"text/event-stream")]
    scope = {"type": "http", "method": "GET", "path": f"/{guide.job.id}", "query_string": b""}
    await asyncio.wait_for(app({**scope, "headers": headers}, receive, send), 60)
    (following,) = app._followings.values()
    assert following.is_idle
    guide.tell(1)


async def test_journal_that_cannot_be_read_is_told_as_such(
    runner: Runner, app: JobStatusApp, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """To who asks: 503, without the reason. Who follows already is kept."""
    guide = await guided(runner)
    infos = runner.infos
    is_broken = False
    in_vain = 0

    async def broken(ids: Any) -> dict[str, Any]:
        nonlocal in_vain
        if is_broken:
            in_vain += 1
            raise JournalError("secret")
        return await infos(ids)

    monkeypatch.setattr(runner, "infos", broken)
    stream = Streaming(app, guide.job.id)
    await stream.until("data: ")
    is_broken = True
    for options in ({}, {"params": {"wait": 60}}, {"headers": STREAM}):
        response = await client.get(f"/{guide.job.id}", **options)
        assert response.status_code == 503
        assert response.json() == {"error": "not available now; try again later"}
        assert response.headers["retry-after"] == "1"
    await until(lambda: in_vain >= 3 + 2, 60)  # beside those of the three requests
    is_broken = False
    guide.tell("done")
    assert (await stream.end())[-1][1]["result"] == "done"
    looked_up = [one for one in caplog.records if "cannot be looked up" in one.getMessage()]
    assert len(looked_up) == 1  # and not at every look


@pytest.mark.parametrize("headers", [{}, STREAM], ids=["wait", "stream"])
async def test_server_that_ends_is_not_held_up(
    runner: Runner,
    app: JobStatusApp,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    """Whoever waits is answered as the job stands; the browser comes again later."""
    is_ending = False
    monkeypatch.setattr("asgi_bg.web._following.is_server_ending", lambda: is_ending)
    guide = await guided(runner)
    asked = asyncio.create_task(client.get(f"/{guide.job.id}?wait=60", headers=headers))
    await until_followed(app)
    await asyncio.sleep(0.3)  # for what must not happen
    assert not asked.done()
    is_ending = True
    assert '"finished_at":null' in (await asked).text
    # Also who comes late, on a connection that is still open.
    response = await client.get(f"/{guide.job.id}?wait=60", headers=headers)
    assert '"finished_at":null' in response.text
    guide.tell(1)


async def test_looks_belong_to_no_request(runner: Runner, client: Any) -> None:
    """The one that is first to follow does not leave its context behind."""
    guide = await guided(runner)
    asked = asyncio.create_task(client.get(f"/{guide.job.id}?wait=60"))
    looking: list[Any] = []

    def are_looking() -> bool:
        looking[:] = [one for one in asyncio.all_tasks() if "_look_" in repr(one)]
        return len(looking) == 3

    await until(are_looking, 60)
    if hasattr(looking[0], "get_context"):  # since Python 3.12
        assert [list(one.get_context()) for one in looking] == [[], [], []]
    guide.tell(1)
    await asked
