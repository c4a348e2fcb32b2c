"""The demo shows what is there: it ends well when all promises are kept, and badly when not."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"
DEADLINE = 100.0

BROKEN = {
    # Answers when the task is done.
    "late": """
        import asyncio
        import demo_server

        async def app(scope, receive, send):
            async def send_late(message):
                if scope["path"] == "/photo" and message["type"] == "http.response.start":
                    await asyncio.sleep(1.1)
                await send(message)

            http = scope["type"] == "http"
            await demo_server.app(scope, receive, send_late if http else send)
    """,
    # Keeps its jobs in memory.
    "forgetful": """
        import asgi_bg

        runner = asgi_bg.Runner
        asgi_bg.Runner = lambda journal, **options: runner(**options)
        from demo_server import app
    """,
    # Forgets, when it is started again, what had ended.
    "repeating": """
        import contextlib
        import sqlite3
        from demo_server import DIRECTORY, app

        with contextlib.closing(sqlite3.connect(DIRECTORY / "jobs.db")) as connection:
            with contextlib.suppress(sqlite3.OperationalError), connection:
                connection.execute(
                    "UPDATE jobs SET status = 'queued', finished_at = NULL, owner = NULL "
                    "WHERE status = 'succeeded'"
                )
    """,
    # Ends in the middle of the orders.
    "halting": """
        import os
        import demo_server
        from demo_server import app

        demo_server.send_mail = lambda to: os._exit(3)
    """,
}


class Demo:
    """The demo in a process of its own, and what it prints, into a pipe or to a terminal."""

    def __init__(self, *arguments: str, terminal: bool = False, **environment: str) -> None:
        env = {key: value for key, value in os.environ.items() if key not in _MEANINGFUL}
        reading, writing = pty.openpty() if terminal else os.pipe()
        self.output = ""
        self._reading = os.fdopen(reading, "rb", buffering=0)
        with os.fdopen(writing, "wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, str(DEMO), *arguments],
                env={**env, "PYTHONIOENCODING": "utf-8", **environment},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        data = b""
        with suppress(OSError):  # how a terminal says that nobody holds its other end
            while part := self._reading.read(65_536):
                data += part
                self.output = data.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def end(self) -> int:
        """Wait until it ends by itself, and return its status."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # it takes its server along
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            self.process.kill()
            self.process.wait()
        self._reader.join(DEADLINE)
        self._reading.close()


_MEANINGFUL = {"ONESHOT", "NO_COLOR", "PYTHONIOENCODING"}


@pytest.fixture
def run_demo() -> Iterator[Callable[..., Demo]]:
    """Start the demo, and see to its end."""
    with ExitStack() as stack:

        def run(*arguments: str, terminal: bool = False, **environment: str) -> Demo:
            demo = Demo(*arguments, terminal=terminal, **environment)
            stack.callback(demo.close)
            return demo

        yield run


def test_one_shot_shows_that_nothing_accepted_is_lost(run_demo: Callable[..., Demo]) -> None:
    """Into a pipe: plain lines of a terminal's width, and a table of what ran where.

    `ONESHOT=1` stands for the option.
    """
    demo = run_demo(ONESHOT="1")
    assert demo.end() == 0, demo.output
    assert "\x1b" not in demo.output
    assert "\r" not in demo.output
    assert max(map(len, demo.output.splitlines())) <= 80
    assert re.findall(r"^(\d)\. ", demo.output, re.MULTILINE) == ["1", "2", "3"]
    assert demo.output.count("  ✓ ") == 3, demo.output
    assert re.search(r"POST /mail     → 202 Accepted in +[\d.]+ ms", demo.output)
    first, second = re.findall(r"^    Process (\d+) (?:serves|finds)", demo.output, re.MULTILINE)
    assert f"kill -9 {first}, with the poster at " in demo.output
    row = re.compile(
        r"^    (\w{6}|x\d+ *)  (\w+) +(\d+) +((?:\d+✗? )*\d+✗?) +(\d)  (\w+)$", re.MULTILINE
    )
    rows = row.findall(demo.output)
    assert [name for _, name, *_ in rows[:8]] == [
        "draw_poster",
        "resize_photo",
        "resize_photo",
        "charge_card",
        "send_mail",
        "send_mail",
        "charge_card",
        "send_reminder",
    ]
    assert rows[0][2:] == (first, f"{first}✗ {second}", "2", "succeeded")
    assert rows[7][2:] == (first, second, "1", "succeeded")
    assert {accepted_by for _, _, accepted_by, *_ in rows} == {first}
    assert {status for *_, status in rows} == {"succeeded"}
    crowd = sum(int(count[1:]) for count, *_ in rows[8:])
    assert crowd >= 20
    verdict = f"{crowd + 8} accepted, {crowd + 8} run, 0 lost"
    assert demo.output.endswith(f"\n{verdict}\nThe server has ended.\n")


