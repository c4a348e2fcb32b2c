"""W1 in a real browser: headless Chromium looks at a real server."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import need, wait_until
from tests.services.service import need_program
from tests.services.web import DEADLINE
from tests.web.dashboard_history import multiply
from tests.web.dashboard_server import Site

CHROMIUM = need_program("chromium", "chromium")
playwright = need("playwright.sync_api")
axe = need("axe_playwright_python.sync_playwright")
need("uvicorn")

WIDE, PHONE = (1280, 900), (360, 740)
SERIOUS = ("serious", "critical")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as started:
        yield started


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures are kept: for CI and the docs where the environment says."""
    folder = Path(os.environ.get("ASGI_BG_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, site: Site) -> Iterator[Open]:
    """Open a page in a browser of its own; afterwards nothing must have gone wrong in it."""
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:

        def open_(path: str = "", size: tuple[int, int] = WIDE, **options: Any) -> Any:
            width, height = size
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            context.set_default_timeout(DEADLINE * 1000)
            page = context.new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
            page.on("console", lambda line: _hear(line, wrong))
            page.goto(f"{site.url}/jobs/{path}")
            return page

        yield open_
    assert wrong == []


def _hear(line: Any, wrong: list[str]) -> None:
    # What a stopped server and a missing page make the browser say.
    is_expected = re.search("Failed to load resource|ERR_CONNECTION|ERR_INCOMPLETE", line.text)
    if line.type in ("error", "warning") and not is_expected:
        wrong.append(line.text)


def text_of(page: Any, selector: str) -> str:
    return str(page.locator(selector).first.inner_text())


def wait_text(page: Any, selector: str, text: str) -> None:
    """Wait until an element has this text in it."""
    playwright.expect(page.locator(selector).first).to_contain_text(text, timeout=DEADLINE * 1000)


def is_live(page: Any) -> None:
    wait_text(page, "#link-state", "Live")


def fill_up(site: Site) -> dict[str, str]:
    """Make jobs of all kinds, and return the ids of some."""
    site.add("good", n=25)
    (bad,) = site.add("bad")
    site.add("bad", n=3)
    site.add("late", n=2)
    (good,) = site.add("good")
    (long,) = site.add("long")
    wait_until(lambda: "value=" in site.client.get(f"/jobs/job/{long}").text, "the progress")
    wait_until(lambda: "receipt-0" in site.client.get(f"/jobs/job/{good}").text, "the result")
    multiply(site.folder / "jobs.db", 2000, 3600, good, bad, tasks=0, every=17)
    return {"bad": bad, "good": good, "long": long}


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_by_everybody(
    site: Site, open_page: Open, screenshots: Path, scheme: str, size: tuple[int, int]
) -> None:
    """W1: axe finds nothing serious, no page scrolls sideways, in both schemes and widths."""
    ids = fill_up(site)
    paths = {
        "overview": "",
        "list": "list",
        "filtered": "list?status=failed&text=bank",
        "failed": f"job/{ids['bad']}",
        "running": f"job/{ids['long']}",
        "succeeded": f"job/{ids['good']}",
        "retry": f"job/{ids['bad']}/retry",
        "cancel": f"job/{ids['long']}/cancel",
        "retry-failed": "retry-failed?task=shop.charge",
        "purge": "purge",
        "missing": "nothing",
    }
    page = open_page(size=size, color_scheme=scheme, reduced_motion="reduce")
    width = "wide" if size == WIDE else "phone"
    for name, path in paths.items():
        page.goto(f"{site.url}/jobs/{path}")
        if page.locator("body[data-live]").count():
            is_live(page)
        for details in page.locator("details").all():
            details.locator("summary").click()
        found = axe.Axe().run(page).response["violations"]
        assert [one for one in found if one["impact"] in SERIOUS] == [], name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        for details in page.locator("details").all():
            details.locator("summary").click()
        page.mouse.move(0, 0)
        page.screenshot(
            path=screenshots / f"dashboard-{name}-{scheme}-{width}.png",
            full_page=name not in ("list", "filtered"),
        )
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", ground)[:3]))
        assert (brightness > 600) == (scheme == "light")


def test_list_is_live(site: Site, open_page: Open) -> None:
    """W1: a new job appears, and its row changes, without a reload; a pause holds it back."""
    page = open_page("list")
    is_live(page)
    page.evaluate("window.mark = 1")
    (long,) = site.add("long")
    row = f"#job-{long}"
    wait_text(page, row, "running")
    wait_text(page, row, "20 %")
    page.locator(f"{row} a").focus()
    site.set_level(0.7)
    wait_text(page, row, "70 %")
    assert page.evaluate("document.activeElement.closest('tr')?.id") == f"job-{long}"
    page.locator("#pause").click()
    wait_text(page, "#link-state", "Paused")
    (bad,) = site.add("bad")
    site.set_level(1)
    wait_until(lambda: "succeeded" in site.client.get(f"/jobs/job/{long}").text, "its end")
    assert "running" in text_of(page, row)
    assert page.locator(f"#job-{bad}").count() == 0
    page.locator("#pause").click()
    wait_text(page, row, "succeeded")
    assert [one.get_attribute("id") for one in page.locator("#rows tr").all()] == [
        f"job-{bad}",
        f"job-{long}",
    ]
    assert page.evaluate("window.mark") == 1


def test_overview_is_live(site: Site, open_page: Open) -> None:
    """W1: figures, charts and tasks, and what was opened stays open."""
    page = open_page()
    is_live(page)
    wait_text(page, "#counts .failed", "0")
    site.add("bad", n=4)
    wait_text(page, "#counts .failed .figure", "4")
    wait_text(page, "#tasks", "shop.charge")
    playwright.expect(page.locator("#chart-outcomes rect.failed").first).to_be_attached(
        timeout=DEADLINE * 1000
    )
    page.locator("#figures-outcomes summary").click()
    site.add("good", n=3)
    wait_text(page, "#figures-outcomes tbody", "7")
    assert page.locator("#figures-outcomes").get_attribute("open") is not None


def test_progress_bar_moves(site: Site, open_page: Open) -> None:
    """W1: on the page of the job, until its result is there."""
    (long,) = site.add("long")
    page = open_page(f"job/{long}")
    seen: list[float] = []
    for level in (0.3, 0.55, 0.8):
        site.set_level(level)
        wait_text(page, "#progress", f"{round(level * 100)} %")
        seen.append(float(page.locator("#progress progress").get_attribute("value")))
    assert seen == [30.0, 55.0, 80.0]
    site.set_level(1)
    wait_text(page, "#facts", "succeeded")
    wait_text(page, "#outcome", "2")
    assert page.locator("#progress progress").count() == 0
    assert page.locator("#actions a").count() == 0


def test_filters_and_paging(site: Site, open_page: Open) -> None:
    """W1: by the form, and through the pages and back."""
    site.add("good", n=120)
    site.add("bad", n=2, text="nobody there")
    page = open_page("list")
    playwright.expect(page.locator("#rows tr")).to_have_count(50)
    page.get_by_label("Status").select_option("failed")
    page.get_by_label("Text").fill("NOBODY")
    page.get_by_role("button", name="Filter").click()
    playwright.expect(page.locator("#rows tr")).to_have_count(2)
    is_live(page)
    assert page.get_by_label("Text").input_value() == "NOBODY"
    page.get_by_role("link", name="Clear").click()
    for _ in range(2):
        page.get_by_role("link", name="Older").click()
        page.wait_for_url("**after=**")
    playwright.expect(page.locator("#rows tr")).to_have_count(22)
    first = page.locator("#rows tr").first.get_attribute("id")
    is_live(page)
    site.add("good", n=5)
    time.sleep(1.5)  # for what must not happen: an older page moving on with the newer jobs
    assert page.locator("#rows tr").first.get_attribute("id") == first
    page.get_by_role("link", name="Newest").click()
    playwright.expect(page.locator("#rows tr")).to_have_count(50)


def test_search_that_was_cut_goes_on_by_itself(site: Site, open_page: Open) -> None:
    """W1: through millions of rows, page by page, without being asked."""
    ids = site.add("good", n=11)
    page = open_page("list?text=rare")
    playwright.expect(page.locator("#rows tr, #older tr")).to_have_count(11)
    found = [one.get_attribute("id") for one in page.locator("#rows tr, #older tr").all()]
    assert found == [f"job-{job}" for job in reversed(ids)]
    assert page.locator(".cut").count() == 0


def test_job_is_retried_and_cancelled_by_clicks(site: Site, open_page: Open) -> None:
    """W1: over the page that asks; the notice is told once."""
    (bad,) = site.add("bad")
    (long,) = site.add("long")
    page = open_page(f"job/{bad}")
    page.get_by_role("link", name="Retry…").click()
    page.get_by_role("button", name="Retry").click()
    wait_text(page, "#notice", "The job was queued again.")
    assert page.url == f"{site.url}/jobs/job/{bad}"
    page.reload()
    assert text_of(page, "#notice").strip() == ""
    page.goto(f"{site.url}/jobs/job/{long}")
    page.get_by_role("link", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the job").click()
    wait_text(page, "#facts", "cancelled")
    page.get_by_role("link", name="Retry…").click()
    page.get_by_role("link", name="Leave it as it is").click()
    wait_text(page, "#facts", "cancelled")
    assert f"dashboard: retry of job {bad} by loopback client 127.0.0.1" in site.log()


def test_many_are_retried_and_purged_by_clicks(site: Site, open_page: Open) -> None:
    """W1: all failed ones of a task, and then away with them."""
    ids = site.add("bad", n=3)
    page = open_page()
    page.get_by_role("link", name="Retry all failed jobs of shop.charge").click()
    page.get_by_role("button", name="Retry all").click()
    wait_text(page, "#notice", "3 failed jobs were queued again.")
    wait_text(page, "#counts .failed .figure", "3")
    page.get_by_role("link", name="Purge").click()
    page.get_by_label("Jobs that").select_option("failed")
    page.get_by_label("and ended at least").select_option("0")
    page.get_by_role("button", name="Remove").click()
    wait_text(page, "#notice", "3 jobs were removed.")
    assert site.client.get(f"/jobs/job/{ids[0]}").status_code == 404


def test_form_of_another_site_does_nothing(site: Site, open_page: Open) -> None:
    """W1: with a browser that has the cookie."""
    (bad,) = site.add("bad")
    page = open_page("purge")
    page.goto(f"http://localhost:{site.port}/evil?target={site.url}/jobs/purge")
    page.get_by_role("button").click()
    wait_text(page, "h1", "Refused")
    assert site.client.get(f"/jobs/job/{bad}").status_code == 200


def test_html_in_jobs_is_text(site: Site, open_page: Open) -> None:
    """W1: in the page as it comes, and as the script puts it in later; none of it runs."""
    nasty = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"
    (first,) = site.add("bad", text=nasty)
    page = open_page("list")
    is_live(page)
    wait_text(page, f"#job-{first}", nasty)
    (second,) = site.add("good", text=nasty)
    wait_text(page, f"#job-{second}", "succeeded")
    for one in (first, second):
        page.goto(f"{site.url}/jobs/job/{one}")
        is_live(page)
        assert nasty in text_of(page, "#arguments")
        assert page.locator("main script, main img").count() == 0
    with_text = site.client.get("/jobs/list", params={"text": nasty}).text
    assert "<img src=x" not in with_text


def test_page_goes_on_after_a_restart(site: Site, open_page: Open) -> None:
    """W1: it says that the connection is lost, and later shows what came meanwhile."""
    (first,) = site.add("bad")
    page = open_page("list")
    is_live(page)
    page.evaluate("window.mark = 1")
    site.kill()
    wait_text(page, "#link-state", "Reconnecting…")
    site.start()
    (second,) = site.add("bad")
    wait_text(page, f"#job-{second}", "failed")
    is_live(page)
    assert page.locator("#rows tr").count() == 2
    assert page.locator(f"#job-{first}").count() == 1
    assert page.evaluate("window.mark") == 1


def test_all_works_without_script(site: Site, open_page: Open) -> None:
    """W1: pages, filters and actions; only the updates are missing, and no button for them."""
    (bad,) = site.add("bad")
    wait_until(lambda: "failed" in site.client.get(f"/jobs/job/{bad}").text, "the failure")
    page = open_page("list", java_script_enabled=False)
    assert not page.locator(".link").is_visible()
    page.get_by_label("Text").fill("bank")
    page.get_by_role("button", name="Filter").click()
    page.locator(f"#job-{bad} a").click()
    page.get_by_role("link", name="Retry…").click()
    page.get_by_role("button", name="Retry").click()
    assert "The job was queued again." in text_of(page, "#notice")
    assert page.locator("#attempts tbody tr").count() >= 1


def test_keyboard_reaches_the_content(site: Site, open_page: Open) -> None:
    """The first stop is a way past the header."""
    page = open_page("list")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "status"


def test_page_in_the_background_asks_nothing(site: Site, open_page: Open) -> None:
    """Nobody looks at it; the stream is closed, and opened again when somebody does."""
    page = open_page("list")
    is_live(page)
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    (bad,) = site.add("bad")
    time.sleep(1.5)  # for what must not happen
    assert page.locator(f"#job-{bad}").count() == 0
    page.evaluate(hide, False)
    wait_text(page, f"#job-{bad}", "failed")
