"""How a job fails in an engine's worker: in the words of what its task raised, or as poisonous."""

from __future__ import annotations

import traceback

from asgi_bg._failures import describe_error

CRASH_LIMIT = 3
"""Running in so many workers that died fails a job, as it does without an engine (J5)."""

POISONOUS = f"the workers that ran it died {CRASH_LIMIT} times during it, so it is not run any more"


def words_of(error: BaseException) -> tuple[str, str]:
    """Return an error in one line, and its traceback, both as every store takes them."""
    lines = "".join(traceback.format_exception(error))
    return _writable(describe_error(error)), _writable(lines)


def _writable(text: str) -> str:
    # Half a surrogate pair, as file names have it, cannot be encoded.
    return text.encode("utf-8", "backslashreplace").decode()
