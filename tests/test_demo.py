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
    "late": """
        import asyncio
        import demo_server

        async def app(scope, receive, send):
            async def send_late(message):
                if scope["method"] == "POST" and message["type"] == "http.response.start":
                    await asyncio.sleep(2)
                await send(message)

            http = scope["type"] == "http"
            await demo_server.app(scope, receive, send_late if http else send)
    """,
    "discouraged": """
        import demo_server
        from demo_server import app

        demo_server.charge_card = demo_server.charge_card.using(retries=0)
    """,
    "halting": """
        import os
        import demo_server
        from demo_server import app

        demo_server.send_mails = lambda count: os._exit(3)
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


def test_one_shot_shows_that_every_promise_is_kept(run_demo: Callable[..., Demo]) -> None:
    """Into a pipe: plain lines of a terminal's width, every step, and a table of what ran."""
    demo = run_demo("--oneshot")
    assert demo.end() == 0, demo.output
    assert "\x1b" not in demo.output
    assert "\r" not in demo.output
    assert max(map(len, demo.output.splitlines())) <= 80
    assert re.findall(r"^(\d)\. ", demo.output, re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    assert "✗" not in demo.output
    assert demo.output.count("  ✓ ") == 16
    assert "All 16 promises were kept." in demo.output
    assert re.search(r"POST /mail → 202 Accepted in [\d.]+ ms", demo.output)
    assert re.search(r"█+░+ +\d+%  row \d+ of 22", demo.output), "no progress was seen"
    row = re.compile(r"^    \w{6}  (\w+) +(\w+) +(\d) +[\d.]+ ms  (\w+)$", re.MULTILINE)
    assert row.findall(demo.output) == [
        ("send_mails", "loop", "1", "succeeded"),
        ("resize_photo", "thread", "1", "succeeded"),
        ("draw_poster", "process", "1", "succeeded"),
        ("charge_card", "loop", "3", "succeeded"),
        ("print_invoice", "loop", "1", "succeeded"),
        ("tell_partner", "loop", "1", "failed"),
        ("pack_parcel", "loop", "1", "succeeded"),
        ("save_draft", "loop", "1", "succeeded"),
    ]
    assert demo.output.endswith("The server has ended.\n")


def test_taken_port_is_no_obstacle_and_colours_can_be_refused(
    run_demo: Callable[..., Demo],
) -> None:
    """`ONESHOT=1` stands for the option, and `NO_COLOR` keeps a terminal's line alive."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else has it, which does as well
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        demo = run_demo(terminal=True, ONESHOT="1", NO_COLOR="1")
        assert demo.end() == 0, demo.output
    assert "Port 8000 is taken, so another one it is." in demo.output
    assert "\x1b" not in demo.output
    assert re.search(r"\r    send_mails is running, [\d.]+ s after the answer", demo.output)


def test_without_one_shot_the_server_stays_until_interrupted(
    run_demo: Callable[..., Demo],
) -> None:
    """The lines for `curl` work as printed, and Ctrl-C leaves no process behind."""
    demo = run_demo(terminal=True)
    demo.wait_for("Ctrl-C ends it.")
    assert "\x1b[32m✓\x1b[0m" in demo.output
    lines = re.findall(r"^    curl (.*?)\r?$", demo.output, re.MULTILINE)
    assert len(lines) == 3
    with httpx.Client(timeout=DEADLINE, trust_env=False) as client:
        for line in lines:
            *options, url = line.split()
            response = client.request("POST" if "POST" in options else "GET", url)
            assert response.is_success
            demo.wait_for(f"{httpx.URL(url).path} HTTP/1.1")
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


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("late", r"✗ The answer does not wait for the task\.\n    It took \d{4,}\."),
        ("discouraged", r"✗ A task that fails is tried again\.\n    Attempt 1 failed"),
        ("halting", r"✗ .*(disconnected|refused|reset)"),
        ("missing", r"✗ the server did not start:\n(.*\n)*.*\"?missing\"?"),
    ],
    ids=["late", "discouraged", "halting", "missing"],
)
def test_broken_promise_is_shown_and_fails(
    server: str, told: str, run_demo: Callable[..., Demo], tmp_path: Path
) -> None:
    """Servers that answer late, try once, die or do not start: none of them passes."""
    if server in BROKEN:
        lines = BROKEN[server].splitlines(keepends=True)
        (tmp_path / f"{server}.py").write_text("".join(line[8:] or "\n" for line in lines))
    demo = run_demo("--oneshot", "--app", f"{server}:app", PYTHONPATH=str(tmp_path))
    assert demo.end() == 1, demo.output
    assert re.search(told, demo.output), demo.output
    assert "promises were kept" not in demo.output


def test_marks_are_plain_where_the_encoding_has_no_others(
    run_demo: Callable[..., Demo],
) -> None:
    """A terminal that knows only ASCII is shown ASCII, and no traceback."""
    demo = run_demo("--oneshot", PYTHONIOENCODING="ascii")
    demo.wait_for("  + The task runs after the response.")
    demo.process.terminate()
    assert demo.end() == 130, demo.output
