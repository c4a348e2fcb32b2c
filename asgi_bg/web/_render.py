"""From values to HTML: the templates, and the headers that every answer carries."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse, Response

from asgi_bg._visible import visible_on_page
from asgi_bg.views import CAP
from asgi_bg.web import _format, _query

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
except ImportError as exc:
    raise ImportError(
        "asgi_bg.web needs Jinja2; install it with: pip install 'asgi_bg[web]'"
    ) from exc

FOLDER = Path(__file__).parent

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # The address of a page, a search in it included, is nothing for other sites. (With
    # "no-referrer" browsers would keep our own forms' origin secret as well.)
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

STATUS_SIGNS = {
    "queued": "○",
    "running": "▶",
    "succeeded": "✓",
    "failed": "✗",
    "cancelled": "⊘",
}
"""What is shown beside a status, so that its colour is not all there is to see."""

_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def _environment(version: str) -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    # Jinja2's types know no filters and globals but its own.
    filters: dict[str, Any] = made.filters
    filters.update(
        duration=_format.duration,
        instant=_format.instant,
        iso=_format.iso,
        count=_format.count,
        rate=_format.rate,
        value=_format.value,
        pretty=_format.pretty,
        shortened=_format.shortened,
        ending=_format.ending,
    )
    known: dict[str, Any] = made.globals
    known.update(
        {
            "span": _format.span,
            "capped": _capped,
            "signs": STATUS_SIGNS,
            "search_for": _search_for,
            "version": version,
        }
    )
    return made


def _seen(value: Any) -> Any:
    """Return what a page shows of a value; HTML of ours, and ``|e`` in a template, stay as is."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return visible_on_page(value) if is_text else value


def _capped(number: int) -> str:
    return _format.capped(number, CAP)


def _search_for(**fields: Any) -> str:
    return _query.Search(**fields).query()


class Rendering:
    """The templates and the static files, read once."""

    def __init__(self) -> None:
        self._files = {file.name: file.read_bytes() for file in (FOLDER / "static").iterdir()}
        every = b"".join(content for _, content in sorted(self._files.items()))
        self._environment = _environment(hashlib.blake2b(every, digest_size=6).hexdigest())

    def text(self, template: str, **values: Any) -> str:
        """Return what a template makes of values; everything in them is escaped."""
        text = self._environment.get_template(template).render(values)
        # Half a surrogate pair, as file names in errors have, is no reason to show nothing.
        return text.encode(errors="backslashreplace").decode()

    def page(self, template: str, depth: int = 0, code: int = 200, **values: Any) -> Response:
        """Return a page.

        Args:
            template: The file's name.
            depth: How many folders below the dashboard's root it is: all links are relative, so
                that they hold wherever the dashboard is mounted, behind whatever proxy.
            code: The answer's status.
            **values: What the template shows.
        """
        now = round(time.time() * 1000)
        text = self.text(template, up="../" * depth or "./", now=now, **values)
        return HTMLResponse(text, code, {"cache-control": "no-store"})

    def static(self, name: str) -> Response | None:
        """Return a static file; None if there is none of this name."""
        content = self._files.get(name)
        if content is None:
            return None
        # Pages name the version, so that a newer one is another address.
        headers = {"cache-control": "private, max-age=86400"}
        return Response(content, 200, headers, f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8")
