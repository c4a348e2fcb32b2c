"""The README's programs run as they stand."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def names() -> dict[str, Any]:
    """Run every block in one namespace, in order, as a reader would type them in."""
    names: dict[str, Any] = {"__name__": "readme"}
    names["apps"] = []
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
        if re.search("^app = ", block, re.MULTILINE):
            names["apps"].append(names["app"])
    return names


def test_smallest_program_and_frameworks_send_their_mail(
    names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each app of the README, over HTTP."""
    raw, fastapi, starlette = names["apps"]
    with TestClient(raw) as client:
        assert client.get("/").text == "accepted\n"
    with TestClient(fastapi) as client:
        assert len(client.post("/signup?email=me@example.com").json()["job"]) == 32
    with TestClient(starlette) as client:
        assert client.get("/signup").text == "welcome"
    assert capsys.readouterr().out.splitlines() == [
        "mail to you@example.com",
        "mail to me@example.com",
        "mail to you@example.com",
    ]


def test_following_a_job_works(names: dict[str, Any]) -> None:
    """The block's own assertions."""
    asyncio.run(names["follow"]())


def test_links_lead_somewhere() -> None:
    """Every relative link, in the README and in docs."""
    root = Path(__file__).parent.parent
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
