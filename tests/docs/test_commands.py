"""What the pages have their readers type into a terminal, typed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asgi_bg.testing.crash import CrashSite
from tests.docs_page import blocks_of, commands_of
from tests.helpers import need, wait_until
from tests.servers.harness import Kind, Server
from tests.services.service import need_program

need("uvicorn")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()

EXTRA = re.compile(r"asgi_bg\[([\w,]+)\]")


def extras_of_the_project() -> set[str]:
    """The names in pyproject.toml; Python 3.10 has nothing that reads TOML."""
    text = (ROOT / "pyproject.toml").read_text()
    _, _, table = text.partition("[project.optional-dependencies]\n")
    return set(re.findall(r"^(\w+) = \[", table.partition("\n[")[0], re.MULTILINE))


def test_extras_that_are_named_are_there() -> None:
    """In the README, on the pages, in examples, and in errors that say what to install."""
    extras = extras_of_the_project()
    assert {"all", "cli", "fastapi"} <= extras
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts += [*(ROOT / "examples").rglob("*.py"), *(ROOT / "asgi_bg").rglob("*.py")]
    named: set[str] = set()
    for file in texts:
        for names in EXTRA.findall(file.read_text()):
            named |= set(names.split(","))
            assert set(names.split(",")) <= extras, f"{file}: {names}"
    assert len(named) > 10


def asgi_bg(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line's, as it stands on a page."""
    return subprocess.run(
        [sys.executable, "-m", "asgi_bg", *shlex.split(command.removeprefix("asgi-bg "))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def watching(folder: Path, command: str) -> Generator[Callable[[], bool]]:
    """Start the command that ends with Ctrl-C only; returns whether it has told of the task."""
    with (folder / "watched").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "asgi_bg", *shlex.split(command.removeprefix("asgi-bg "))],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
        )
    try:
        yield lambda: "shop:send_invoice" in (folder / "watched").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()


def test_smallest_program_of_the_readme(tmp_path: Path) -> None:
    """Saved as hello.py, it answers, and sends its mail."""
    assert "Save it as `hello.py`" in README
    (tmp_path / "hello.py").write_text(blocks_of(README)[0][1])
    _, serve, ask, *_ = commands_of(README)
    assert ask == "curl http://127.0.0.1:8000/"
    kind = Kind("uvicorn", ("uvicorn",), ("-m", "uvicorn"), ("--port", "{port}"))
    server = Server(kind, tmp_path, serve.removeprefix("uvicorn "))
    try:
        assert server.get("/").body == b"accepted\n"
        server.until_logged("mail to you@example.com")
    finally:
        server.stop()


def test_five_minutes(tmp_path: Path) -> None:
    """The page from its first request to its last command."""
    need("typer")
    assert "Save this as `shop.py`" in QUICKSTART
    (tmp_path / "shop.py").write_text(blocks_of(QUICKSTART)[0][1])
    _, _, _, serve, ask, again, kill, restart, _, show, watch = commands_of(QUICKSTART)
    assert ask == again == "curl http://127.0.0.1:8000/"
    assert serve == restart == "uvicorn shop:app"
    assert kill == "pkill -9 -f shop:app"  # here by its id
    with CrashSite("shop:app", journal=tmp_path / "jobs.db", cwd=tmp_path) as site:
        first = site.get("/").body.decode()
        assert re.fullmatch(r"accepted as \w{32}\n", first)
        assert site.until_done(first.split()[-1]).result == "invoice-7.pdf"
        second = site.get("/").body.decode().split()[-1]
        wait_until(lambda: site.job(second).status == "running", "start of the second job")
        site.kill()
        assert site.job(second).status == "running"  # as the page says
        with watching(tmp_path, watch) as has_told:
            site.restart()
            done = site.until_done(second)
            assert (done.result, done.attempt) == ("invoice-7.pdf", 2)
            wait_until(has_told, "line of the watch")
        assert "invoice sent for order 7" in site.log()
    listed = asgi_bg(tmp_path, show)
    assert listed.stdout.count("shop:send_invoice") == 2, listed


