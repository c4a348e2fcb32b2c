"""W1: who may come in, what is refused, and what strangers are told."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_bg import JobStatus, Runner
from tests.helpers import need, until

httpx = need("httpx")
need("starlette")
need("jinja2")

from starlette.responses import RedirectResponse  # noqa: E402

from asgi_bg.web import Dashboard  # noqa: E402
from tests.web.dashboard_site import (  # noqa: E402
    ROOT,
    Stream,
    broken,
    confirm,
    ended,
    runs_of,
    visiting,
    waits,
)

pytestmark = pytest.mark.anyio

MakeRunner = Callable[..., Awaitable[Runner]]

PATHS = [
    "/",
    "/list",
    "/job/0",
    "/job/0/retry",
    "/job/0/cancel",
    "/purge",
    "/retry-failed",
    "/live/overview",
    "/live/list",
    "/live/job/0",
    "/static/dashboard.css",
    "/nothing",
    "",
]
OWN = {"sec-fetch-site": "same-origin"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_stranger_is_told_nothing(make_runner: MakeRunner, method: str, path: str) -> None:
    """W1: without `authorize` every path answers a client from elsewhere with the same word."""
    dashboard = Dashboard(await make_runner())
    async with visiting(dashboard, client=("192.0.2.7", 1)) as visitor:
        answer = await visitor.request(method, ROOT + path)
    assert (answer.status_code, answer.text) == (403, "Forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "127.0.0.1"},
        {"x-forwarded-host": "localhost"},
        {"x-forwarded-proto": "https"},
        {"forwarded": "for=127.0.0.1"},
        {"x-real-ip": "127.0.0.1"},
        {"via": "1.1 proxy"},
        {"host": "evil.example"},
        {"host": "localhost.evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "192.0.2.7"},
        {"host": "[::2]"},
        {"host": "[::1"},
        {"host": ""},
        {"host": "[::1].evil.example"},
    ],
)
async def test_forged_and_forwarded_is_refused(
    make_runner: MakeRunner, headers: dict[str, str]
) -> None:
    """W1: a proxy's clients are not of this machine, and neither is a name that a stranger
    has pointed at this address."""
    dashboard = Dashboard(await make_runner())
    async with visiting(dashboard) as visitor:
        assert (await visitor.get(ROOT + "/", headers=headers)).status_code == 403
    async with visiting(dashboard, client=("192.0.2.7", 1)) as visitor:
        assert (await visitor.get(ROOT + "/", headers=headers)).status_code == 403


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost", "evil.example"]])
async def test_host_that_is_missing_or_twofold_is_refused(
    make_runner: MakeRunner, hosts: list[str]
) -> None:
    """W1: it must be one name of this machine."""
    stream = Stream(Dashboard(await make_runner()), "/live/list")
    stream.scope["headers"] = [(b"host", host.encode()) for host in hosts]
    await asyncio.wait_for(stream.task, 10)
    assert stream.status == 403


async def test_proxy_that_adds_no_header_is_known_by_its_version(make_runner: MakeRunner) -> None:
    """W1: nginx asks so without further settings, for clients from everywhere."""
    stream = Stream(Dashboard(await make_runner()), "/live/list")
    stream.scope["http_version"] = "1.0"
    await asyncio.wait_for(stream.task, 10)
    assert stream.status == 403


@pytest.mark.parametrize(
    "base",
    [
        "http://localhost",
        "http://LOCALHOST:8000",
        "http://app.localhost",
        "http://127.1.2.3:80",
        "http://[::1]:8000",
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.8.9.1"])
async def test_loopback_client_is_let_in(make_runner: MakeRunner, host: str, base: str) -> None:
    """W1: this machine's clients see it without `authorize`."""
    async with visiting(Dashboard(await make_runner()), client=(host, 1), base=base) as visitor:
        assert (await visitor.get(ROOT + "/")).status_code == 200


