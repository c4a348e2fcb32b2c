"""Log records emitted inside a job are kept with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from asgi_bg._job import LogLine, running

MESSAGE_LIMIT = 2_000
"""To how many characters a kept message is shortened."""

_lock = threading.Lock()
_make_record: Callable[..., logging.LogRecord] | None = None


def keep_logs() -> None:
    """Begin to keep log records with the jobs they are emitted in.

    It hooks the record factory rather than adding a handler: a handler on the root logger
    would silence logging's own last resort, and a later ``logging.basicConfig()``. The hook
    stays for the life of the process; outside of jobs it costs one look-up a record.
    """
    global _make_record
    with _lock:
        if _make_record is None:
            _make_record = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_make_and_keep)


def _make_and_keep(*args: Any, **kwargs: Any) -> logging.LogRecord:
    assert _make_record is not None  # noqa: S101 - set before this is ever installed
    record = _make_record(*args, **kwargs)
    job = running.get(None)
    if job is not None and record.name != "asgi_bg":  # what we say about it is not its own
        job.keep(_line_of(record))
    return record


def _line_of(record: logging.LogRecord) -> LogLine:
    try:
        message = record.getMessage()
    except Exception:
        # The program's mistake, and logging reports it when a handler formats the record.
        message = str(record.msg)
    return LogLine(
        datetime.fromtimestamp(record.created, timezone.utc),
        record.levelname,
        record.name,
        message[:MESSAGE_LIMIT],
    )
