"""The projects of examples/moving do the same before and after they moved in."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers import need, wait_until
from tests.services.redis import RedisServer
from tests.services.service import free_port

ROOT = Path(__file__).parent.parent
DEADLINE = 60.0


@contextlib.contextmanager
def running(folder: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of the project's, started in a folder that it may write into."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)


@contextlib.contextmanager
def serving(folder: Path, app: str, **environment: str) -> Iterator[httpx.Client]:
    """A client of a project's app."""
    port = str(free_port())
    command = ("uvicorn", f"examples.moving.{app}:app", "--port", port)
    with (
        running(folder, *command, **environment) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(httpx.TransportError):
                client.get("/")
                return True
            return False

        wait_until(answers, "an answer")
        yield client


def lines_of(file: Path) -> list[str]:
    """The lines of a file that may not be there yet."""
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("version", ["before", "after"])
def test_signup(version: str, tmp_path: Path) -> None:
    """FastAPI: mails and visits, also of a request that is refused."""
    need("fastapi")
    with serving(tmp_path, f"signup.{version}") as client:
        answer = client.post("/signup", params={"email": "ada@example.com"})
        assert answer.json() == {"status": "welcome"}
        refused = client.post("/signup", params={"email": "ada"})
        assert (refused.status_code, refused.json()) == (422, {"detail": "no address"})
    mails = [
        "ada@example.com: Welcome",
        "ops@example.com: Somebody cannot type",
        "ops@example.com: Somebody signs up",
    ]
    # Before, the visit whose request was refused is not counted: its task never runs.
    visits = ["visit of /signup"] * (1 if version == "before" else 2)
    assert sorted(lines_of(tmp_path / "outbox.txt")) == sorted([*mails, *visits])


@pytest.mark.parametrize("version", ["before", "after"])
def test_thumbnails(version: str, tmp_path: Path) -> None:
    """Starlette: made after the answer, and made again when asked for."""
    thumbnail = tmp_path / "store" / "cat.png.thumb"
    with serving(tmp_path, f"thumbnails.{version}") as client:
        assert client.put("/cat.png", content=b"cat").json() == {"status": "stored"}
        wait_until(thumbnail.exists, "the thumbnail")
        made = thumbnail.read_text()
        thumbnail.unlink()
        assert client.post("/cat.png/thumbnail").json() == {"status": "asked"}
        wait_until(thumbnail.exists, "the thumbnail")
    assert thumbnail.read_text() == made
    assert lines_of(tmp_path / "store" / "announced.txt") == ["cat.png"]


@pytest.mark.parametrize("version", ["before", "after", "scaled"])
def test_newsletter(version: str, tmp_path: Path) -> None:
    """ARQ: every reader gets the issue once, however often it is published."""
    need("arq")
    module = f"examples.moving.newsletter.{version}"
    outbox = tmp_path / "outbox.txt"
    with contextlib.ExitStack() as stack:
        environment = {}
        if version != "after":
            environment["REDIS"] = stack.enter_context(RedisServer(tmp_path / "redis")).url
            settings = f"{module}.WorkerSettings"
            stack.enter_context(running(tmp_path, "arq", settings, **environment))
        client = stack.enter_context(serving(tmp_path, f"newsletter.{version}", **environment))
        for _ in range(2):
            assert client.post("/7").json() == {"status": "published"}
        wait_until(lambda: len(lines_of(outbox)) >= 2, "two mails")
        client.post("/8")
        wait_until(lambda: len(lines_of(outbox)) >= 4, "four mails")
    readers = [f"{reader} reads issue {issue}" for issue in (7, 8) for reader in ("ada", "bob")]
    assert sorted(lines_of(outbox)) == sorted(readers)


def test_what_moved_survives(tmp_path: Path) -> None:
    """The mails of a server that is killed right after its answer are sent by the next one."""
    port = str(free_port())
    command = ("uvicorn", "examples.moving.signup.after:app", "--port", port)
    url = f"http://127.0.0.1:{port}/signup"
    with running(tmp_path, *command) as process:

        def signs_up() -> bool:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.post(url, params={"email": "ada@example.com"}, trust_env=False)
                return answer.status_code == 200
            return False

        wait_until(signs_up, "the app")
        process.kill()
    with serving(tmp_path, "signup.after"):
        wait_until(
            lambda: "ada@example.com: Welcome" in lines_of(tmp_path / "outbox.txt"), "the welcome"
        )
