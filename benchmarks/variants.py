"""The variants of the one app that are compared over HTTP: their names and what they promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of a comparison.

    Attributes:
        key: Its name in code and on command lines.
        label: Its name for readers.
        runs_task: Whether every request of it must run one task.
        store: Where every request of it must leave one job; empty for nowhere.
        baseline: The key of the plain app that its figures are shares of.
        environment: The directory of its virtual environment inside the suite's own, where
            its packages do not fit to the others'; empty for the suite's own.
        may_fail: Whether requests may fail under this load; they are counted then, and what
            the server logs is not shown.
    """

    key: str
    label: str
    runs_task: bool
    store: Literal["", "file", "redis"] = ""
    baseline: str = "plain"
    environment: str = ""
    may_fail: bool = False


PLAIN = Variant("plain", "Starlette alone, no task", runs_task=False)
INSTALLED = Variant("installed", "asgi_bg installed, no task", runs_task=False)
STARLETTE_ASYNC = Variant("starlette-async", "Starlette, one async task", runs_task=True)
PEER_ASYNC = Variant("peer-async", "asgi-background, one async task", runs_task=True)
OURS_ASYNC = Variant("ours-async", "asgi_bg, one async task", runs_task=True)
STARLETTE_SYNC = Variant("starlette-sync", "Starlette, one sync task", runs_task=True)
OURS_SYNC = Variant("ours-sync", "asgi_bg, one sync task", runs_task=True)

OURS_DURABLE = Variant("ours-durable", "asgi_bg, accepts and runs it", runs_task=True, store="file")
ARQ = Variant("arq", "ARQ, accepts it", runs_task=False, store="redis", environment="arq")
SAQ = Variant("saq", "SAQ, accepts it", runs_task=False, store="redis", environment="saq")
TASKIQ = Variant("taskiq", "taskiq, accepts it", runs_task=False, store="redis")
CELERY = Variant("celery", "Celery, accepts it", runs_task=False, store="redis")
FASTAPI_PLAIN = Variant(
    "fastapi-plain", "FastAPI alone, no task", runs_task=False, baseline="fastapi-plain"
)
TASKFLOW = Variant(
    *("taskflow", "fastapi-taskflow, accepts and runs it"),
    runs_task=True,
    store="file",
    baseline="fastapi-plain",
)
FASTAPI_JOBS = Variant(
    *("fastapi-jobs", "fastapi-jobs, accepts it"),
    runs_task=False,
    store="file",
    baseline="fastapi-plain",
    may_fail=True,  # with "database is locked", after 5 s
)

VARIANTS = (
    PLAIN,
    INSTALLED,
    STARLETTE_ASYNC,
    PEER_ASYNC,
    OURS_ASYNC,
    STARLETTE_SYNC,
    OURS_SYNC,
)
"""Tasks that live in memory."""

DURABLE_VARIANTS = (
    PLAIN,
    OURS_DURABLE,
    ARQ,
    SAQ,
    TASKIQ,
    CELERY,
    FASTAPI_PLAIN,
    TASKFLOW,
    FASTAPI_JOBS,
)
"""Jobs that are kept elsewhere than in the server's memory."""
