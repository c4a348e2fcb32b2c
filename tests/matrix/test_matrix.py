"""Every framework on every server: see `tests.matrix.scenarios` for what is promised.

Every cell is two or three processes: the scenarios that leave it alive, then `SIGKILL` and a
restart, then `SIGTERM`. By default the tests run a part of the matrix; all of it runs with
``ASGI_BG_MATRIX=full``. Cells run beside each other, see `tests.matrix.run`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.matrix.columns import COLUMNS, ROWS, Column, Row, is_usual
from tests.matrix.run import Pair, Runs
from tests.matrix.scenarios import SCENARIOS, Scenario

IS_FULL = os.environ.get("ASGI_BG_MATRIX") == "full"

PAIRS: list[Pair] = [
    (row, column) for row in ROWS for column in COLUMNS if IS_FULL or is_usual(row, column)
]

CASES = [
    pytest.param(row, column, scenario, id=f"{row.name}-{column.name}-{scenario.name}")
    for row, column in PAIRS
    for scenario in SCENARIOS
]


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """Run the cells that are asked for."""
    asked: dict[Pair, None] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.function is test_cell:
            parameters: dict[str, Any] = dict(item.callspec.params)
            asked[parameters["row"], parameters["column"]] = None
    found = Runs(asked, tmp_path_factory.mktemp("matrix"))
    yield found
    found.close()


# Nobody waits for longer than for a few cells, each scenario of which may take its deadline.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("row", "column", "scenario"), CASES)
def test_cell(runs: Runs, row: Row, column: Column, scenario: Scenario) -> None:
    """The scenario holds, or what is known to happen instead."""
    error = runs.outcomes(row, column)[scenario.name]
    if error is not None:
        raise error