def test_commands_of_the_readme(tmp_path: Path) -> None:
    """They find the journal that the README's durable program has made."""
    need("typer")
    (tmp_path / "shop.py").write_text(blocks_of(README)[1][1])
    show, watch = (line for line in commands_of(README) if line.startswith("asgi-bg "))
    with CrashSite("shop:app", journal=tmp_path / "jobs.db", cwd=tmp_path) as site:
        assert site.get("/").body == b"accepted\n"
        site.until_all_done()
        failed = asgi_bg(tmp_path, show)
        assert (failed.returncode, "send_invoice" in failed.stdout) == (0, False), failed
        with watching(tmp_path, watch) as has_told:
            # It tells of what comes after its start.
            wait_until(lambda: site.get("/") and has_told(), "line of the watch")


def test_make_targets_of_the_readme_are_there() -> None:
    """The rest of its commands."""
    makefile = (ROOT / "Makefile").read_text()
    for line in commands_of(README):
        if line.startswith("make "):
            assert f"\n{line.split()[1]}:" in makefile
        else:
            assert line.split()[0] in ("pip", "uvicorn", "curl", "asgi-bg"), line


def test_backups(tmp_path: Path) -> None:
    """Both commands copy a journal that a server has open, with its jobs."""
    need_program("sqlite3", "sqlite3")
    (tmp_path / "shop.py").write_text(blocks_of(README)[1][1])
    with CrashSite("shop:app", journal=tmp_path / "jobs.db", cwd=tmp_path) as site:
        site.get("/")
        site.until_all_done()
        for command in commands_of(OPERATING)[:2]:
            subprocess.run(shlex.split(command), cwd=tmp_path, check=True, timeout=60)
            listed = asgi_bg(tmp_path, "--journal copy.db list")
            assert listed.stdout.count("shop:send_invoice") == 1, listed
            (tmp_path / "copy.db").unlink()


@pytest.mark.parametrize("number", [2, 3])
def test_several_workers(number: int, tmp_path: Path) -> None:
    """The commands for uvicorn and Gunicorn serve an app with a journal."""
    command = shlex.split(commands_of(OPERATING)[number])
    need(command[0])
    if command[0] == "gunicorn":
        need("uvicorn_worker")
    (tmp_path / "main.py").write_text(blocks_of(README)[1][1])
    bind = ("-b", "127.0.0.1:{port}") if command[0] == "gunicorn" else ("--port", "{port}")
    command.remove("main:app")
    kind = Kind(command[0], (command[0],), ("-m", *command), bind)
    server = Server(kind, tmp_path, "main:app")
    try:
        assert server.get("/").body == b"accepted\n"
        server.until_logged("invoice for order 7")
    finally:
        server.stop()


def test_the_command_is_installed() -> None:
    """``asgi-bg`` is ``python -m asgi_bg``, which the tests here call."""
    script = Path(sys.executable).with_name("asgi-bg")
    if not script.exists() and shutil.which("asgi-bg") is None:
        assert not os.environ.get("CI"), "CI installs the package, and with it the command"
        pytest.skip("asgi_bg is not installed, but found where it lies: pip install -e .")
    ran = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60)
    assert "Usage" in ran.stdout


def test_commands_of_all_pages_are_typed_somewhere() -> None:
    """A page with commands beside pip's has a test that runs them; pip's are looked at above."""
    typed = {
        "README.md",
        "docs/quickstart.md",
        "docs/operating.md",
        "docs/cli.md",  # tests/cli/test_docs.py
        *(f"docs/engines/{name}.md" for name in ("arq", "celery", "taskiq", "procrastinate")),
        *(str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "integrations").glob("*.md")),
    }
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = {
        str(page.relative_to(ROOT))
        for page in pages
        if any(not line.startswith("pip ") for line in commands_of(page.read_text()))
    }
    assert found == typed
    for page in pages:
        assert not re.search(r"^(?:    |```\n)\$? ?pip ", page.read_text(), re.MULTILINE), page
