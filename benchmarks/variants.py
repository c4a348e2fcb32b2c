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
        has_outbox: Whether a file has the jobs before that store has.
        baseline: The key of the plain app that its figures are shares of.
        environment: The directory of its virtual environment inside the suite's own, where
            its packages do not fit to the others'; empty for the suite's own.
        may_fail: Whether requests may fail under this load; they are counted then, and what
            the server logs is not shown.
    """

    key: str
    label: str
    runs_task: bool
    store: Literal["", "file", "redis", "postgres"] = ""
    has_outbox: bool = False
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
PROCRASTINATE = Variant(
    "procrastinate", "Procrastinate, accepts it", runs_task=False, store="postgres"
)
OURS_ARQ = Variant(
    *("ours-arq", "asgi_bg, hands it over to ARQ"),
    runs_task=False,
    store="redis",
    has_outbox=True,
    environment="arq",
)
OURS_TASKIQ = Variant(
    *("ours-taskiq", "asgi_bg, hands it over to taskiq"),
    runs_task=False,
    store="redis",
    has_outbox=True,
)
OURS_CELERY = Variant(
    *("ours-celery", "asgi_bg, hands it over to Celery"),
    runs_task=False,
    store="redis",
    has_outbox=True,
)
OURS_PROCRASTINATE = Variant(
    *("ours-procrastinate", "asgi_bg, hands it over to Procrastinate"),
    runs_task=False,
    store="postgres",
    has_outbox=True,
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


@dataclass(frozen=True, slots=True)
class Pair:
    """An engine: how its own call leaves a job to it, and how we do.

    Attributes:
        name: What the engine is called.
        own: The variant that calls the engine itself.
        ours: Ours, with a journal and that engine.
        least: How many times the engine's own rate ours is to be; None where there is no target.
    """

    name: str
    own: Variant
    ours: Variant
    least: float | None


PAIRS = (
    Pair("ARQ", ARQ, OURS_ARQ, 4.0),
    Pair("taskiq", TASKIQ, OURS_TASKIQ, 4.0),
    Pair("Celery", CELERY, OURS_CELERY, 8.0),
    Pair("Procrastinate", PROCRASTINATE, OURS_PROCRASTINATE, None),
)
"""The engines that jobs are handed over to."""
