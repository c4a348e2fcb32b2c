"""The variants of the one app that are compared over HTTP: their names and what they promise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the comparison.

    Attributes:
        key: Its name in code and on command lines.
        label: Its name for readers.
        runs_task: Whether every request of it must run one task.
    """

    key: str
    label: str
    runs_task: bool


PLAIN = Variant("plain", "Starlette alone, no task", runs_task=False)
INSTALLED = Variant("installed", "asgi_bg installed, no task", runs_task=False)
STARLETTE_ASYNC = Variant("starlette-async", "Starlette, one async task", runs_task=True)
PEER_ASYNC = Variant("peer-async", "asgi-background, one async task", runs_task=True)
OURS_ASYNC = Variant("ours-async", "asgi_bg, one async task", runs_task=True)
STARLETTE_SYNC = Variant("starlette-sync", "Starlette, one sync task", runs_task=True)
OURS_SYNC = Variant("ours-sync", "asgi_bg, one sync task", runs_task=True)

VARIANTS = (
    PLAIN,
    INSTALLED,
    STARLETTE_ASYNC,
    PEER_ASYNC,
    OURS_ASYNC,
    STARLETTE_SYNC,
    OURS_SYNC,
)
