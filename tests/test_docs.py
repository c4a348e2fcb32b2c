"""The pages in docs: their programs run as they stand, and the site is built without warnings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_page import BLOCK, blocks_of
from tests.helpers import need

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if blocks_of(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_programs_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """In a process of their own, so that nothing is there but what the page says."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.docs_page", str(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr


def test_nothing_else_is_left_out() -> None:
    """A program that cannot be run says so, with the reason."""
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    left_out = {
        page.name: [found[1] for found in BLOCK.finditer(page.read_text()) if found[1]]
        for page in pages
    }
    assert {name: markers for name, markers in left_out.items() if markers} == {}
    for page in pages:
        blocks = page.read_text().count("```python\n")
        assert blocks == len(BLOCK.findall(page.read_text())), f"{page}: one is indented"


def test_site_is_built_without_warnings(tmp_path: Path) -> None:
    """Every page is in the contents, every reference leads somewhere, every docstring reads."""
    need("sphinx")
    need("furo")
    need("myst_parser")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "reference.html").exists()
