"""Runs the Python programs of a page, in order and in one module, as a reader would: PAGE.

A block that begins with the name of a file, as in ``# shop/views.py``, belongs into that file of
a project, which a test of the page makes of them.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

BLOCK = re.compile(r"^(<!-- not run: .+ -->\n+)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.py)\n")


def blocks_of(text: str) -> list[tuple[int, str]]:
    """Return the programs of a page that are to be run, each with the line before it."""
    return [
        (text.count("\n", 0, found.start(2)), found[2])
        for found in BLOCK.finditer(text)
        if found[1] is None and FILE.match(found[2]) is None
    ]


def write_files(text: str, project: Path) -> list[str]:
    """Put each block that names its file at the end of that, and return the names, in order."""
    names: list[str] = []
    for found in BLOCK.finditer(text):
        if file := FILE.match(found[2]):
            path = project / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as module:
                module.write("\n\n" + found[2])
            names.append(file[1])
    return names


def commands_of(text: str) -> list[str]:
    """Return what the page has its reader type into a terminal, without the comments."""
    return [
        re.sub(r"\s+# .*", "", line.removeprefix("$ "))
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def run(page: Path) -> None:
    """Run them; what they raise is raised with the page and the line."""
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    sys.modules[module.__name__] = module
    for line, block in blocks_of(page.read_text()):
        exec(compile("\n" * line + block, str(page), "exec"), module.__dict__)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
