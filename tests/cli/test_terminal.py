"""In a real terminal: narrow and wide, with colours and without (W3)."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import DEADLINE, ROOT, Journal, environment
from tests.helpers import need
from tests.journal.helpers import until
from tests.services.service import need_program

need("typer")

ESCAPES = ("\x1b]0;owned", "\x1b[2J", "\u202e", "\x9b")
"""Of what the evil job says."""


class Terminal:
    """A shell in a terminal of that size, by tmux, with a server of its own."""

    def __init__(self, folder: Path, width: int, height: int, **env: str) -> None:
        self._tmux = [need_program("tmux", "tmux"), "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._number = 0
        size = ["-x", str(width), "-y", str(height)]
        subprocess.run(
            [*self._tmux, "new-session", "-d", *size, "env PS1='$ ' sh"],
            env=environment(LANG="C.UTF-8", **env),
            cwd=ROOT,
            check=True,
        )

    def type(self, text: str, *, enter: bool = True) -> None:
        keys = [text, "Enter"] if enter else [text]
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def screen(self, *options: str) -> str:
        """What is seen, without trailing blanks; with ``-e`` with its colours."""
        found = subprocess.run(
            [*self._tmux, "capture-pane", "-p", *options], capture_output=True, check=True
        )
        return "\n".join(line.rstrip() for line in found.stdout.decode().splitlines()).rstrip()

    def await_text(self, text: str) -> str:
        until(lambda: text in self.screen(), DEADLINE)
        return self.screen()

    def run(self, *args: str) -> str:
        """Call the command, wait for its end, and return what is seen."""
        self._number += 1
        command = shlex.join([sys.executable, "-m", "asgi_bg", *args])
        self.type(f"clear; {command}; echo ended-$(({self._number} + 100)) $?")
        end = f"ended-{self._number + 100}"
        screen = self.await_text(end)
        self.code = int(screen.partition(f"{end} ")[2].split()[0])
        return screen.partition(end)[0]

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(width: int = 100, height: int = 40, **env: str) -> Terminal:
        folder = tmp_path / f"terminal{len(opened)}"
        folder.mkdir()
        opened.append(Terminal(folder, width, height, **env))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


Start = Callable[..., Terminal]


def test_narrow_terminal_has_cards(shop: Journal, terminal: Start) -> None:
    """Ids stay whole, to be copied; no line is wider than the screen."""
    narrow = terminal(40, 50)
    screen = narrow.run("--journal", shop.path, "list")
    assert narrow.code == 0
    lines = screen.splitlines()
    assert {f"  {job}" for job in shop.ids.values()} <= set(lines)
    place = lines.index(f"  {shop.ids['evil']}")
    assert lines[place - 1] == "failed  shop:evil"
    assert re.match(r"  \d+m ago  attempt 2  ━+╌+  25%$", lines[place + 1])
    assert lines[place + 2].startswith("  ValueError: \\x1b]0;owned")
    assert lines[place + 2].endswith("…")
    assert len(lines) == len(shop.ids) * 3 + 2


def test_wide_terminal_has_rows(shop: Journal, terminal: Start) -> None:
    screen = terminal(200, 20).run("--journal", shop.path, "list")
    header, *rows = screen.splitlines()
    assert header.split() == ["id", "status", "task", "age", "attempt", "progress", "error"]
    assert [row[:32] for row in rows] == list(shop.ids.values())[::-1]
    evil = next(row for row in rows if row.startswith(shop.ids["evil"]))
    assert "[bold]b[/bold]" in evil
    assert "25%" in evil


@pytest.mark.parametrize(
    ("env", "options", "is_colored"),
    [({}, (), True), ({"NO_COLOR": "1"}, (), False), ({}, ("--no-color",), False)],
    ids=["colour", "NO_COLOR", "--no-color"],
)
def test_colours_are_as_wanted(
    shop: Journal,
    terminal: Start,
    env: dict[str, str],
    options: tuple[str, ...],
    is_colored: bool,
) -> None:
    """And nothing that a job says ever reaches the terminal as an order."""
    window = terminal(120, 60, **env)
    for args in (("list",), ("show", shop.ids["evil"]), ("stats",), ("check",)):
        window.run("--journal", shop.path, *options, *args)
        painted = window.screen("-e")
        assert ("\x1b[3" in painted or "\x1b[1m\x1b[3" in painted) is is_colored
        assert "owned" not in window_title(window)
        assert not any(escape in window.screen() for escape in ESCAPES)
    assert "\\x1b[2J" in window.run("--journal", shop.path, "show", shop.ids["evil"])


def window_title(window: Terminal) -> str:
    found = subprocess.run(
        [*window._tmux, "display-message", "-p", "#{pane_title}"], capture_output=True, check=True
    )
    return found.stdout.decode()


def test_pipe_from_a_terminal_has_no_colours(
    shop: Journal, terminal: Start, tmp_path: Path
) -> None:
    window = terminal(40, 20)
    file = tmp_path / "out"
    command = shlex.join([sys.executable, "-m", "asgi_bg", "--journal", shop.path, "list"])
    window.type(f"{command} | cat > {file}; echo en''ded")
    window.await_text("ended")
    assert "\x1b" not in file.read_text()
    assert len(file.read_text().splitlines()) == 7
    assert shop.ids["evil"] in file.read_text()


def test_purge_asks_with_the_number(shop: Journal, terminal: Start) -> None:
    """No is no, and yes is yes."""
    window = terminal(100, 20)
    command = shlex.join([sys.executable, "-m", "asgi_bg", "--journal", shop.path, "purge"])
    for answer, gone in (("", 0), ("n", 0), ("y", 4)):
        window.type(f"clear; {command}")
        window.await_text("Remove 4 jobs from")
        window.type(answer)
        window.await_text(f"{gone} jobs removed")


@pytest.mark.parametrize(("width", "height"), [(40, 12), (120, 40)])
def test_watch_is_live_and_leaves_the_screen_as_it_was(
    shop: Journal, terminal: Start, width: int, height: int
) -> None:
    """What changes is seen; it fits whatever size the terminal has; Ctrl-C gives 130."""
    window = terminal(width, height)
    window.type("clear; echo be''fore")
    window.await_text("before")
    command = shlex.join([sys.executable, "-m", "asgi_bg", "--journal", shop.path])
    window.type(f"{command} watch --interval 0.2; echo code''-$?")
    screen = window.await_text("Newest")
    assert "Ctrl-C ends" in screen or width == 40
    assert "queued 1" in screen
    assert len(screen.splitlines()) <= height
    subprocess.run(
        [sys.executable, "-m", "asgi_bg", "--journal", shop.path, "cancel", shop.ids["queued"]],
        env=environment(),
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    window.await_text("queued 0")
    window.type("C-c", enter=False)
    screen = window.await_text("code-130")
    assert "before" in screen
    assert "Newest" not in screen


def test_letters_only_terminal_has_letters_only(shop: Journal, terminal: Start) -> None:
    window = terminal(60, 60, PYTHONIOENCODING="ascii")
    screen = window.run("--journal", shop.path, "list")
    assert "###" in screen
    assert "\\u2501" not in screen
