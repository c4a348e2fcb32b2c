"""The engine that the page writes keeps the contract, by the page's own test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs_page import blocks_of, write_files
from tests.helpers import need
from tests.services.redis import RedisServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "engines" / "writing-one.md").read_text()


def test_engine_of_the_page_keeps_the_contract(tmp_path: Path) -> None:
    """E6: with a Redis, and a worker of the page's own in a process of its own."""
    need("redis")
    assert write_files(PAGE, tmp_path) == [
        "line_engine.py",
        "line_worker.py",
        "test_line_engine.py",
    ]
    assert blocks_of(PAGE) == []
    with RedisServer(tmp_path / "redis") as redis:
        ran = subprocess.run(
            (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_line_engine.py"),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": redis.url},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
