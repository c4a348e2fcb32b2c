"""The plugin in test suites of others, each a pytest of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import need

ROOT = Path(__file__).parents[2]

APP = """
from asgi_bg import BackgroundTaskMiddleware, add_task

ran = []

async def mail(to):
    ran.append(to)

async def serve(scope, receive, send):
    add_task(mail, "ada")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

app = BackgroundTaskMiddleware(serve)

async def get():
    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope, receive, send)
"""

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a test file in a project of its own, and return what pytest says."""

    def run_one(tests: str, *options: str, passes: bool = True) -> str:
        (tmp_path / "the_app.py").write_text(APP)
        (tmp_path / "test_it.py").write_text(f"import asyncio, pytest, the_app\n{tests}")
        (tmp_path / "pytest.ini").write_text(ini())
        command = (sys.executable, "-m", "pytest", "-q", *plugin(), *options)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=100,
        )
        said = done.stdout + done.stderr
        assert (done.returncode == 0) is passes, said
        return said

    return run_one


def ini() -> str:
    """Return the settings of a project, with that which pytest-asyncio asks for if it is there."""
    text = "[pytest]\nfilterwarnings = error\n"
    if importlib.util.find_spec("pytest_asyncio") is not None:
        text += "asyncio_default_fixture_loop_scope = function\n"
    return text


def plugin() -> tuple[str, ...]:
    """Name the plugin, where the package was not installed since it has one."""
    metadata = need("importlib.metadata")
    names = {each.name for each in metadata.entry_points(group="pytest11")}
    return () if "asgi_bg" in names else ("-p", "asgi_bg.pytest_plugin")


def test_a_plain_test(run: Run) -> None:
    run(
        """
def test_it(background_tasks):
    asyncio.run(the_app.get())
    background_tasks.assert_added(the_app.mail, "ada")
    assert the_app.ran == []
    background_tasks.drain()
    assert the_app.ran == ["ada"]

def test_another(background_tasks):
    background_tasks.assert_nothing_added()

def test_without():
    the_app.ran.clear()
    asyncio.run(the_app.get())
    assert the_app.ran == ["ada"]
"""
    )


@pytest.mark.parametrize("plugin", ["anyio", "pytest_asyncio"])
def test_async_tests(run: Run, plugin: str) -> None:
    """Neither of the plugins for them is needed; each works."""
    need(plugin)
    mark = "anyio" if plugin == "anyio" else "asyncio"
    run(
        f"""
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
def served(background_tasks):
    return background_tasks

@pytest.mark.{mark}
async def test_it(served, background_tasks):
    await the_app.get()
    background_tasks.assert_added(the_app.mail, "ada")
    await background_tasks.drain()
    assert the_app.ran == ["ada"]
    background_tasks.run_at_once()
    await the_app.get()
    assert the_app.ran == ["ada", "ada"]
"""
    )


def test_many_processes(run: Run) -> None:
    need("xdist")
    said = run(
        """
@pytest.mark.parametrize("n", range(40))
def test_it(background_tasks, n):
    the_app.ran.clear()
    asyncio.run(the_app.get())
    background_tasks.assert_added(the_app.mail)
    background_tasks.drain()
    assert the_app.ran == ["ada"]
""",
        *("-n", "2"),
    )
    assert "40 passed" in said


def test_what_fails(run: Run) -> None:
    """An assertion shows the line of the test, and not those of this package."""
    said = run(
        """
def test_not_added(background_tasks):
    asyncio.run(the_app.get())
    background_tasks.assert_added(the_app.mail, "eve")

def test_not_awaited(background_tasks):
    async def test():
        background_tasks.drain()

    asyncio.run(test())
""",
        passes=False,
    )
    assert "no job of the_app:mail('eve') was added; 1 job(s) were added:" in said
    assert "the_app:mail('ada')" in said
    assert "write: await background_tasks.drain()" in said
    assert "recorder.py" not in said.partition("FAILURES")[2]


def test_no_test_framework_but_the_fixture_is_needed() -> None:
    """`asgi_bg.testing` does not import pytest, nor sqlite3."""
    code = "import sys, asgi_bg.testing; assert not {'pytest', 'sqlite3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
