"""What users may rely on, a line for each name: python -m tests.api_surface > tests/api.txt."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

MODULES = (
    "asgi_bg",
    "asgi_bg.exceptions",
    "asgi_bg.views",
    "asgi_bg.events",
    "asgi_bg.journal",
    "asgi_bg.engines",
    "asgi_bg.engines.arq",
    "asgi_bg.engines.celery",
    "asgi_bg.engines.taskiq",
    "asgi_bg.engines.procrastinate",
    "asgi_bg.starlette",
    "asgi_bg.fastapi",
    "asgi_bg.litestar",
    "asgi_bg.quart",
    "asgi_bg.django",
    "asgi_bg.falcon",
    "asgi_bg.blacksheep",
    "asgi_bg.web",
    "asgi_bg.opentelemetry",
    "asgi_bg.prometheus",
    "asgi_bg.logs",
    "asgi_bg.testing",
    "asgi_bg.testing.crash",
    "asgi_bg.testing.engine_contract",
    "asgi_bg.testing.journal_contract",
)


def surface() -> Iterator[str]:
    """Yield a line for each public name: its module, and its signature or kind."""
    for name in MODULES:
        module = importlib.import_module(name)
        for public in sorted(module.__all__):
            yield from _lines(f"{name}:{public}", getattr(module, public))


def _lines(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"{path}{_signature(value)}"
        for name, member in sorted(_members(value)):
            if isinstance(member, property) or not callable(member):
                yield f"{path}.{name}"
            else:
                yield f"{path}.{name}{_signature(member)}"
    elif callable(value):
        yield f"{path}{_signature(value)}"
    else:
        yield path


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public members that our own classes give to a class."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("asgi_bg")]
    names = {name for base in ours for name in vars(base) if not name.startswith("_")}
    for name in names:
        yield name, inspect.getattr_static(cls, name)


def _signature(value: Any) -> str:
    """Return the parameters, without annotations: their names, kinds and defaults."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    text = str(inspect.Signature(plain))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


if __name__ == "__main__":
    print("\n".join(surface()))
