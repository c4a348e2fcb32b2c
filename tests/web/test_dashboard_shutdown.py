"""W1: a page that is looked at does not keep a server from ending."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.helpers import need
from tests.web.dashboard_server import Site

need("httpx")
need("starlette")
need("jinja2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("server", "options"),
    [("uvicorn", ["--http", "h11"]), ("uvicorn", ["--http", "httptools"]), ("hypercorn", [])],
)
def test_open_stream_ends_with_the_server(
    tmp_path: Path, server: str, options: list[str], number: signal.Signals
) -> None:
    """Uvicorn would wait for it without end; its client sees a proper end, not a break."""
    need(server)
    with (
        Site(tmp_path, *options, server=server) as site,
        site.client.stream("GET", "/jobs/live/list") as stream,
    ):
        parts = stream.iter_raw()
        assert b"retry" in next(parts)
        assert b"data" in next(parts)
        asked = time.monotonic()
        site.stop(number)
        assert time.monotonic() - asked < 8
        if server == "uvicorn":  # the other one cancels what it has waited 3 s for
            assert b"".join(parts) == b""
            assert "Traceback" not in site.log()
