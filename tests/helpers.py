"""Talking to ASGI apps in process, and keeping the whole story in one list."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import pytest

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"ok"}
MORE: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
REQUEST: Message = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}


def need(module: str) -> Any:
    """Import a module of a partner; skip the test if it is missing, but fail it in CI."""
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        if not any(isinstance(one, ModuleNotFoundError) for one in (exc, exc.__cause__)):
            raise  # it is there, and does not fit
        text = f"{module} is not installed; get all partners with: pip install 'asgi_bg[dev]'"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text, allow_module_level=True)


class Connection:
    """One ASGI connection: what the app receives, and all that happened, in order.

    Attributes:
        scope: Its scope, after the call as the app left it.
        log: The types of the messages sent, and whatever else the test puts in.
        sent: The messages themselves.
    """

    def __init__(
        self,
        incoming: Iterable[Message] = (REQUEST,),
        *,
        kind: str = "http",
        log: list[Any] | None = None,
        fail_on: dict[str, Exception] | None = None,
    ) -> None:
        self.scope: dict[str, Any] = {"type": kind, "path": "/", "headers": []}
        self.log: list[Any] = [] if log is None else log
        self.sent: list[Message] = []
        self._incoming = list(incoming)
        self._fail_on = fail_on or {}

    async def receive(self) -> Message:
        if not self._incoming:
            await asyncio.Event().wait()
        return self._incoming.pop(0)

    async def send(self, message: Message) -> None:
        error = self._fail_on.get(message["type"])
        if error is not None:
            raise error
        self.sent.append(message)
        self.log.append(message["type"])

    async def call(self, app: App) -> None:
        await app(self.scope, self.receive, self.send)


def responding(*messages: Message, before: Callable[[], Any] | None = None) -> App:
    """Return an app that calls ``before`` and sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if before is not None:
            before()
        for message in messages:
            await send(message)

    return app


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    """Wait until the condition is true, or fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not so within {timeout} seconds"
        await asyncio.sleep(0.002)


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
    """Wait in this thread until the condition is true, and return its value, or fail."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout:g} seconds in vain for {what}"
        time.sleep(0.02)
    return value
