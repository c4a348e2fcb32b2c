"""Runs cells beside each other, each from its start to its end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType

import pytest

from tests.matrix.cell import Cell
from tests.matrix.columns import Column, Row
from tests.matrix.explained import explanation
from tests.matrix.scenarios import SCENARIOS

AT_ONCE = 3
"""How many cells run at a time: they wait more than they work."""

Pair = tuple[Row, Column]

Outcomes = Mapping[str, BaseException | None]
"""What came of each scenario, by its name: None, or why it failed."""


def run_cell(row: Row, column: Column, directory: Path) -> Outcomes:
    """Run all scenarios of a cell, or what happens instead of them."""
    cell = Cell(row, column, directory)
    outcomes: dict[str, BaseException | None] = {}
    try:
        for scenario in SCENARIOS:
            found = explanation(scenario, row, column)
            check = scenario.check if found is None else found.check
            try:
                check(cell)
            except (Exception, pytest.fail.Exception) as exc:
                outcomes[scenario.name] = exc
            else:
                outcomes[scenario.name] = None
    finally:
        cell.close()
    return MappingProxyType(outcomes)


class Runs:
    """Runs cells in threads, in the order in which the tests come to them.

    Args:
        pairs: The cells that are wanted.
        directory: Where each gets a directory of its own.
    """

    def __init__(self, pairs: Iterable[Pair], directory: Path) -> None:
        self._directory = directory
        self._outcomes: dict[Pair, Future[Outcomes]] = {pair: Future() for pair in pairs}
        self._waiting: SimpleQueue[Pair | None] = SimpleQueue()
        for pair in self._outcomes:
            self._waiting.put(pair)
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work) for _ in range(AT_ONCE)]
        for thread in self._threads:
            self._waiting.put(None)
            thread.start()

    def outcomes(self, row: Row, column: Column) -> Outcomes:
        """Wait for a cell's run, and return what came of it."""
        return self._outcomes[row, column].result()

    def close(self) -> None:
        """Begin no more cells, and wait for the end of those that run."""
        self._is_closed = True
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (pair := self._waiting.get()) is not None and not self._is_closed:
            future = self._outcomes[pair]
            row, column = pair
            directory = self._directory / f"{row.name}-{column.name}"
            directory.mkdir()
            try:
                future.set_result(run_cell(row, column, directory))
            except BaseException as exc:  # a skip, too, is for the test
                future.set_exception(exc)