@pytest.mark.parametrize(
    "client", [None, ("", 0), ("testclient", 1), ("::2", 1), ("::ffff:192.0.2.7", 1)]
)
async def test_client_without_a_loopback_address_is_refused(
    make_runner: MakeRunner, client: Any
) -> None:
    """W1: such as one of a Unix socket, behind which a proxy may be."""
    async with visiting(Dashboard(await make_runner()), client=client) as visitor:
        assert (await visitor.get(ROOT + "/")).status_code == 403


async def test_log_says_once_how_to_let_others_in(
    make_runner: MakeRunner, warnings_logged: Callable[[], list[str]]
) -> None:
    """The hint is for who runs the server, not for who is refused."""
    async with visiting(Dashboard(await make_runner()), client=("192.0.2.7", 1)) as visitor:
        for _ in range(3):
            await visitor.get(ROOT + "/")
    (text,) = warnings_logged()
    assert "authorize=" in text


async def admitting(request: Any) -> str:
    return "ada"


class Gate:
    """An object with an async call."""

    async def __call__(self, request: Any) -> str:
        return "ada"


@pytest.mark.parametrize(
    "authorize",
    [
        lambda request: "ada",
        admitting,
        Gate(),
        functools.partial(admitting),
        lambda request: admitting(request),
    ],
)
async def test_authorize_lets_in(make_runner: MakeRunner, authorize: Any) -> None:
    """W1: from wherever and by whatever name, if it is a function of any kind that says so."""
    dashboard = Dashboard(await make_runner(), authorize=authorize)
    async with visiting(dashboard, client=("192.0.2.7", 1), base="https://x.example") as visitor:
        headers = {"x-forwarded-for": "192.0.2.9"}
        assert (await visitor.get(ROOT + "/", headers=headers)).status_code == 200


@pytest.mark.parametrize("answer", [None, False, "", 0, []])
@pytest.mark.parametrize("path", PATHS)
async def test_authorize_refuses(make_runner: MakeRunner, answer: Any, path: str) -> None:
    """W1: whatever is false, also to loopback clients, on every path."""
    dashboard = Dashboard(await make_runner(), authorize=lambda request: answer)
    async with visiting(dashboard) as visitor:
        for method in ("GET", "POST"):
            refused = await visitor.request(method, ROOT + path)
            assert (refused.status_code, refused.text) == (403, "Forbidden")


async def test_authorize_may_answer_itself(make_runner: MakeRunner) -> None:
    """W1: a response of its own is sent as it is."""
    login = RedirectResponse("/login", 302, {"x-own": "1"})
    dashboard = Dashboard(await make_runner(), authorize=lambda request: login)
    async with visiting(dashboard) as visitor:
        answer = await visitor.get(ROOT + "/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/login")
    assert answer.headers["x-own"] == "1"
    assert "content-security-policy" not in answer.headers


@pytest.mark.parametrize("is_async", [True, False])
async def test_authorize_that_fails_lets_nobody_in(
    make_runner: MakeRunner, errors: Callable[[], list[str]], is_async: bool
) -> None:
    """Its error is for the log; the stranger learns nothing."""

    def failing(request: Any) -> str:
        raise RuntimeError("password=hunter2")

    async def afailing(request: Any) -> str:
        return failing(request)

    authorize = afailing if is_async else failing
    dashboard = Dashboard(await make_runner(), authorize=authorize)
    async with visiting(dashboard) as visitor:
        answer = await visitor.get(ROOT + "/")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert errors() == ["dashboard: authorize failed, so nobody was let in"]


async def test_wrong_arguments_are_refused() -> None:
    """The message says what would fit."""
    with pytest.raises(TypeError, match=r"runner must be an asgi_bg\.Runner"):
        Dashboard("jobs.db")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="authorize must be a function of one request"):
        Dashboard(Runner(), authorize="staff")  # type: ignore[arg-type]


