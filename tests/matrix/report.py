"""The matrix as the documentation shows it.

The tests hold every cell to what stands here. After a change of `tests.matrix.columns`,
`tests.matrix.scenarios` or `tests.matrix.explained`:

    python -m tests.matrix.report docs/servers.md
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from tests.matrix.columns import COLUMNS, ROWS, Column, Row
from tests.matrix.explained import EXPLAINED, explanation
from tests.matrix.scenarios import SCENARIOS

BEGIN = "<!-- matrix: written by python -m tests.matrix.report docs/servers.md -->"
END = "<!-- end of the matrix -->"

GREEN = "✓"


def table() -> str:
    """Return the matrix, and what its numbers mean."""
    lines = [
        "| | " + " | ".join(row.title for row in ROWS) + " |",
        "| --- |" + " :-: |" * len(ROWS),
    ]
    for column in COLUMNS:
        cells = (cell(row, column) for row in ROWS)
        lines.append(f"| {column.title} | " + " | ".join(cells) + " |")
    lines.append("")
    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    for number, found in enumerate(EXPLAINED, 1):
        title = ", ".join(titles[name] for name in found.scenarios) or "everything"
        sentences = found.reason.replace(". ", ".\n   ")
        lines.append(f"{number}. *{title}* - {sentences}")
    return "\n".join(lines)


def cell(row: Row, column: Column) -> str:
    """Return one cell: a tick if anything is as promised, and the numbers of what is not."""
    found = [explanation(scenario, row, column) for scenario in SCENARIOS]
    numbers = sorted({EXPLAINED.index(one) + 1 for one in found if one is not None})
    parts = [GREEN] if None in found else []
    if numbers:
        parts.append(f"({_spans(numbers)})")
    return " ".join(parts)


def _spans(numbers: list[int]) -> str:
    """Return numbers that are sorted, with a dash for those between two."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)


def written_into(page: str) -> str:
    """Return a page with the matrix between its two marks.

    Raises:
        ValueError: The page has no such marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page must have a line {BEGIN!r}, and after it a line {END!r}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def versions() -> str:
    """Return what the matrix would run with here."""
    names = [
        *("uvicorn", "uvloop", "httptools", "h11", "hypercorn", "aioquic", "granian", "daphne"),
        *("gunicorn", "uvicorn-worker", "mangum"),
        *("starlette", "fastapi", "litestar", "quart", "django", "falcon", "blacksheep"),
    ]
    return ", ".join(f"{name} {version(name)}" for name in names)


def main(path: str | None = None) -> None:
    """Write the matrix into a page, or print it."""
    if path is None:
        print(table(), versions(), sep="\n\n")
        return
    page = Path(path)
    page.write_text(written_into(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
