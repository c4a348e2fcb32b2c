"""Options of our tasks as those of ``apply_async``, and what Celery shows of their arguments."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from asgi_bg._task import declared_task
from asgi_bg.engines.base import Message

TIME_TO_CLEAN_UP = 5.0
"""How many seconds after its time is up the process of a task is killed, if it still goes on."""

TIME_TO_CANCEL = 2.0
"""How many seconds after its time is up an async task, which is cancelled then, is to have ended;
otherwise the worker's signal raises in whatever its event loop does."""

SHOWN_LIMIT = 1024
"""How many characters of the arguments are shown; as many as Celery itself shows."""

_REDACTED = "***"

_read_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_write_json = msgspec.json.Encoder().encode


def options_of(message: Message) -> dict[str, Any]:
    """Return the options of a task of ours as those of ``apply_async``."""
    shown, shown_kwargs = _shown_arguments(message)
    options: dict[str, Any] = {
        "serializer": "json",
        "argsrepr": shown,
        "kwargsrepr": shown_kwargs,
    }
    if message.options.queue is not None:
        options["queue"] = message.options.queue
    if message.priority:
        options["priority"] = message.priority
    timeout = message.options.timeout
    if timeout is not None:
        declared = declared_task(message.task)
        is_async = declared is not None and declared.place == "loop"
        options["soft_time_limit"] = timeout + (TIME_TO_CANCEL if is_async else 0)
        options["time_limit"] = timeout + TIME_TO_CLEAN_UP
    return options


def _shown_arguments(message: Message) -> tuple[str, str]:
    """Return the arguments as Celery's logs and monitors show them, without redacted values."""
    if message.options.redact:
        args, kwargs = message.arguments
        hidden = set(message.options.redact)
        names = _positional_names(message.task, len(args))
        args = [
            _REDACTED if name is None or name in hidden else value
            for name, value in zip(names, args, strict=True)
        ]
        kwargs = {name: _REDACTED if name in hidden else kwargs[name] for name in kwargs}
        shown, *more = (_write_json(part).decode() for part in (args, kwargs))
    else:
        shown, *more = (bytes(part).decode() for part in _read_parts(message.call))
    return _shorten(shown), _shorten(more[0]) if more else "{}"


def _positional_names(task: str, count: int) -> list[str | None]:
    """Return what the positional arguments of a task are called, as far as that is known."""
    declared = declared_task(task)
    names: list[str | None] = []
    if declared is not None:
        for parameter in inspect.signature(declared.func).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                names += [parameter.name] * (count - len(names))
            elif parameter.kind in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            ):
                names.append(parameter.name)
    return (names + [None] * count)[:count]


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_LIMIT else f"{text[: SHOWN_LIMIT - 3]}..."