# Actions and other sites.


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://localhost"}, True),
        ({"origin": "http://LOCALHOST"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
        ({}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": ""}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://localhost:8001"}, False),
        ({"origin": "http://localhost@evil.example"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "ftp://localhost"}, False),
    ],
)
async def test_form_of_another_site_is_refused(
    make_runner: MakeRunner, headers: dict[str, str], is_allowed: bool
) -> None:
    """W1: with a right token even, an action is done only if it comes from a page of ours."""
    runner = await make_runner()
    job = await ended(runner, broken)
    async with visiting(Dashboard(runner)) as visitor:
        path = f"{ROOT}/job/{job.id}/retry"
        await visitor.get(path)
        token = visitor.cookies["asgi_bg_token"]
        answer = await visitor.post(path, data={"token": token}, headers=headers)
    await runner.drain(10)
    assert answer.status_code == (303 if is_allowed else 403)
    assert runs_of(job) == (2 if is_allowed else 1)


@pytest.mark.parametrize("sent", [None, "", "x", "A" * 43, "é", "\x00"])
@pytest.mark.parametrize("kept", [None, "", "x", "B" * 43])
async def test_form_without_the_token_is_refused(
    make_runner: MakeRunner, kept: str | None, sent: str | None
) -> None:
    """W1: cookie and field must be there and the same, and of a form that we give out."""
    runner = await make_runner()
    job = await ended(runner, broken)
    async with visiting(Dashboard(runner)) as visitor:
        cookies = {} if kept is None else {"cookie": f"asgi_bg_token={kept}"}
        fields = {} if sent is None else {"token": sent}
        answer = await visitor.post(
            f"{ROOT}/job/{job.id}/retry", data=fields or {"a": "b"}, headers={**OWN, **cookies}
        )
    assert answer.status_code == 403
    assert runs_of(job) == 1


@pytest.mark.parametrize("path", ["/job/{}/retry", "/job/{}/cancel", "/retry-failed", "/purge"])
async def test_every_action_needs_the_token(make_runner: MakeRunner, path: str) -> None:
    """W1: and none is done by opening a page."""
    runner = await make_runner()
    failed = await ended(runner, broken)
    running = await runner.add_task(waits)
    path = ROOT + path.format(running.id if "cancel" in path else failed.id)
    async with visiting(Dashboard(runner)) as visitor:
        assert (await visitor.get(path)).status_code == 200
        fields = {"status": "", "older_than": "0", "task": ""}
        assert (await visitor.post(path, data=fields, headers=OWN)).status_code == 403
        head = await visitor.head(path)
        assert head.status_code == 200
    assert (await runner.info(failed.id)).status is JobStatus.failed
    assert not (await runner.info(running.id)).status.is_final
    await runner.cancel(running.id)


async def test_token_is_kept_from_scripts_and_other_sites(make_runner: MakeRunner) -> None:
    """The cookie's attributes; over HTTPS it never travels in the clear."""
    runner = await make_runner()
    async with visiting(Dashboard(runner)) as visitor:
        plain = (await visitor.get(ROOT + "/purge")).headers["set-cookie"]
        again = (await visitor.get(ROOT + "/purge")).headers["set-cookie"]
    assert plain == again
    assert "HttpOnly" in plain
    assert "SameSite=strict" in plain
    assert f"Path={ROOT}" in plain
    assert "Secure" not in plain
    async with visiting(Dashboard(runner), base="https://localhost") as visitor:
        assert "Secure" in (await visitor.get(ROOT + "/purge")).headers["set-cookie"]


async def test_token_is_good_in_every_process(make_runner: MakeRunner) -> None:
    """Another worker, which shares nothing with the one that gave it out, takes it."""
    runner = await make_runner()
    job = await ended(runner, broken)
    async with visiting(Dashboard(runner)) as first, visiting(Dashboard(runner)) as second:
        await first.get(f"{ROOT}/job/{job.id}/retry")
        token = first.cookies["asgi_bg_token"]
        headers = {**OWN, "cookie": f"asgi_bg_token={token}"}
        answer = await second.post(
            f"{ROOT}/job/{job.id}/retry", data={"token": token}, headers=headers
        )
    assert answer.status_code == 303


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"token=x", "text/plain"),
        (b'{"token": "x"}', "application/json"),
        (b"token=" + b"x" * 20_000, "application/x-www-form-urlencoded"),
        (b"&".join([b"a=b"] * 100), "application/x-www-form-urlencoded"),
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"token=x", ""),
    ],
)
async def test_body_that_is_no_form_is_refused(
    make_runner: MakeRunner, body: bytes, kind: str
) -> None:
    """By a page that tells nothing."""
    async with visiting(Dashboard(await make_runner())) as visitor:
        headers = {**OWN, "content-type": kind}
        answer = await visitor.post(ROOT + "/purge", content=body, headers=headers)
    assert answer.status_code == 400


