"""The command beside an app that writes at full speed: neither stands in the other's way (W3)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import DEADLINE, ROOT, call, environment
from tests.helpers import need

need("typer")

SLOWEST = 4.0
"""How long a commit of the app may take here, in seconds; under busy_timeout, which is 5."""


@contextlib.contextmanager
def busy_app(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.busy_app", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> Any:
    """End it, and return what it has done."""
    out, _ = process.communicate(timeout=DEADLINE)
    return json.loads(out)


@pytest.mark.parametrize(
    "commands",
    [
        [("list", "--all"), ("list", "--text", "luck"), ("stats",), ("check",)],
        [("retry", "--failed"), ("list", "-s", "failed")],
        [("purge", "--yes", "--status", "succeeded"), ("purge", "--yes")],
    ],
    ids=["look", "retry", "purge"],
)
def test_app_goes_on_and_loses_nothing(
    tmp_path: Path, commands: list[tuple[str, ...]], record_property: Any
) -> None:
    path = tmp_path / "jobs.db"
    with busy_app(path) as process:
        end = time.monotonic() + 4
        calls = 0
        while calls < 2 or time.monotonic() < end:
            outcome = call("--journal", str(path), *commands[calls % len(commands)])
            assert outcome.code == 0, outcome.err
            calls += 1
        figures = told(process)
    record_property("figures", figures)
    print(f"{calls} calls beside it; {figures}")
    assert figures["not_run"] == []
    assert figures["run_twice"] == []
    assert figures["slowest"] < SLOWEST
    assert figures["added"] > 100
    if commands[0][0] == "retry":
        assert figures["failures"] > figures["added"] / 20
    assert call("--journal", str(path), "check").code == 0
