"""The command as a process: how it ends, by itself and by signals (W3)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal.base import Batch
from tests.cli.helpers import DEADLINE, ROOT, Journal, environment, new_job, run, started
from tests.helpers import need
from tests.journal.helpers import change, until

need("typer")


def test_exit_codes_of_the_process(shop: Journal) -> None:
    """The ones that the documentation lists, with no traceback for any."""
    for code, args in (
        (0, ("--journal", shop.path, "list")),
        (1, ("--journal", shop.path, "show", "fff")),
        (2, ("--journal", shop.path, "purge")),
        (2, ("list",)),
        (3, ("--journal", f"{shop.path}.none", "list")),
    ):
        outcome = run(*args)
        assert outcome.code == code, outcome.err
        assert "Traceback" not in outcome.err


def test_entry_point_is_the_same_command(shop: Journal) -> None:
    code = "from asgi_bg.cli import main; main()"
    args = [sys.executable, "-c", code, "--journal", shop.path, "list", "--json"]
    result = subprocess.run(
        args, capture_output=True, text=True, timeout=DEADLINE, cwd=ROOT, env=environment()
    )
    assert result.returncode == 0
    assert len(json.loads(result.stdout)["jobs"]) == 6


def test_output_may_be_any_encoding(shop: Journal) -> None:
    """What cannot be written down is escaped."""
    with closing(SQLiteJournal(shop.path)) as journal:
        journal.open()
        now = time.time()
        job = new_job("shop:größe漢", now)
        journal.commit(Batch(added=[job]))
    env = environment(PYTHONIOENCODING="ascii")
    outcome = run("--journal", shop.path, "list", "-n", "1", env=env)
    assert outcome.code == 0
    assert "shop:gr\\xf6\\xdfe\\u6f22" in outcome.out


def test_reader_that_leaves_is_no_error_to_show(shop: Journal) -> None:
    """As in ``asgi-bg list | head -1``."""
    with closing(SQLiteJournal(shop.path)) as journal:
        journal.open()
        now = time.time()
        text = "x" * 1000
        jobs = [new_job(f"shop:{text}", now) for _ in range(500)]
        journal.commit(Batch(added=jobs))
    with started("--journal", shop.path, "list", "--all") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(DEADLINE)
        assert "Traceback" not in process.stderr.read()


class Watched:
    """A ``watch`` in a process of its own, and what it has written so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.out = ""
        os.set_blocking(process.stdout.fileno(), False)

    def read(self) -> str:
        assert self.process.stdout is not None
        try:
            self.out += os.read(self.process.stdout.fileno(), 1 << 20).decode()
        except BlockingIOError:
            assert self.process.poll() is None, self.process.stderr
        return self.out

    def await_text(self, text: str) -> None:
        until(lambda: text in self.read(), DEADLINE)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_watch_tells_every_change_and_leaves_cleanly(
    shop: Journal, number: signal.Signals, code: int
) -> None:
    """A line when a job comes, runs, tells progress and ends; with an id each."""
    with closing(SQLiteJournal(shop.path)) as journal:
        journal.open()
        with started("--journal", shop.path, "watch", "--interval", "0.1") as process:
            watched = Watched(process)
            watched.await_text(shop.ids["queued"])
            assert shop.ids["good"] not in watched.out  # it ended before
            now = time.time()
            job = new_job("shop:new", now, is_held=True)
            journal.commit(Batch(added=[job]))
            watched.await_text(f"queued  shop:new  {job.id}")
            for fraction in (0.25, 0.5):
                mark = change(job.id, "running", progress=fraction, message="on it \x1b[2J")
                journal.commit(Batch(marks=[mark]))
                watched.await_text(f"running  shop:new  {job.id}  {fraction:.0%}  on it \\x1b[2J")
            times = {"started_at": now, "finished_at": now + 1.2}
            mark = change(job.id, "failed", error="ValueError: no", **times)
            journal.commit(Batch(marks=[mark]))
            watched.await_text(f"failed  shop:new  {job.id}  1.2 s  ValueError: no\n")
            assert watched.end(number) == (code, "")
            assert "\x1b" not in watched.out


def test_watch_as_json_is_an_object_a_line(shop: Journal) -> None:
    with started("--journal", shop.path, "watch", "--json") as process:
        watched = Watched(process)
        watched.await_text("\n")
        assert watched.end(signal.SIGINT) == (130, "")
        jobs = [json.loads(line) for line in watched.out.splitlines()]
        assert {job["id"] for job in jobs} == {shop.ids["queued"], shop.ids["handed"]}


def test_watch_ends_where_the_journal_does(shop: Journal) -> None:
    """It is deleted, and not made again."""
    with started("--journal", shop.path, "watch", "--interval", "0.1") as process:
        watched = Watched(process)
        watched.await_text(shop.ids["queued"])
        for file in Path(shop.path).parent.iterdir():
            file.unlink()
        assert process.wait(DEADLINE) == 3
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert list(Path(shop.path).parent.iterdir()) == []


def complete(words: str, env: dict[str, str]) -> str:
    """Return what a shell is offered for the last of these words."""
    script = {"_ASGI_BG_COMPLETE": "complete_bash", "COMP_WORDS": words}
    count = str(len(words.split(" ")) - 1)
    result = subprocess.run(
        [sys.executable, "-c", "from asgi_bg.cli import main; main()"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=ROOT,
        env={**env, **script, "COMP_CWORD": count},
    )
    assert "Traceback" not in result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (lambda shop: "asgi-bg sh", lambda shop: "show"),
        (lambda shop: f"asgi-bg show {shop.ids['evil'][:14]}", lambda shop: shop.ids["evil"]),
        (lambda shop: "asgi-bg list --task shop:ev", lambda shop: "shop:evil"),
        (lambda shop: "asgi-bg list --status fa", lambda shop: "failed"),
    ],
)
def test_shell_completes_commands_ids_and_tasks(
    shop: Journal, words: Callable[[Journal], str], offered: Callable[[Journal], str]
) -> None:
    env = environment(ASGI_BG_JOURNAL=shop.path)
    assert offered(shop) in complete(words(shop), env)


def test_shell_is_offered_nothing_where_there_is_no_journal(tmp_path: Path) -> None:
    for env in (environment(), environment(ASGI_BG_JOURNAL=str(tmp_path / "none"))):
        assert complete("asgi-bg show 0", env).strip() == ""


def test_missing_extra_is_named(tmp_path: Path) -> None:
    """One line, and no traceback."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('gone', name='typer')")
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    outcome: Any = run("list", env=env)
    assert outcome.code == 1
    assert outcome.err.strip() == (
        "asgi-bg: the command asgi-bg needs typer and rich; install them with: "
        "pip install 'asgi_bg[cli]'"
    )


def test_ctrl_c_while_it_loads_ends_quietly() -> None:
    """Code 130, and no traceback of imports."""
    program = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "import asgi_bg.__main__\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
