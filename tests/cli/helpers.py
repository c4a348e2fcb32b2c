"""Journals to look at, and ways to call the command: in this process, in another, in a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from asgi_bg._ids import new_id
from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.base import Batch, Handover, NewJob
from tests.helpers import need
from tests.journal.helpers import change, crash

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0

EVIL = "ValueError: \x1b]0;owned\x07 \x1b[31mred [bold]b[/bold] \u202eevil \x9b2J"
"""What a job may say, and a terminal must not get."""


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ORIGIN = json.dumps(["POST", "/orders/\x1b[2J", "req-1", TRACE])
"""The request that has added the jobs."""


def new_job(
    task: str, at: float, *, call: str = "[]", is_held: bool = False, **fields: Any
) -> NewJob:
    """Return a job that was added at that instant."""
    empty: dict[str, Any] = {
        "options": None,
        "run_after": None,
        "priority": 0,
        "key": None,
        "after": None,
    }
    values = {**empty, **fields}
    return NewJob(id=new_id(at), task=task, call=call, queued_at=at, is_held=is_held, **values)


class Journal:
    """A journal with a job of each kind, that no process has open.

    Attributes:
        path: Its path.
        ids: The jobs' ids by what they are, in the order in which they were added.
    """

    def __init__(self, path: Path, keys: tuple[bytes, ...] = ()) -> None:
        self.path = str(path)
        self.ids: dict[str, str] = {}
        with closing(SQLiteJournal(path, keys=keys)) as journal:
            journal.open()
            self._fill(journal)

    def _fill(self, journal: SQLiteJournal) -> None:
        now = time.time()
        for number, name in enumerate(("old", "good", "evil", "cancelled", "queued", "handed")):
            at = now - (30 * 86_400 if name == "old" else 600 - number)
            call = '[[1,"two"],{"three":[3]}]'
            is_held = name != "queued"
            job = new_job(f"shop:{name}", at, call=call, origin=ORIGIN, is_held=is_held)
            journal.commit(Batch(added=[job]))
            self.ids[name] = job.id
        times = {"started_at": now - 500, "finished_at": now - 498.8}
        old = {"started_at": now - 30 * 86_400, "finished_at": now - 29 * 86_400}
        logs = json.dumps(
            [
                {
                    "at": "2030-01-02T03:04:05Z",
                    "level": "WARNING",
                    "logger": "shop",
                    "message": "odd \x1b[2J",
                }
            ]
        )
        journal.commit(
            Batch(
                marks=[
                    change(self.ids["old"], "succeeded", result='"long ago"', **old),
                    change(self.ids["good"], "succeeded", result='{"total":12}', **times),
                    change(
                        self.ids["evil"],
                        "failed",
                        2,
                        error=EVIL,
                        traceback=f"Traceback:\n  line\n{EVIL}\n",
                        logs=logs,
                        progress=0.25,
                        message="half \x1b[2J",
                        **times,
                    ),
                    change(self.ids["cancelled"], "cancelled", error="not needed", **times),
                    Handover(self.ids["handed"], "arq", now),
                ]
            )
        )


class Outcome:
    """How a call of the command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The lines of a table in a pipe."""
        names, *lines = (line.split("\t") for line in self.out.splitlines())
        return [dict(zip(names, line, strict=True)) for line in lines]


def call(*args: str, env: dict[str, str] | None = None, input: str | None = None) -> Outcome:
    """Call the command in this process."""
    testing = need("typer.testing")
    app = need("asgi_bg.cli._app").app
    plain = {"ASGI_BG_JOURNAL": "", "ASGI_BG_KEYS": "", **(env or {})}
    result = testing.CliRunner().invoke(app, list(args), env=plain, input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that calls the command."""
    own = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ASGI_BG") and name not in own
    }
    return {**kept, "PYTHONPATH": str(ROOT), "TZ": "UTC", **more}


@contextmanager
def started(*args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process of its own, and end it by its pid."""
    need("typer")
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_bg", *args],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=options.pop("env", environment()),
        cwd=ROOT,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(*args: str, **options: Any) -> Outcome:
    """Call the command in a process of its own."""
    with started(*args, **options) as process:
        out, err = process.communicate(timeout=DEADLINE)
        return Outcome(process.returncode, out, err)


def crashed(path: Path) -> Journal:
    """Return a journal whose process has died, with a job that it held."""
    made = Journal(path)
    journal = SQLiteJournal(path)
    journal.open()
    now = time.time()
    job = new_job("shop:lost", now, is_held=True)
    journal.commit(Batch(added=[job]))
    made.ids["lost"] = job.id
    crash(journal)
    return made
