"""What the tests of the frameworks have in common."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def log() -> list[Any]:
    """Where tasks write what they do."""
    return []
