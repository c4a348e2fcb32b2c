"""Where the tests' telemetry goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import need


@pytest.fixture
def telemetry() -> Iterator[Any]:
    """A `tests.telemetry.sdk.Telemetry`, closed in the end."""
    made = need("tests.telemetry.sdk").Telemetry()
    yield made
    made.close()
