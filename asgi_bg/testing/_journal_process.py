"""Another process with a journal, which does what it is told.

Run as a program, with the lines of Python that make ``journal``. It then reads expressions, one
a line, and answers each with a line: the representation of its value.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import Any

from asgi_bg.journal import base

__all__ = ["OtherProcess", "main"]


class OtherProcess:
    """The other process, as seen from here.

    Args:
        code: The lines of Python that make ``journal``, and whatever else it is to know.
    """

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - of this very package
            (sys.executable, "-m", "asgi_bg.testing._journal_process", code),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def call(self, method: str, *args: object) -> Any:
        """Call a method of its journal, and return what `tell` returns."""
        return self.tell(f"journal.{method}({', '.join(map(repr, args))})")

    def tell(self, expression: str) -> Any:
        """Return the value of an expression there: plain values as they are, ids of rows."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the other process has no pipes")
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise AssertionError(f"the other process has died within {expression}")
        kind, value = ast.literal_eval(answer)
        if kind == "error":
            raise AssertionError(f"in another process, {expression} has raised {value}")
        return value

    def kill(self) -> None:
        """Kill it, and wait until it is dead."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it, if it lives, and let go of it."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def main(code: str) -> None:
    """Make the journal, and do what is read."""
    # The values of `asgi_bg.journal.base` are written as Python reads them.
    names: dict[str, Any] = {name: getattr(base, name) for name in base.__all__}
    exec(code, names)  # noqa: S102 - that of the test
    # Line by line as they come, also where another process shares what was read ahead.
    for line in iter(sys.stdin.readline, ""):
        try:
            value = eval(line, names)  # noqa: S307
            answer = ("value", _plain(value))
        except Exception as exc:
            answer = ("error", repr(exc))
        print(repr(answer), flush=True)  # noqa: T201


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType] - a narrowed Any
    return value.id if isinstance(value, (base.JobRow, base.Orphan)) else value


if __name__ == "__main__":
    main(sys.argv[1])
