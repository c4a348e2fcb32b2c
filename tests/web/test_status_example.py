"""The example page in a real browser: an upload, and a progress bar that moves (W2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import need, wait_until
from tests.services.service import need_program

httpx = need("httpx")
need("uvicorn")
playwright = need("playwright.sync_api")

from tests.services.web import DEADLINE, WebServer  # noqa: E402


@pytest.fixture
def example(tmp_path: Path) -> Iterator[WebServer]:
    """The example, as the comment at its top says, with uploads in a folder of the test."""
    env = {"TMPDIR": str(tmp_path)}
    with WebServer(tmp_path, "examples.upload:app", "/", env) as started:
        yield started


@pytest.fixture
def page(example: WebServer) -> Iterator[Any]:
    """The example's page in Chromium, which must not complain of anything but lost lines."""
    chromium = need_program("chromium", "chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            made = browser.new_page()
            made.set_default_timeout(DEADLINE * 1000)
            errors: list[str] = []
            made.on("pageerror", lambda error: errors.append(str(error)))
            made.goto(example.url)
            yield made
            assert errors == []
        finally:
            browser.close()


def upload(page: Any, data: bytes) -> None:
    file = {"name": "table.csv", "mimeType": "text/csv", "buffer": data}
    page.get_by_label("A file").set_input_files(file)
    page.get_by_role("button", name="Upload").click()


def bar_of(page: Any) -> float:
    value: float = page.locator("progress").evaluate("bar => bar.hidden ? 0 : bar.value")
    return value


def test_bar_moves_while_the_upload_is_processed(page: Any) -> None:
    """From its begin to its end, by more than a few steps, and never back."""
    data = bytes(range(256)) * 4096
    upload(page, data)
    seen: set[float] = set()

    def is_done() -> bool:
        value = bar_of(page)
        assert value >= max(seen, default=0.0)
        seen.add(value)
        return bool(page.locator("code").inner_text())

    wait_until(is_done, "end of the job")
    assert len([value for value in seen if 0 < value < 1]) >= 5
    assert bar_of(page) == 1
    assert page.get_by_role("status").inner_text().startswith("succeeded: 1,048,576 of ")
    assert hashlib.sha256(data).hexdigest() in page.locator("code").inner_text()


def test_bar_goes_on_after_a_restart_of_the_server_and_a_reload(
    page: Any, example: WebServer
) -> None:
    """J3: the job is kept, and the browser connects again by itself."""
    upload(page, b"x" * 100_000)
    wait_until(lambda: bar_of(page) > 0.1, "progress")
    example.kill()
    example.start()
    wait_until(lambda: "succeeded" in page.get_by_role("status").inner_text(), "end of the job")
    page.reload()
    wait_until(lambda: "succeeded" in page.get_by_role("status").inner_text(), "the end, once more")
    assert page.locator("code").inner_text().startswith('{"bytes":100000,')


def test_job_that_is_not_known_is_told_as_such(page: Any, example: WebServer) -> None:
    """And not asked for for ever."""
    page.goto(f"{example.url}/#{'0' * 32}")
    page.reload()
    wait_until(lambda: "not known" in page.get_by_role("status").inner_text(), "word of it")


def test_upload_that_is_too_large_is_refused(example: WebServer) -> None:
    """Without being kept."""

    def parts() -> Iterator[bytes]:
        for _ in range(101):
            yield bytes(1024 * 1024)

    response = httpx.post(f"{example.url}/upload", content=parts(), trust_env=False, timeout=60)
    assert response.status_code == 413
    assert [file for file in (example.folder / "uploads").iterdir() if file.stem != "jobs"] == []
