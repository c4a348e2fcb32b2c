"""Journals to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import Journal


@pytest.fixture
def shop(tmp_path: Path) -> Journal:
    """A journal with a job of each kind, that no process has open."""
    return Journal(tmp_path / "shop.db")
