"""The commands of the pages about engines run the examples: an app, and a worker.

ARQ's and Celery's are run by the tests of those engines.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.docs_page import commands_of
from tests.helpers import need, wait_until
from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer
from tests.services.service import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "engines"
DEADLINE = 60.0


def commands_of_example(name: str) -> list[str]:
    """What the comment at the top of an example has its reader type."""
    text = (EXAMPLES / f"{name}_app.py").read_text().split('"""')[1]
    return re.findall(r"^    (\S.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["arq", "celery", "taskiq", "procrastinate"])
def test_page_and_example_have_the_same_commands(name: str) -> None:
    """So that the test of one of them is that of both."""
    page = commands_of((ROOT / "docs" / "engines" / f"{name}.md").read_text())
    assert page[-2:] == commands_of_example(name)[-2:]


class Terminal:
    """Starts commands in a folder, all of which write into one log."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def close(self) -> None:
        """End everything, with what it has started."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    with RedisServer(tmp_path / "redis") as server:
        yield server.url


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    with PostgresServer(tmp_path / "postgres") as server:
        yield server.url


def test_index_of_the_page_can_be_made(postgres: str) -> None:
    """In a database with Procrastinate's tables."""
    procrastinate = need("procrastinate")
    psycopg = need("psycopg")
    text = (ROOT / "docs" / "engines" / "procrastinate.md").read_text()
    [statement] = re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=postgres))
    with app.open():
        app.schema_manager.apply_schema()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("name", "service", "variable"),
    [
        ("taskiq", "redis", "REDIS_URL"),
        ("procrastinate", "postgres", "PROCRASTINATE_DSN"),
        ("saq", "redis", "REDIS_URL"),
    ],
)
def test_example_runs_by_its_commands(
    name: str, service: str, variable: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """E3: whatever is to be done once, then the app, and the worker that runs its job."""
    need(name)
    url = request.getfixturevalue(service)
    *once, serve, work = commands_of_example(name)
    port = free_port()
    terminal = Terminal(tmp_path, **{variable: url})
    try:
        for command in once:
            assert terminal.start(command).wait(DEADLINE) == 0, terminal.log()
        terminal.start(f"{serve} --port {port}")
        terminal.start(work)
        answers: list[str] = []

        def answer() -> bool:
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/") as answered:
                answers.append(answered.read().decode())
            return bool(answers)

        wait_until(answer, "answer")
        job = answers[0].removeprefix("accepted, job ").strip()
        wait_until(lambda: f"invoice for order 7, job {job}" in terminal.log(), "invoice")
    finally:
        terminal.close()
