"""Exceptions as outcomes: their words, their tracebacks, and the memory that they hold."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

from asgi_bg._job import Failed

_OUR_DIRECTORY = os.path.dirname(__file__)


def failure_of(exception: BaseException) -> Failed:
    """Return an exception as an outcome, its traceback without our own first frames."""
    frames: TracebackType | None = exception.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames):
        frames = frames.tb_next
    exception = exception.with_traceback(frames)
    return Failed(exception, "".join(traceback.format_exception(exception)))


def _is_ours(frames: TracebackType) -> bool:
    return frames.tb_frame.f_code.co_filename.startswith(_OUR_DIRECTORY)


def describe_error(exception: BaseException) -> str:
    """Return an exception as one line, the way a traceback ends."""
    name = type(exception).__qualname__
    try:
        text = str(exception).strip()
    except Exception:
        return f"{name}, whose words cannot be had"
    return f"{name}: {text.splitlines()[0]}" if text else name


def forget_frames(exception: BaseException) -> None:
    """Let go of the frames of an exception and of those behind it, and of their variables."""
    seen: set[int] = set()
    behind: list[BaseException | None] = [exception]
    while behind:
        one = behind.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            behind += [one.__cause__, one.__context__]
            # Not by assignment, which a frozen dataclass of an exception refuses.
            one.with_traceback(None)
