"""What changes on a page while it is looked at: its parts, as HTML, at one moment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from asgi_bg._ids import instant_of
from asgi_bg._job import JobInfo, as_instant
from asgi_bg._runner import Runner
from asgi_bg.views import JobPage
from asgi_bg.web import _charts
from asgi_bg.web._query import PAGE, Search
from asgi_bg.web._render import Rendering

BUCKETS = 60
"""Into how many stretches of time the charts are divided."""

SEARCH_SECONDS = 0.1
"""For how long a page looks for jobs; it then says how far it has come."""


@dataclass(frozen=True)
class State:
    """The parts of a page at one moment.

    Attributes:
        parts: The HTML of each element, by its id.
        order: The ids of the rows of the list, where there is one; their HTML is in ``parts``.
        digest: Says whether two states are the same, across processes and restarts.
    """

    parts: Mapping[str, str]
    order: tuple[str, ...] | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        text = msgspec.json.encode((self.parts, self.order), order="sorted")
        object.__setattr__(self, "digest", hashlib.blake2b(text, digest_size=12).hexdigest())

    def since(self, before: State | None) -> bytes:
        """Return as JSON what has changed since a state; everything for None."""
        known: Mapping[str, str] = {} if before is None else before.parts
        parts = {name: html for name, html in self.parts.items() if known.get(name) != html}
        changes: dict[str, object] = {"parts": parts}
        if self.order is not None and (before is None or before.order != self.order):
            changes["order"] = self.order
        return msgspec.json.encode(changes)


class Panel(Protocol):
    """What a page shows that changes."""

    @property
    def key(self) -> tuple[object, ...]:
        """What it is, in values: all who look at the same share one that asks."""
        ...

    @property
    def interval(self) -> float:
        """How many seconds lie between two looks."""
        ...

    async def state(self) -> State:
        """Look, and return how it is now.

        Raises:
            JobNotFound: It is one job's, which is not known (any more).
        """
        ...


class OverviewPanel:
    """The figures of all jobs.

    Args:
        runner: Whose they are.
        rendering: Makes HTML of them.
        seconds: How far back charts and tasks go.
    """

    interval = 2.0

    def __init__(self, runner: Runner, rendering: Rendering, seconds: int) -> None:
        self._runner = runner
        self._rendering = rendering
        self._seconds = seconds
        self._slow: dict[str, str] = {}
        self._due = 0.0

    @property
    def key(self) -> tuple[object, ...]:
        return ("overview", self._seconds)

    async def state(self) -> State:
        overview = await self._runner.overview(seconds=self._seconds, buckets=BUCKETS)
        # The drawings are large, and a short time changes little of them.
        now = asyncio.get_running_loop().time()
        if now >= self._due:
            self._due = now + max(5.0, self._seconds / BUCKETS / 6)
            buckets = overview.buckets
            charts = {
                "outcomes": _charts.outcomes(buckets),
                "durations": _charts.times(buckets, lambda one: one.durations, "Duration"),
                "waits": _charts.times(buckets, lambda one: one.waits, "Wait"),
            }
            self._slow = {
                f"chart-{name}": self._text("chart", chart=chart, name=name, c=_charts)
                for name, chart in charts.items()
            }
        recent = overview.buckets[-max(1, len(overview.buckets) // 12) :]
        added = sum(bucket.added for bucket in recent)
        rate = added / max(1.0, sum(bucket.seconds for bucket in recent))
        return State(
            {
                "counts": self._text("counts", overview=overview, rate=rate),
                "tasks": self._text("tasks", overview=overview),
                "processes": self._text("processes", overview=overview),
                **self._slow,
            }
        )

    def _text(self, part: str, **values: object) -> str:
        return self._rendering.text(f"parts/{part}.html", up="./", **values)


class ListPanel:
    """A page of the list of jobs.

    Args:
        runner: Whose they are.
        rendering: Makes HTML of them.
        search: Which ones.
    """

    def __init__(self, runner: Runner, rendering: Rendering, search: Search) -> None:
        self._runner = runner
        self._rendering = rendering
        self._search = search
        # Looking for a text means to read many rows.
        self.interval = 3.0 if search.text else 1.0

    @property
    def key(self) -> tuple[object, ...]:
        return ("list", self._search)

    async def state(self) -> State:
        search = self._search
        page = await self._by_id() or await self._runner.search(
            status=search.status,
            task=search.task or None,
            text=search.text or None,
            after=search.after,
            limit=PAGE,
            seconds=SEARCH_SECONDS,
        )
        rows = {f"job-{job.id}": self._row(job) for job in page.jobs}
        more = self._rendering.text(
            "parts/more.html", up="./", search=search, page=page, seen_to=seen_to(page)
        )
        return State({"more": more, **rows}, tuple(rows))

    async def _by_id(self) -> JobPage | None:
        """Return the one job whose id is looked for, which need not be searched."""
        text = self._search.text.lower()
        if self._search.after or instant_of(text) is None:
            return None
        found = (await self._runner.infos([text])).get(text)
        if found is None or not self._search.fits(found):
            return None
        return JobPage((found,), None, False)

    def _row(self, job: JobInfo) -> str:
        return self._rendering.text("parts/row.html", up="./", job=job)


def seen_to(page: JobPage) -> object:
    """Return the instant to which a search that was cut has looked; None if unknown."""
    at = instant_of(page.next) if page.is_cut and page.next else None
    return None if at is None else as_instant(at)


class JobPanel:
    """One job.

    Args:
        runner: Whose it is.
        rendering: Makes HTML of it.
        id: The job's id.
    """

    interval = 0.5

    def __init__(self, runner: Runner, rendering: Rendering, id: str) -> None:
        self._runner = runner
        self._rendering = rendering
        self._id = id

    @property
    def key(self) -> tuple[object, ...]:
        return ("job", self._id)

    async def state(self) -> State:
        details = await self._runner.details(self._id)
        names = ("facts", "progress", "outcome", "actions", "arguments", "attempts", "logs")
        return State(
            {
                name: self._rendering.text(
                    f"parts/{name}.html", up="../", details=details, job=details.job
                )
                for name in names
            }
        )
