"""Fixtures of the tests that kill servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import Site
from tests.helpers import need

IS_SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
"""Whether the tests take the time that they could do with."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A journal and no server yet."""
    need("uvicorn")
    made = Site(tmp_path)
    yield made
    made.close()
