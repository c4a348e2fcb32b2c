"""The command ``check``: what was found in a journal, in words, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.status import Status
from rich.text import Text

from asgi_bg.cli._exits import FINE, UNUSABLE, WRONG, Problem
from asgi_bg.cli._opening import KEYS, explain_version, look_at
from asgi_bg.cli._session import Session
from asgi_bg.cli._words import counted, shown, size
from asgi_bg.journal.checking import NAMES, Finding, checks

TITLES = {
    "version": "schema version",
    "sqlite": "SQLite's integrity check",
    "tally": "the counts agree with the jobs",
    "processes": "processes that hold jobs are alive",
    "held": "held jobs have a known holder",
    "states": "no job has ended and not ended",
    "twins": "ids of duplicates lead to jobs",
    "json": "stored JSON can be read",
    "sealed": "sealed jobs can be opened",
    "wal": "size of SQLite's WAL",
}
"""What each check is called."""

_STYLES = {"fine": "green", "note": "yellow", "problem": "bold red"}
_MARKS = {"fine": "ok", "note": "note", "problem": "WRONG"}


class Shown(msgspec.Struct, frozen=True):
    """A finding with its words, as ``--json`` has it."""

    name: str
    level: str
    count: int
    examples: tuple[str, ...]
    says: str
    advice: str


def check_journal(
    session: Session,
    is_quick: Annotated[
        bool,
        typer.Option("--quick", help="Leave out comparing SQLite's indexes with its tables."),
    ] = False,
) -> int:
    """Check a journal, and explain what is wrong with it."""
    if look_at(session.path) == 0:
        raise Problem(explain_version(session.path, 0), UNUSABLE)
    found: list[Shown] = []
    looking = checks(session.path, session.keys, is_quick=is_quick)
    for name in NAMES:
        with Status(f"{TITLES[name]}...", console=session.err):
            finding = next(looking, None)
        if finding is None:
            break
        words = said(finding, session.path)
        found.append(words)
        if not session.settings.is_json:
            _show(session, words)
    is_sound = all(each.level != "problem" for each in found)
    if session.settings.is_json:
        session.give({"journal": session.path, "is_sound": is_sound, "findings": found})
    else:
        _conclude(session, found, is_sound=is_sound)
    return FINE if is_sound else WRONG


def said(finding: Finding, path: str) -> Shown:
    """Return a finding in words."""
    says, advice = ("", "") if finding.level == "fine" else _words_of(finding, path)
    if finding.name == "wal":
        says = size(finding.count)
    elif finding.name == "version" and finding.level == "fine":
        says = str(finding.count)
    return Shown(finding.name, finding.level, finding.count, finding.examples, says, advice)


_BY_HAND = "somebody has changed the file by other means than asgi_bg; with the app stopped, "

_SAYS = {
    "sqlite": "the file is damaged, at least in these places",
    "tally": "the numbers kept are not those of the jobs, so counts are shown wrong; jobs run on",
    "processes": "{processes} went without closing the journal, holding so many jobs",
    "held": "nobody takes {jobs} over, as the journal does not know the process that holds them",
    "states": "of {jobs} the status and the time of the end contradict each other",
    "twins": "{ids} of duplicates (by key=) lead to jobs that are gone",
    "json": "{jobs} have arguments, options, results or logs that are no JSON",
    "wal": "",
}

_ADVICE = {
    "sqlite": (
        "stop the app, keep a copy of the file with its -wal and -shm, and put a backup in its "
        "place, or save what can be read with: sqlite3 FILE .recover"
    ),
    "tally": _BY_HAND + "set the numbers of the table tally to those found here",
    "processes": (
        "nothing is lost: a process that has the journal open takes their jobs over within 5 "
        "seconds, and so does the next one that opens it; if none does, start the app"
    ),
    "held": _BY_HAND + "set owner to NULL in these rows of the table jobs",
    "states": _BY_HAND + "set finished_at of those that have ended, and NULL of the others",
    "twins": "no harm is done; they go with the next jobs that are purged",
    "json": (
        "look at them with: asgi-bg show ID; one that waits fails when its turn comes, with "
        "the reason, and the others run"
    ),
    "wal": (
        "a program that reads for long (a backup, an open sqlite3 shell) keeps SQLite from "
        "taking it back; it shrinks after that has ended"
    ),
}


def _words_of(finding: Finding, path: str) -> tuple[str, str]:
    """Return what a finding says, and what to do."""
    if finding.name == "version":
        return explain_version(path, finding.count), "the checks of its content are left out"
    if finding.name == "sealed":
        return _sealed_words(finding)
    nouns = {"jobs": "job", "ids": "id", "processes": "process"}
    numbers = {name: counted(finding.count, noun) for name, noun in nouns.items()}
    return _SAYS[finding.name].format(**numbers), _ADVICE[finding.name]


def _sealed_words(finding: Finding) -> tuple[str, str]:
    jobs = counted(finding.count, "job")
    if finding.level == "note":
        return (
            f"{jobs} are sealed, and no key was given, so their content is not checked",
            f"give the keys by --key-file FILE or {KEYS} to check it",
        )
    advice = (
        "give the former keys, too, here and to the app: SQLiteJournal(path, keys=[new, old]); "
        "jobs that wait for a key stay where they are"
    )
    return f"no given key opens {jobs}, or somebody has changed them", advice


def _show(session: Session, finding: Shown) -> None:
    line = Text(f"{_MARKS[finding.level]:<6}", style=_STYLES[finding.level])
    line.append(TITLES[finding.name], style="default" if session.is_terminal else "")
    if finding.level == "fine":
        line.append(f": {finding.says}" if finding.says else "")
        session.line(line)
        return
    session.line(line)
    if finding.says:
        session.line(f"      {shown(finding.says)}")
    for example in finding.examples:
        session.line(f"        {shown(example)}")
    if finding.count > len(finding.examples) > 0:
        session.line(f"        and {finding.count - len(finding.examples):,} more")
    session.line(f"      What to do: {shown(finding.advice)}.")


def _conclude(session: Session, found: list[Shown], *, is_sound: bool) -> None:
    session.line()
    if is_sound:
        session.line(Text("The journal is sound.", style="green"))
    else:
        wrong = sum(each.level == "problem" for each in found)
        session.line(Text(f"{counted(wrong, 'check')} found something wrong.", style="bold red"))
