"""The page about testing: what is copied from it passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs_page import blocks_of
from tests.helpers import need
from tests.testing.test_plugin import ini, plugin

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """Each part of the page is a test file; but parts without tests go on with the others."""
    for framework in ("starlette", "fastapi", "django", "litestar", "httpx", "uvicorn"):
        need(framework)
    found = 0
    for number, part in enumerate(re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)):
        code = "\n\n".join(block for _, block in blocks_of(part))
        if "JournalContract" not in code and re.search(
            r"^\s*(async )?def test_", code, re.MULTILINE
        ):
            (tmp_path / f"test_{number}.py").write_text(code)
            found += 1
    assert found == 6
    (tmp_path / "pytest.ini").write_text(ini())
    ran = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", *plugin(), str(tmp_path)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "7 passed" in ran.stdout
