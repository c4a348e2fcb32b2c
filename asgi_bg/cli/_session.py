"""One call of the command: its settings, where it writes to, and the journal it looks at."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from asgi_bg._looking.desk import Desk
from asgi_bg.cli._opening import keys_of, open_journal, path_of
from asgi_bg.cli._words import age, instant
from asgi_bg.journal.sqlite import SQLiteJournal


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options that every command has; those not given are None or False.

    Attributes:
        journal: The journal's path.
        key_file: The path of the file with its keys.
        is_json: Whether to write JSON.
        is_utc: Whether to show instants in UTC.
        no_color: Whether to show everything in one colour.
    """

    journal: str | None = None
    key_file: str | None = None
    is_json: bool = False
    is_utc: bool = False
    no_color: bool = False

    def over(self, other: Settings) -> Settings:
        """Return these settings, and where they say nothing the other ones."""
        return Settings(
            journal=self.journal or other.journal,
            key_file=self.key_file or other.key_file,
            is_json=self.is_json or other.is_json,
            is_utc=self.is_utc or other.is_utc,
            no_color=self.no_color or other.no_color,
        )


class Session:
    """What a command works with.

    Results go to stdout, everything else to stderr. Nothing in them is taken for markup.

    Attributes:
        settings: The options that every command has.
        out: Where results for people go.
        err: Where messages go.
        is_terminal: Whether people read the results: then they are laid out for the width,
            else they are one line each with full values, for other programs.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        plain = settings.no_color or bool(os.environ.get("NO_COLOR"))
        self.out = _console(sys.stdout, plain)
        self.err = _console(sys.stderr, plain)
        self.is_terminal = self.out.is_terminal
        self._journal: SQLiteJournal | None = None

    @cached_property
    def path(self) -> str:
        """The path of the journal."""
        return path_of(self.settings.journal)

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """The keys of the journal."""
        return keys_of(self.settings.key_file)

    @cached_property
    def desk(self) -> Desk:
        """The journal's desk, opened when it is first needed."""
        self._journal = open_journal(self.path, self.keys)
        return Desk(self._journal)

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()

    # Writing.

    def line(self, text: str | Text = "") -> None:
        """Write a line of a result for people, never cut."""
        if self.is_terminal:
            self.out.print(text, soft_wrap=True)
        else:
            self.write(f"{text}\n")

    def write(self, text: str) -> None:
        """Write a part of a result as it is."""
        self.out.file.write(text)

    def say(self, text: str) -> None:
        """Tell something that is no result."""
        self.err.print(text, soft_wrap=True)

    def give(self, value: Any) -> None:
        """Write a value as the command's one JSON document."""
        self.write(f"{as_json(value, indent=2 if self.is_terminal else None)}\n")

    # Words that depend on the settings.

    def at(self, moment: datetime) -> str:
        """Return an instant in the time zone that was asked for."""
        return instant(moment, is_utc=self.settings.is_utc)

    def when(self, moment: datetime) -> str:
        """Return an instant, and how long ago that is."""
        return f"{self.at(moment)} ({age(moment, now())})"


def as_json(value: Any, *, indent: int | None = None) -> str:
    r"""Return a value as JSON of plain ASCII.

    So it is safe on a terminal of any kind: what a task said is data there too, and U+009B,
    say, begins an escape sequence.
    """
    plain = msgspec.to_builtins(value, enc_hook=str, str_keys=True)
    return json.dumps(plain, indent=indent).replace("\x7f", "\\u007f")


def now() -> datetime:
    """Return the present instant."""
    return datetime.now(timezone.utc)


def _console(file: TextIO, plain: bool) -> Console:
    is_terminal = file.isatty()
    return Console(
        file=file,
        force_terminal=is_terminal,
        color_system="auto" if is_terminal and not plain else None,
        no_color=plain,
        markup=False,
        highlight=False,
        emoji=False,
    )
