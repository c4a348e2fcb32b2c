"""What the parameters of a request ask for, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from asgi_bg._job import JobInfo, JobStatus

PAGE = 50
"""How many jobs a page shows."""

SPANS = {900: "15 minutes", 3600: "1 hour", 86_400: "1 day", 604_800: "1 week"}
"""How far back the overview can go, in seconds, and in words."""

AGES = {
    0: "any age",
    3600: "1 hour",
    86_400: "1 day",
    604_800: "1 week",
    2_592_000: "30 days",
}
"""How old the jobs of a purge can be at least, in seconds, and in words."""

TEXT_LIMIT = 200
NAME_LIMIT = 1_000
FORM_LIMIT = 20_000
"""How many bytes a form may have; ours have some hundred."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DIGEST = re.compile(r"[0-9a-f]{1,64}")


class BadQuery(ValueError):
    """A parameter is none that a page of ours sends."""


@dataclass(frozen=True)
class Search:
    """Which jobs a list shows.

    Attributes:
        status: Only those that stand so; None for all.
        task: Only those of the task of this name; empty for all.
        text: Only those with this text in them; empty for all.
        after: The id after which the page begins; None for the first page.
    """

    status: JobStatus | None = None
    task: str = ""
    text: str = ""
    after: str | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether it leaves any jobs out."""
        return bool(self.status or self.task or self.text)

    def fits(self, job: JobInfo) -> bool:
        """Whether a job is of the status and task that are looked for."""
        return self.status in (None, job.status) and self.task in ("", job.task)

    def query(self, after: str | None = None) -> str:
        """Return it as the query of a URL, for the page that begins after an id."""
        pairs = {"status": self.status or "", "task": self.task, "text": self.text}
        pairs["after"] = after or ""
        return urlencode({name: value for name, value in pairs.items() if value})


def search_of(query: QueryParams) -> Search:
    """Return what a list is asked to show.

    Raises:
        BadQuery: A parameter does not fit.
    """
    after = query.get("after", "")
    return Search(
        status_of(query.get("status", "")),
        text_of(query, "task", NAME_LIMIT),
        text_of(query, "text", TEXT_LIMIT).strip(),
        id_of(after) if after else None,
    )


def status_of(word: str) -> JobStatus | None:
    """Return the status of this name; None for an empty one."""
    try:
        return JobStatus(word) if word else None
    except ValueError:
        raise BadQuery from None


def text_of(query: QueryParams | dict[str, str], name: str, limit: int) -> str:
    """Return a text parameter; an empty one where it is missing.

    Spaces of other kinds, and the joiners within emoji and Persian words, are text as any other.
    """
    text = query.get(name, "")
    if len(text) > limit or _CONTROL.search(text):
        raise BadQuery
    return text


def id_of(text: str) -> str:
    """Return a job's id, if it may be one."""
    if not _ID.fullmatch(text):
        raise BadQuery
    return text


def seconds_of(query: QueryParams | dict[str, str], name: str, allowed: dict[int, str]) -> int:
    """Return one of these numbers of seconds."""
    try:
        seconds = int(query.get(name, "")[:20])
    except ValueError:
        raise BadQuery from None
    if seconds not in allowed:
        raise BadQuery
    return seconds


def digest_of(text: str) -> str:
    """Return what a client says it has seen; empty where it says nothing of use."""
    return text if _DIGEST.fullmatch(text) else ""


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form that a request carries.

    Raises:
        BadQuery: It is no form, too long, or broken off.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadQuery
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > FORM_LIMIT:
                raise BadQuery
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except (ValueError, ClientDisconnect):
        raise BadQuery from None
