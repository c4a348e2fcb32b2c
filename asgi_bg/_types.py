"""The shapes of ASGI, as loose as frameworks write them, and the words of our options."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from asgiref.typing import ASGI3Application

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Frameworks type scopes and messages as mutable mappings, asgiref as typed dictionaries, and
# a type checker takes neither for the other. The middleware wraps all of them.
AnyASGIApp: TypeAlias = "Callable[[Any, Any, Any], Awaitable[None]] | ASGI3Application"

RunOn: TypeAlias = Literal["response", "success", "always"]
ExecutorName: TypeAlias = Literal["auto", "thread", "process"]
