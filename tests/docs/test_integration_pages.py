"""The pages about frameworks: they are alike, and what is copied from them survives."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from asgi_bg.testing.crash import CrashSite
from tests.docs_page import blocks_of, commands_of
from tests.helpers import need

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "integrations").glob("*.md"))
HEADINGS = [
    "Install",
    "Set up",
    "Add a task",
    "From any depth",
    "Plain functions",
    "Beside the framework's own tasks",
    "Durable tasks",
    "In tests",
    "Limits",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_have_the_same_headings(page: Path) -> None:
    """Who knows one of them finds everything in the next."""
    assert re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE) == HEADINGS
    assert page.read_text().count("](../../examples/") == 1  # a program to start


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "django"], ids=lambda page: page.stem
)
def test_durable_app_of_a_page_survives(page: Path, tmp_path: Path) -> None:
    """J1, J3: the page up to its tests as main.py, started and asked as the page says.

    The server is killed within its job, and the next one runs that. Django has a test of its
    own.
    """
    need("uvicorn")
    if page.stem != "raw-asgi":
        need(page.stem)
    main, _ = page.read_text().split("\n## In tests")
    (tmp_path / "main.py").write_text("\n\n".join(block for _, block in blocks_of(main)))
    _, serve, ask = commands_of(main)
    app = serve.removeprefix("uvicorn ")
    with CrashSite(app, journal=tmp_path / "jobs.db", cwd=tmp_path) as site:
        site.kill_at("started")
        path = urlsplit(ask.split()[-1]).path
        answer = site.post(path) if "-X POST" in ask else site.get(path)
        assert answer.status in (200, 201, 202)
        site.restart()
        site.until_all_done()
        [job] = site.jobs()
        assert (job.status, job.task, job.attempt) == ("succeeded", "main:send_invoice", 2)