def test_without_one_shot_the_server_stays_until_interrupted(
    run_demo: Callable[..., Demo],
) -> None:
    """The lines for a terminal work as printed, also the one that kills the server, which is
    started again; and Ctrl-C leaves no process behind."""
    demo = run_demo(terminal=True)
    demo.wait_for("Ctrl-C ends it.")
    assert "\x1b[32m✓\x1b[0m" in demo.output
    assert re.search(r"\r    [█▒░]{32}  \d+ accepted, \d+ run, poster at \d+%", demo.output)
    lines = re.findall(r"^    curl (.*?)\r?$", demo.output, re.MULTILINE)
    assert len(lines) == 2
    with httpx.Client(timeout=DEADLINE, trust_env=False) as client:
        for line in lines:
            *options, url = line.split()
            response = client.request("POST" if "POST" in options else "GET", url)
            assert response.is_success
            demo.wait_for(f"{httpx.URL(url).path} HTTP/1.1")
    pid = re.findall(r"^    kill -9 (\d+)", demo.output, re.MULTILINE)[-1]
    assert psutil.Process(int(pid)).ppid() == demo.process.pid
    os.kill(int(pid), signal.SIGKILL)
    demo.wait_for("Killed, and started again as process ")
    processes = psutil.Process(demo.process.pid).children(recursive=True)
    assert processes
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 0, demo.output
    assert demo.output.rstrip().endswith("The server has ended.")
    _, left = psutil.wait_procs(processes, DEADLINE)
    assert left == []


def test_termination_takes_the_server_along(run_demo: Callable[..., Demo]) -> None:
    """Whoever ends the demo in the middle of a step finds the port free."""
    demo = run_demo()
    demo.wait_for("POST /mail")
    processes = psutil.Process(demo.process.pid).children(recursive=True)
    assert processes
    demo.process.terminate()
    assert demo.end() == 130
    assert demo.output.endswith("Interrupted.\n")
    _, left = psutil.wait_procs(processes, DEADLINE)
    assert left == []


@pytest.fixture(scope="module")
def broken_demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Demo]]:
    """The demos of servers that break promises; all at once, as they wait most of the time."""
    folder = tmp_path_factory.mktemp("broken")
    for name, program in BROKEN.items():
        lines = program.splitlines(keepends=True)
        (folder / f"{name}.py").write_text("".join(line[8:] or "\n" for line in lines))
    with ExitStack() as stack:
        demos: dict[str, Demo] = {}
        for name in (*BROKEN, "missing"):
            demos[name] = Demo("--oneshot", "--app", f"{name}:app", PYTHONPATH=str(folder))
            stack.callback(demos[name].close)
        yield demos


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("late", r"✗ No answer waits for its task.*\n.* took \d{4,}\.\d ms\."),
        ("forgetful", r"nowhere +-  lost\n(.*\n)*\d+ accepted, \d+ run, [1-9]\d* lost\n"),
        ("repeating", r"✗ What had ended before .*\n    [1-9]\d* of those \d+ jobs did\."),
        ("halting", r"✗ .*(disconnected|refused|reset)"),
        ("missing", r"✗ the server did not start:\n(.*\n)*.*\"?missing\"?"),
    ],
    ids=["late", "forgetful", "repeating", "halting", "missing"],
)
def test_broken_promise_is_shown_and_fails(
    server: str, told: str, broken_demos: dict[str, Demo]
) -> None:
    """Servers that answer late, forget jobs, repeat them, die or do not start: none passes."""
    demo = broken_demos[server]
    assert demo.end() == 1, demo.output
    assert re.search(told, demo.output), demo.output


def test_taken_port_is_no_obstacle_and_plain_marks_do_too(run_demo: Callable[..., Demo]) -> None:
    """A terminal that wants no colours, or knows only ASCII, is shown neither."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else has it, which does as well
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        demo = run_demo(terminal=True, NO_COLOR="1", PYTHONIOENCODING="ascii")
        demo.wait_for("    kill -9 ")
        demo.process.terminate()
        assert demo.end() == 130, demo.output
    assert "Port 8000 is taken, so another one it is." in demo.output
    assert "\x1b" not in demo.output
    assert demo.output.isascii()
    assert re.search(r"\r    [#=-]{32}  \d+ accepted, \d+ run, poster at \d+%", demo.output)
    assert "POST /mail     > 202 Accepted in " in demo.output
