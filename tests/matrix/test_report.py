"""The documentation shows what the matrix holds the cells to."""

from __future__ import annotations

from importlib.metadata import version

from tests.matrix.columns import COLUMNS, ROWS
from tests.matrix.explained import EXPLAINED, explanation
from tests.matrix.report import versions, written_into
from tests.matrix.scenarios import SCENARIOS
from tests.servers.harness import ROOT


def test_page_shows_the_matrix() -> None:
    page = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
    assert page == written_into(page), (
        "docs/servers.md shows another matrix; run: python -m tests.matrix.report docs/servers.md"
    )


def test_every_explanation_is_of_some_cell() -> None:
    """One that another covers, or that names nobody, would never be tested."""
    used = {
        id(explanation(scenario, row, column))
        for scenario in SCENARIOS
        for row in ROWS
        for column in COLUMNS
    }
    assert [found.reason for found in EXPLAINED if id(found) not in used] == []


def test_every_explanation_names_what_there_is() -> None:
    columns = {column.name for column in COLUMNS}
    rows = {row.name for row in ROWS}
    scenarios = {scenario.name for scenario in SCENARIOS}
    for found in EXPLAINED:
        assert scenarios.issuperset(found.scenarios)
        assert columns.issuperset(found.columns)
        assert rows.issuperset(found.rows)


def test_names_are_unique() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_versions_are_known() -> None:
    assert f"uvicorn {version('uvicorn')}" in versions().split(", ")
