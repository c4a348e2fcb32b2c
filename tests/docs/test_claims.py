"""What the pages say in figures and names is what the code has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from asgi_bg import Runner
from asgi_bg._options import CallOptions, TaskOptions
from asgi_bg.events import NAMES
from asgi_bg.journal import SQLiteJournal
from asgi_bg.journal._retention import RETENTION
from tests.helpers import need

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

EXTRAS = dict(
    re.findall(
        r'^(\w+) = \["[\w-]+>=([\d.]+)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
)


def page(name: str) -> str:
    return (DOCS / name).read_text()


def defaults(of: Any) -> dict[str, Any]:
    return {name: found.default for name, found in inspect.signature(of).parameters.items()}


def test_limits_are_those_of_a_runner() -> None:
    """The table of limits, and the sentences elsewhere that repeat one."""
    told = re.findall(r"^\| `(\w+)` \| .* \| `Runner`, ([\d,]+) \|$", page("guides/limit.md"), re.M)
    assert len(told) == 5
    given = defaults(Runner)
    for name, value in told:
        assert given[name] == int(value.replace(",", "")), name
    for name in given:
        assert f"`{name}`" in page("guides/limit.md"), name
    assert f"`drain_timeout` ({given['drain_timeout']:g} s)" in page("operating.md")
    assert f"`drain_timeout` ({given['drain_timeout']:g} s " in page("servers.md")


def test_journal_of_the_page_has_the_defaults() -> None:
    """``journal="jobs.db"`` is what the page spells out."""
    code = page("operating.md").split("journal = SQLiteJournal")[1].split("\napp = ")[0]
    spelled = eval("dict" + code.replace('"jobs.db",', "", 1), {"DAY": 24 * 60 * 60})
    assert spelled.pop("retention") == RETENTION
    given = defaults(SQLiteJournal)
    assert spelled == {name: given[name] for name in ("durability", "busy_timeout", "max_payload")}


def test_options_of_a_task_are_all_told() -> None:
    """Those of ``@task`` in the table, and what ``using()`` has beside them below it."""
    text = page("guides/declare.md")
    table = [
        name
        for cell in re.findall(r"^\| (`.*?`) \| ", text, re.M)
        for name in re.findall(r"`(\w+)`", cell)
    ]
    assert sorted(table) == sorted(TaskOptions.__annotations__)
    more = text.split("the names are those above, and ")[1].split(".")[0]
    assert set(re.findall(r"`(\w+)`", more)) == (
        CallOptions.__annotations__.keys() - TaskOptions.__annotations__.keys()
    )


def test_events_are_all_told() -> None:
    text = page("guides/follow.md").split("for everything that happens: ")[1].split(" (R9)")[0]
    assert tuple(text.split(", ")) == NAMES


def test_table_of_the_arq_engine_has_its_arguments() -> None:
    need("arq")
    engine = need("asgi_bg.engines.arq").ArqEngine
    table = page("engines/arq.md").split("| `ArqEngine(redis, ...)` | |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| (`.*?`) \| (.*) \|$", table, re.M)
    assert [n for cell, _ in cells for n in re.findall(r"`(\w+)`", cell)] == list(defaults(engine))
    told = dict(cells)
    assert f"{defaults(engine)['timeout']:g} seconds" in told["`timeout`"]
    assert f"{defaults(engine)['lease']:g} seconds" in told["`lease`"]
    assert f"{defaults(engine)['expires'] / 86400:g} days" in told["`expires`"]


@pytest.mark.parametrize(
    "framework",
    ["blacksheep", "django", "falcon", "fastapi", "litestar", "quart", "starlette"],
)
def test_oldest_versions_are_those_of_the_project(framework: str) -> None:
    found = re.search(
        r"^It works with \w+ ([\d.]+) and newer", page(f"integrations/{framework}.md"), re.M
    )
    assert found is not None
    assert found[1] == EXTRAS[framework]
