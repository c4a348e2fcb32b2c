"""Jobs and results as ARQ keeps them in Redis: as JSON, also what a job failed with."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from asgi_bg.engines._failing import words_of
from asgi_bg.engines.base import is_envelope
from asgi_bg.exceptions import JobFailed

__all__ = ["RemoteTraceback", "deserialize", "is_ours", "serialize"]


class RemoteTraceback(Exception):
    """The traceback of an error in a worker; the cause of the `JobFailed` that is read here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class Envelope(dict[str, Any]):
    """A job of ours as a worker reads it; its arguments are not for ARQ's log (J10)."""

    def __repr__(self) -> str:
        return "..."


def is_ours(args: Any) -> bool:
    """Whether these are the arguments of a job of ours, as the engine sends it."""
    return len(args) == 1 and is_envelope(args[0])


def serialize(data: dict[str, Any]) -> bytes:
    """Write a job or a result; an exception becomes a dictionary of texts."""
    return _write(data)


def deserialize(raw: bytes) -> dict[str, Any]:
    """Read a job or a result; what `arq.jobs.Job.result` raises is an exception again."""
    data: dict[str, Any] = _read(raw)
    args = data["a"]
    if is_ours(args):
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
    error, traceback = words_of(value)
    return {
        "error": error,
        "traceback": traceback,
        "is_cancelled": isinstance(value, asyncio.CancelledError),
    }


_write = msgspec.json.Encoder(enc_hook=_plain).encode
_read = msgspec.json.Decoder().decode