async def test_form_that_is_broken_off_is_no_failure_of_ours(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has left: nothing is done, and no traceback fills the log."""
    stream = Stream(Dashboard(await make_runner()), "/purge")
    stream.scope["method"] = "POST"
    stream.scope["headers"].append((b"content-type", b"application/x-www-form-urlencoded"))
    stream.gone.set()
    await asyncio.wait_for(stream.task, 10)
    assert stream.status == 400
    assert not caplog.records


async def test_actions_are_logged_with_who_did_them(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """W1: what `authorize` returned is in the log; it cannot forge lines there."""
    runner = await make_runner()
    job = await ended(runner, broken)
    who = "ada\nERROR forged \x1b[31m" + "x" * 500
    dashboard = Dashboard(runner, authorize=lambda request: who)
    async with visiting(dashboard) as visitor:
        assert (await confirm(visitor, f"/job/{job.id}/retry")).status_code == 303
        await runner.drain(10)
        assert (await confirm(visitor, "/retry-failed", task="dashboard.broken")).is_redirect
        await runner.drain(10)
        assert (await confirm(visitor, "/purge", status="", older_than="0")).is_redirect
    records = [one for one in caplog.records if one.getMessage().startswith("dashboard: ")]
    texts = [one.getMessage() for one in records]
    named = "ada\\nERROR forged \\x1b[31m"
    assert f"retry of job {job.id} by {named}" in texts[0]
    assert "retry of all failed jobs of task dashboard.broken by ada" in texts[1]
    assert texts[2].endswith(" is done: 1 jobs")
    assert "purge of all ended jobs" in texts[3]
    assert texts[4].endswith(" is done: 1 jobs")
    assert all(len(text) < 400 for text in texts)
    assert not any("\n" in text or "\x1b" in text for text in texts)
    assert records[0].asgi_bg_job_id == job.id  # type: ignore[attr-defined]
    assert {one.levelno for one in records} == {logging.WARNING}


# Headers, and what is not HTTP.


@pytest.mark.parametrize("path", ["/", "/list", "/purge", "/nothing", "/static/dashboard.js"])
async def test_policy_allows_nothing_inline_and_nothing_from_elsewhere(
    make_runner: MakeRunner, path: str
) -> None:
    """W1: no page holds a script, a style or a handler of its own, and none could run."""
    async with visiting(Dashboard(await make_runner())) as visitor:
        answer = await visitor.get(ROOT + path)
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    is_static = path.startswith("/static")
    kept = "private, max-age=86400" if is_static else "no-store"
    assert answer.headers["cache-control"] == kept
    if not is_static:
        assert " style=" not in answer.text
        assert " on" not in "".join(part.split(">")[0] for part in answer.text.split("<")[1:])
        assert "<style" not in answer.text
        assert "//" not in answer.text.replace("http://www.w3.org", "")


async def test_stream_asks_authorize_and_has_the_headers(make_runner: MakeRunner) -> None:
    """Like every other path."""
    asked: list[str] = []

    def authorize(request: Any) -> str:
        asked.append(request.url.path)
        return "ada"

    stream = Stream(Dashboard(await make_runner(), authorize=authorize), "/live/list")
    await until(lambda: stream.events)
    await stream.leave()
    assert asked == ["/jobs/live/list"]
    headers = dict(stream.messages[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"default-src 'none'" in headers[b"content-security-policy"]


async def test_websocket_is_turned_away(make_runner: MakeRunner) -> None:
    """There is none to speak to."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await Dashboard(await make_runner())({"type": "websocket", "path": "/"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_lifespan_is_answered(make_runner: MakeRunner) -> None:
    """As an application of its own it starts and ends in peace."""
    incoming = ["lifespan.startup", "lifespan.shutdown"]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": incoming.pop(0)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await Dashboard(await make_runner())({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
