"""The arguments of jobs as people are shown them: by name, shortened, and some not at all."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import msgspec

from asgi_bg._task import Task
from asgi_bg.views import Argument

TEXT_LIMIT = 10_000
"""To how many characters the text of an argument is shortened."""

_split_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_split_dict = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def shown_call(
    call: str, task: Task[..., Any] | None, redact: Iterable[str]
) -> tuple[Argument, ...] | None:
    """Return the arguments of a call that is kept as JSON text (J7).

    Args:
        call: The text.
        task: The task, if it is declared here, to know the names of positional arguments.
        redact: The names of arguments that are hidden (J10). Where the names of positional
            ones are not known, all of those are hidden, if any is.

    Returns:
        The arguments; None for a text that is no call.
    """
    try:
        parts = _split_list(call)
        values = [bytes(raw).decode() for raw in _split_list(parts[0])]
        keywords = _split_dict(parts[1]) if len(parts) > 1 else {}
        named = {name: bytes(raw).decode() for name, raw in keywords.items()}
    except (ValueError, IndexError):  # edited by hand
        return None
    return _shown(values, named, task, redact, str)


def shown_objects(
    args: tuple[Any, ...], kwargs: dict[str, Any], task: Task[..., Any]
) -> tuple[Argument, ...]:
    """Return the arguments of a call that is in memory."""
    return _shown(list(args), kwargs, task, task.options.redact, _repr)


def _shown(
    values: list[Any],
    named: dict[str, Any],
    task: Task[..., Any] | None,
    redact: Iterable[str],
    write: Callable[[Any], str],
) -> tuple[Argument, ...]:
    hidden = set(redact)
    names = None if task is None else _names_of(task, len(values))
    is_all_hidden = bool(hidden) and names is None
    shown: list[Argument] = []
    for name, value in zip(names or map(str, count(1)), values, strict=False):
        is_hidden = is_all_hidden or name.lstrip("*").split("[")[0] in hidden
        shown.append(Argument(name, "" if is_hidden else _shortened(write(value)), is_hidden))
    for name, value in named.items():
        is_hidden = name in hidden
        shown.append(Argument(name, "" if is_hidden else _shortened(write(value)), is_hidden))
    return tuple(shown)


def _names_of(task: Task[..., Any], number: int) -> list[str] | None:
    """Return what the first parameters are called; None if nobody knows."""
    try:
        parameters = list(inspect.signature(task.func).parameters.values())
    except (TypeError, ValueError):
        return None
    names = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            rest = number - len(names)
            names += [f"*{parameter.name}[{place}]" for place in range(rest)]
    return names[:number] if len(names) >= number else None


def _repr(value: Any) -> str:
    try:
        return _REPR.repr(value)
    except Exception:
        return f"<{type(value).__qualname__}, whose repr failed>"


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}…"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = TEXT_LIMIT
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = 100
