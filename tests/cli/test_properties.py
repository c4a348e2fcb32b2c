"""Whatever jobs say, nothing but text reaches a terminal, a pipe or a program (W3)."""

from __future__ import annotations

import json
import tempfile
import time
import unicodedata
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal._text import stored
from asgi_bg.journal.base import Batch
from tests.cli.helpers import call, new_job
from tests.helpers import need
from tests.journal.helpers import change

need("typer")

texts = st.text(st.characters(codec="utf-8"), max_size=60).map(stored) | st.sampled_from(
    ["\x1b[2J", "[red]x[/red]", "[/]", "\t\r\n", "\x9b2J\u202e", "{0} %s \\", "\x07" * 30]
)


@settings(max_examples=30)
@given(task=texts, error=texts, message=texts, key=texts, argument=texts)
def test_nothing_but_text_comes_out(
    task: str, error: str, message: str, key: str, argument: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "jobs.db")
        now = time.time()
        arguments = json.dumps([[argument], {argument: argument}])
        job = new_job(task, now, call=arguments, key=key, is_held=True, origin=json.dumps([key]))
        mark = change(
            job.id, "failed", error=error, traceback=message, message=message, finished_at=now
        )
        with closing(SQLiteJournal(path)) as journal:
            journal.open()
            journal.commit(Batch(added=[job], marks=[mark]))
        for command in (("list",), ("show", job.id), ("stats",), ("check",), ("cancel", job.id)):
            outcome = call("--journal", path, *command)
            for char in (outcome.out + outcome.err).replace("\n", "").replace("\t", ""):
                assert unicodedata.category(char) not in ("Cc", "Cs"), repr(char)
        [row] = call("--journal", path, "list").rows
        assert row["id"] == job.id
        found = call("--journal", path, "show", "--json", job.id).json
        assert found["job"]["task"] == task
        assert found["job"]["error"] == error
        assert found["key"] == key
        if task:
            listed = call("--journal", path, "list", "--json", f"--task={task}").json
            assert [one["id"] for one in listed["jobs"]] == [job.id]
