"""What users ask for: that a job is cancelled, or tried again."""

from __future__ import annotations

import sqlite3

from asgi_bg.journal._confidential import SEALED, shown
from asgi_bg.journal._past import past_with_last
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal.queries import query


def cancel(
    connection: sqlite3.Connection, sealer: Sealer, id: str, reason: str, now: float
) -> None:
    """Cancel a job that nobody owns, or ask its owner to."""
    values = {"id": id, "reason": sealer.seal(reason), "now": now}
    connection.execute(query("cancel"), values)


def retry(connection: sqlite3.Connection, sealer: Sealer, id: str) -> bool:
    """Make a failed or cancelled job a waiting one again; False if it is neither."""
    values = connection.execute(query("get"), {"id": id}).fetchone()
    if values is None:
        return False
    row = shown(sealer, values)
    # What no key opens stays as it is: the job can be tried again when the key is there.
    past = values[-1] if row.call == SEALED else sealer.seal(past_with_last(row))
    return connection.execute(query("retry"), {"id": row.id, "past": past}).rowcount > 0
