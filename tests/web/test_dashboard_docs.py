"""The page about the dashboard: its programs run, and its pictures are there (W1)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import need

httpx = need("httpx")
need("starlette")
need("jinja2")

from tests.web.dashboard_site import visiting  # noqa: E402

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "dashboard.md"

pytestmark = pytest.mark.anyio


async def test_programs_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mounted one serves this machine, and the guarded one who has a session."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "dashboard_page"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    async with names["runner"]:
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/jobs/")).status_code == 200
        async with visiting(names["guarded"], client=("192.0.2.7", 1)) as visitor:
            assert (await visitor.get("/jobs/")).headers["location"] == "/login"
            for session, status in (("3f9c5a", 200), ("other", 403)):
                headers = {"cookie": f"session={session}"}
                assert (await visitor.get("/jobs/", headers=headers)).status_code == status


def test_pictures_of_the_page_are_there() -> None:
    """Each with words for who does not see it."""
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", PAGE.read_text())
    assert len(pictures) == 4
    for words, path in pictures:
        assert words
        assert (PAGE.parent / path).read_bytes().startswith(b"\x89PNG")
