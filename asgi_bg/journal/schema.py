"""The version of the file's schema, and the way from one version to the next (J9)."""

from __future__ import annotations

import sqlite3

from asgi_bg.exceptions import JournalError
from asgi_bg.journal.queries import query

APPLICATION_ID = 0x61736762
"""Says in the file's header whose it is: "asgb"."""

MIGRATIONS: tuple[str, ...] = (query("create"), query("add_engines"), query("add_origins"))
"""What leads from each version to the next; the first from an empty file to version 1."""


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to the version of this code, all of it or nothing.

    Raises:
        JournalError: It is of a newer version, or not a journal at all; it stays as it is.
    """
    version = version_of(connection, path)
    if version == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited.
        version = version_of(connection, path)
        for step in (*MIGRATIONS[version:], query("batches")):
            for statement in _statements(step):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """Return the version of the file's schema, 0 for an empty file; it stays as it is.

    Raises:
        JournalError: It is of a newer version, or not a journal at all.
    """
    if connection.in_transaction:
        return _check(connection, path)
    connection.execute("BEGIN")  # else another process may make the schema between two looks
    try:
        return _check(connection, path)
    finally:
        connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection, path: str) -> int:
    application_id = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if application_id == APPLICATION_ID and version <= len(MIGRATIONS):
        return version
    if application_id == APPLICATION_ID:
        raise JournalError(
            f"the journal {path} is of version {version}, and this asgi_bg knows versions up to "
            f"{len(MIGRATIONS)}; upgrade asgi_bg, or give another path"
        )
    if _number(connection, "SELECT count(*) FROM sqlite_master") or application_id or version:
        raise JournalError(
            f"{path} is a database of something else, and is left as it is; "
            "give the journal a file of its own"
        )
    return 0


def _number(connection: sqlite3.Connection, sql: str) -> int:
    number: int = connection.execute(sql).fetchone()[0]
    return number


def _statements(script: str) -> list[str]:
    """Split a script into its statements, which may contain triggers' semicolons."""
    statements: list[str] = []
    lines: list[str] = []
    for line in script.splitlines():
        lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            statements.append("\n".join(lines))
            lines = []
    return statements
