"""Jobs and results as ARQ keeps them in Redis: as JSON, also what a job failed with."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import msgspec

from asgi_bg.exceptions import JobFailed

__all__ = ["RemoteTraceback", "describe", "deserialize", "is_envelope", "serialize"]

ENVELOPE = frozenset(("id", "call", "options"))


class RemoteTraceback(Exception):
    """The traceback of an error in a worker; the cause of the `JobFailed` that is read here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class Envelope(dict[str, Any]):
    """A job of ours as a worker reads it; its arguments are not for ARQ's log (J10)."""

    def __repr__(self) -> str:
        return "..."


def is_envelope(args: Any) -> bool:
    """Whether these are the arguments of a job of ours, as the engine sends it."""
    return len(args) == 1 and isinstance(args[0], dict) and args[0].keys() >= ENVELOPE


def describe(error: BaseException) -> str:
    """Return an error in one line."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def serialize(data: dict[str, Any]) -> bytes:
    """Write a job or a result; an exception becomes a dictionary of texts."""
    return _write(data)


def deserialize(raw: bytes) -> dict[str, Any]:
    """Read a job or a result; what `arq.jobs.Job.result` raises is an exception again."""
    data: dict[str, Any] = _read(raw)
    args = data["a"]
    if is_envelope(args):
        data["a"] = [Envelope(args[0])]
    if data.get("s") is False:
        data["r"] = _error_in(data)
    return data


def _error_in(data: dict[str, Any]) -> BaseException:
    told: Any = data["r"]
    if isinstance(told, str):  # by ARQ, of a result that could not be written
        return JobFailed(data["id"], data["f"], told)
    if told["is_cancelled"]:
        # By this ARQ knows that a job was aborted.
        return asyncio.CancelledError(told["error"])
    error = JobFailed(data["id"], data["f"], told["error"])
    error.__cause__ = RemoteTraceback(told["traceback"])
    return error


def _plain(value: Any) -> Any:
    if not isinstance(value, BaseException):
        raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")
    lines = traceback.format_exception(value)
    return {
        "error": _writable(describe(value)),
        "traceback": _writable("".join(lines)),
        "is_cancelled": isinstance(value, asyncio.CancelledError),
    }


def _writable(text: str) -> str:
    # Half a surrogate pair, as file names have it, cannot be encoded.
    return text.encode("utf-8", "backslashreplace").decode()


_write = msgspec.json.Encoder(enc_hook=_plain).encode
_read = msgspec.json.Decoder().decode
