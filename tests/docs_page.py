"""Runs the Python programs of a page, in order and in one module, as a reader would: PAGE."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

BLOCK = re.compile(r"^(<!-- not run: .+ -->\n+)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(text: str) -> list[tuple[int, str]]:
    """Return the programs of a page that are to be run, each with the line before it."""
    return [
        (text.count("\n", 0, found.start(2)), found[2])
        for found in BLOCK.finditer(text)
        if found[1] is None
    ]


def run(page: Path) -> None:
    """Run them; what they raise is raised with the page and the line."""
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    sys.modules[module.__name__] = module
    for line, block in blocks_of(page.read_text()):
        exec(compile("\n" * line + block, str(page), "exec"), module.__dict__)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
