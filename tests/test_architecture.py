"""The house stays tidy: imports point one way, and stand at the top."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "asgi_bg"

# From the foundation up; a module may import from the levels before its own.
LEVELS = [
    # Values, and arithmetic.
    {"_types", "exceptions", "_ids", "_visible", "_execution", "_keeping", "_looking"},
    {"_scheduling", "_scheduling.deadlines", "_scheduling.drain", "_limits"},
    {"_options", "_job"},
    {"_task", "_logs", "_retry", "_origin", "_failures", "logs"},
    {"views", "engines.base"},
    {"engines"},
    {"_record"},
    {"_messages", "_execution.attempt", "_looking.arguments"},
    {"_looking.details"},
    # The journal.
    {"journal.base", "journal.queries", "journal._gate", "journal._sealing", "journal._text"},
    {"journal.schema", "journal._ledger", "journal._values", "journal._past"},
    {
        *("journal._annotations", "journal._confidential", "journal._entries", "journal._file"),
        *("journal._ownership", "journal._receipts", "journal._retention", "journal._search"),
    },
    {
        *("journal.codec", "journal._batches", "journal._claiming", "journal._commits"),
        *("journal._reader", "journal._requests"),
    },
    {"journal._owners", "journal._writer"},
    {"journal.sqlite"},
    {"journal", "journal.checking", "_looking.overview"},
    # Jobs that are kept, or go to an engine.
    {"events", "_registry", "_collector", "_response", "engines._consumer", "engines._link"},
    {
        *("_telemetry", "_rows", "_keeping.marks"),
        *("engines._inline_home", "engines._outbox", "engines._subscribers"),
    },
    {"_looking.desk", "_keeping.elsewhere", "engines._message"},
    {"_keeping.archive", "_keeping.claims", "engines._direct"},
    {"_keeping.saving", "_keeping.upkeep"},
    {"_keeping.keeper"},
    # Jobs that run.
    {"_execution.threads", "_execution._watchdog", "_execution._child"},
    {"_execution._reports", "_execution.functions", "_execution.coroutines"},
    {"_execution.processes"},
    {"_scheduling.lane", "_scheduling.parts", "_scheduling.slots"},
    {"_scheduling.brought", "_scheduling.ends", "_scheduling.intake", "_scheduling.ready"},
    {"_scheduling.attempts", "_scheduling.handing"},
    {"_scheduling.admission", "_scheduling.stopping"},
    {"_scheduling.scheduler"},
    {"_scheduling.schedulers", "_finding"},
    {"_changing", "_showing"},
    {"_runner"},
    # Around an app.
    {"_supervision"},
    {"_lifespan"},
    {"middleware"},
    {"", "starlette", "litestar", "quart", "falcon", "blacksheep", "engines.worker"},
    {"_telemetry_watch", "django._places"},
    {"django._connections"},
    {"django._setup"},
    {"django._served"},
    {"django._middleware"},
    {"django"},
    # To look at it.
    {"_telemetry_metrics"},
    {"_telemetry_spans"},
    {"opentelemetry", "prometheus"},
    {
        *("web._access", "web._ending", "web._format", "web._leaving", "web._openapi"),
        *("web._query", "web._state", "web._tokens"),
    },
    {"web._charts", "web._following"},
    {"web._render"},
    {"web._actions", "web._panels", "web.status"},
    {"web._live"},
    {"web.dashboard"},
    {"web"},
    {"cli._exits", "cli._words"},
    {"cli._opening", "cli._following"},
    {"cli._session", "cli._finding"},
    {"cli._listing", "cli._commands"},
    {"cli._page", "cli._situation"},
    {"cli._reading", "cli._checks", "cli._watch"},
    {"cli._changing"},
    {"cli._app"},
    {"cli"},
    {"__main__"},
    # What the engines are made of, and then they themselves.
    {
        "engines._arq_line",
        "engines._arq_queue",
        "engines._celery_api",
        "engines._clerk",
        "engines._failing",
        "engines._procrastinate_sql",
    },
    {
        *("engines._arq_json", "engines._celery_native", "engines._celery_options"),
        "engines._celery_reports",
        *("engines._procrastinate_limits", "engines._procrastinate_notes"),
    },
    {
        "engines._arq_jobs",
        "engines._arq_worker",
        "engines._celery_brokers",
        "engines._celery_messages",
        "engines._inline",
        "engines._procrastinate_native",
        "engines._procrastinate_rescue",
        "engines._taskiq_line",
        "engines._taskiq_worker",
    },
    {
        "engines._arq_roster",
        "engines._celery_publisher",
        "engines._procrastinate_jobs",
        "engines._procrastinate_line",
        "engines._taskiq_rabbit",
        "engines._taskiq_redis",
    },
    {
        *("engines._arq_app", "engines._arq_settings"),
        *("engines._celery_adds", "engines._celery_post", "engines._celery_results"),
        *("engines._taskiq_jobs", "engines._taskiq_lines", "engines._taskiq_session"),
    },
    {
        *("engines._celery_tasks", "engines._procrastinate_numbers"),
        *("engines._procrastinate_worker", "engines._taskiq_sender"),
    },
    {"engines._procrastinate_sender"},
    {"engines.arq", "engines.celery", "engines.procrastinate", "engines.taskiq"},
    {"fastapi"},
    # For tests of users, and of third parties.
    {
        *("testing._clock", "testing._recorded", "testing._journal_process"),
        "testing._journal_jobs",
    },
    {"testing._shelf", "testing._journal_site"},
    {
        *("testing._store", "testing._journal_claiming", "testing._journal_dying"),
        *("testing._journal_reading", "testing._journal_writing"),
    },
    {
        *("testing._seam", "testing._draining", "testing.journal_contract"),
        *("testing.crash", "testing._crash_server"),
    },
    {"testing.recorder"},
    {"testing", "testing.contract_tasks"},
    {"pytest_plugin", "testing._engine_site"},
    {"testing._engine_asking", "testing._engine_sending", "testing._engine_working"},
    {"testing.engine_contract"},
]
# Imported within functions nevertheless, with the reason.
LATE = {
    # Takes a third of the package's import time, and few have tasks for processes.
    ("_scheduling.attempts", "asgi_bg._execution.processes"),
    # Only who keeps jobs, or has an engine, needs what keeps them: a third of the package.
    ("_runner", "asgi_bg._keeping.keeper"),
    ("_runner", "asgi_bg.engines._direct"),
    ("_scheduling.scheduler", "asgi_bg._scheduling.handing"),
    ("_scheduling.scheduler", "asgi_bg._scheduling.intake"),
    # Only who shows jobs to people needs it.
    ("_runner", "asgi_bg._showing"),
    # Only the workers of an engine need it.
    ("_runner", "asgi_bg._scheduling.brought"),
    # Only who keeps jobs in SQLite needs sqlite3 and a system with file locks.
    ("_runner", "asgi_bg.journal.sqlite"),
    ("journal", "asgi_bg.journal.sqlite"),
    # Only who encrypts needs it.
    ("journal._sealing", "cryptography.hazmat.primitives.ciphers.aead"),
}
PACKAGES = ["journal", "_looking", "_keeping", "_execution", "_scheduling"]
"""The rooms' own rooms, from the foundation up; `engines` and those above the runner are others'
to build on or to take away."""
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    .removesuffix("__init__")
    .rstrip("."): path
    for path in ROOT.rglob("*.py")
}


def _imports(tree: ast.Module) -> list[str]:
    """Return which of our modules a tree imports, without the package's name."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module.split(".")[0] == "asgi_bg":
                package = node.module.removeprefix("asgi_bg").lstrip(".")
                inner = [f"{package}.{alias.name}".lstrip(".") for alias in node.names]
                found += [name if name in LEVEL else package for name in inner]
        elif isinstance(node, ast.Import):
            found += [
                alias.name.removeprefix("asgi_bg").lstrip(".")
                for alias in node.names
                if alias.name.split(".")[0] == "asgi_bg"
            ]
    return found


