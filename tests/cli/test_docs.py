"""What the page of the command line says is so."""

from __future__ import annotations

import re
import shlex

import pytest

from asgi_bg.cli import _exits
from asgi_bg.journal.checking import NAMES
from tests.cli.helpers import ROOT, Journal, call
from tests.helpers import need

need("typer")

PAGE = (ROOT / "docs" / "cli.md").read_text()

COMMANDS = [
    line.removeprefix("$ asgi-bg ")
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ asgi-bg ")
]


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c not in ("watch", "--install-completion")]
)
def test_commands_of_the_page_are_understood(
    shop: Journal, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """They may not find the jobs that the page speaks of; purge asks, and gets no answer."""
    monkeypatch.chdir(ROOT)
    words = [shop.path if word == "jobs.db" else word for word in shlex.split(command)]
    outcome = call(*words, env={"ASGI_BG_JOURNAL": shop.path})
    if words[0] == "purge" and "--yes" not in words:
        assert "asks first" in outcome.err
    else:
        assert outcome.code in (0, 1), outcome.err


def test_every_command_and_option_is_on_the_page() -> None:
    text = call("--help").out
    commands = re.findall(r"^  (\w+)  +[A-Z]", text.split("Commands:")[1], re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        assert f"`{command}" in PAGE
        for option in re.findall(r"(--[a-z-]+)", call(command, "--help").out):
            # Common ones are explained once, and the help explains itself.
            assert option in PAGE or option in ("--help", "--interval"), option


def test_exit_codes_and_checks_are_on_the_page() -> None:
    codes = re.findall(r"^\| (\d+) \| ", PAGE, re.MULTILINE)
    known = sorted(value for name, value in vars(_exits).items() if name.isupper())
    assert sorted(map(int, codes)) == known
    assert re.findall(r"^\| `(\w+)` \| .*\.", PAGE.split("## Is the")[1], re.MULTILINE) == list(
        NAMES
    )
