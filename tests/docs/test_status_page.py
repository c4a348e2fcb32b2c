"""What the page about following a job shows besides Python: the answer, and the script."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from asgi_bg.testing.crash import CrashSite
from tests.docs_page import blocks_of
from tests.helpers import need
from tests.services.service import need_program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "status.md").read_text()


def block(language: str) -> str:
    """The one block of the page in a language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_answer_and_script_of_the_page(tmp_path: Path) -> None:
    """W2: the answer has these fields, and the script, in a browser, moves a bar to the end."""
    for partner in ("starlette", "jinja2", "uvicorn"):
        need(partner)
    playwright = need("playwright.sync_api")
    chromium = need_program("chromium", "chromium")
    (tmp_path / "main.py").write_text("\n\n".join(code for _, code in blocks_of(PAGE)))
    with (
        CrashSite("main:app", journal=tmp_path / "jobs.db", cwd=tmp_path) as site,
        playwright.sync_playwright() as driver,
    ):
        path: str = site.post("/upload?name=book").json()["job"]
        job = path.removeprefix("/jobs/")
        site.until_done(job)
        answer: dict[str, Any] = site.get(path).json()
        assert list(answer) == list(json.loads(block("json")))
        assert (answer["status"], answer["result"]) == ("succeeded", "/converted/book.pdf")

        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{site.port}/jobs/openapi.json")
        script = f"([id, bar]) => {{ {block('js')} window.source = source; window.bar = bar; }}"
        page.evaluate(script, [job, {}])
        page.wait_for_function("window.source.readyState === EventSource.CLOSED", timeout=30_000)
        assert page.evaluate("window.bar.value") == answer["progress"]
        browser.close()