def test_every_module_has_its_level() -> None:
    """A new room is given its place here."""
    assert set(MODULES) == set(LEVEL)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    """No arrow upwards, and none sideways."""
    tree = ast.parse(MODULES[name].read_text())
    upward = [target for target in _imports(tree) if LEVEL[target] >= LEVEL[name]]
    assert upward == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_point_one_way(package: str) -> None:
    """What holds for modules holds for the packages of the core, too."""
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    inside = [name for name in MODULES if name.split(".")[0] == package]
    assert inside
    targets = {
        (name, target)
        for name in inside
        for target in _imports(ast.parse(MODULES[name].read_text()))
    }
    assert {pair for pair in targets if pair[1].split(".")[0] in above} == set()


@pytest.mark.parametrize("name", MODULES)
def test_no_import_inside_a_function(name: str) -> None:
    """It would hide a cycle."""
    tree = ast.parse(MODULES[name].read_text())
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [
                node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                for node in ast.walk(function)
                if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            assert {(name, module) for module in inner} <= LATE, function.name


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name: str) -> None:
    """Classes and functions whose names do not begin with an underscore."""
    tree = ast.parse(MODULES[name].read_text())
    assert ast.get_docstring(tree), name
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            overload = any("overload" in ast.dump(d) for d in getattr(node, "decorator_list", []))
            assert overload or ast.get_docstring(node), node.name


def test_design_notes_name_rooms_that_exist() -> None:
    """Whoever follows them finds what they name."""
    notes = (ROOT.parent / "docs" / "design.md").read_text()
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|sql))`", notes))
    assert len(named) > 30
    missing = {name for name in named if not (ROOT / name).exists()}
    assert {name for name in missing if not (ROOT.parent / name).exists()} == set()
