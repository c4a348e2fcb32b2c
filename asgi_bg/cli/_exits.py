"""How the command ends: its exit codes, and the error that carries one."""

from __future__ import annotations

from typing import Final

FINE: Final = 0
"""All that was asked for is done."""

WRONG: Final = 1
"""Something was not found, could not be done, or is wrong with the journal's content."""

USAGE: Final = 2
"""The command was called in a way that it does not understand."""

UNUSABLE: Final = 3
"""The journal cannot be used: it is missing, foreign, newer, older, damaged or locked away."""

INTERRUPTED: Final = 130
"""Ctrl-C; what a shell says of a program that ended by SIGINT."""

TERMINATED: Final = 143
"""SIGTERM; what a shell says of a program that ended by it."""


class Problem(Exception):
    """Ends the command with one message and no traceback.

    Args:
        text: What is wrong, and what to do next.
        code: The exit code.
    """

    def __init__(self, text: str, code: int = WRONG) -> None:
        super().__init__(text)
        self.code = code
