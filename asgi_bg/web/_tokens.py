"""Against cross-site requests: where a form was sent from, and the token that proves it.

The token is in a cookie and in the form. Other sites can make a browser send the cookie, but
cannot read it to fill in the form; and as nothing is kept here, any process can check it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

COOKIE = "asgi_bg_token"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def token_of(request: Request) -> str:
    """Return the token that the browser has, or a new one."""
    token = request.cookies.get(COOKIE, "")
    return token if _TOKEN.fullmatch(token) else secrets.token_urlsafe(32)


def give_token(response: Response, request: Request, token: str) -> None:
    """Make the browser keep a token, for requests that this site itself makes."""
    response.set_cookie(
        COOKIE,
        token,
        # As the browser writes it; a mount with a parameter in its path has what a client sent.
        path=quote(request.scope.get("root_path") or "/", safe="/:@!$&'()*+,="),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def is_own(request: Request, form: Mapping[str, str]) -> bool:
    """Whether a form was sent from a page of this dashboard, and not by another site."""
    return _is_same_origin(request) and _has_token(request, form)


def _is_same_origin(request: Request) -> bool:
    # Browsers send the first to trustworthy origins only; on plain HTTP the second remains.
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if not origin or not host:
        return False
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _has_token(request: Request, form: Mapping[str, str]) -> bool:
    kept, sent = request.cookies.get(COOKIE, ""), form.get("token", "")
    if not _TOKEN.fullmatch(kept):
        return False
    return secrets.compare_digest(kept.encode(), sent.encode())
