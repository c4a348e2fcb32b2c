"""``retry``, ``cancel`` and ``purge`` (W3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import Journal, call
from tests.helpers import need
from tests.journal.helpers import Other

need("typer")


def status_of(journal: Journal, name: str) -> str:
    job = call("--journal", journal.path, "show", "--json", journal.ids[name]).json["job"]
    return str(job["status"])


def test_retry_lets_jobs_wait_again(shop: Journal) -> None:
    """With several, one that cannot be retried does not stop the others."""
    names = ("evil", "good", "cancelled")
    outcome = call("--journal", shop.path, "retry", *(shop.ids[name] for name in names), "fff")
    assert outcome.code == 1
    assert [line.split(":")[-1] for line in outcome.out.splitlines()] == [" waits again"] * 2
    assert shop.ids["good"] in outcome.err
    assert "fff" in outcome.err
    assert [status_of(shop, name) for name in names] == ["queued", "succeeded", "queued"]
    assert "they run when the app starts" in outcome.err
    check_tally(shop)


def check_tally(shop: Journal) -> None:
    outcome = call("--journal", shop.path, "check", "--json")
    assert outcome.json["is_sound"], outcome.out


def test_retry_as_json_tells_jobs_and_errors(shop: Journal) -> None:
    outcome = call("--journal", shop.path, "retry", "--json", shop.ids["evil"], shop.ids["handed"])
    assert outcome.code == 1
    assert [job["status"] for job in outcome.json["jobs"]] == ["queued"]
    [error] = outcome.json["errors"]
    assert error["id"] == shop.ids["handed"]
    assert "engine" in error["error"]


def test_retry_of_all_that_failed(shop: Journal) -> None:
    assert call("--journal", shop.path, "retry", "--failed", "--task", "none").out == (
        "0 jobs will be tried again\n"
    )
    assert status_of(shop, "evil") == "failed"
    outcome = call("--journal", shop.path, "retry", "--failed", "--task", "shop:evil", "--json")
    assert outcome.json == {"retried": 1}
    assert status_of(shop, "evil") == "queued"
    check_tally(shop)


@pytest.mark.parametrize(
    "args",
    [
        ("retry",),
        ("retry", "--failed", "abc"),
        ("retry", "abc", "--task", "t"),
        ("cancel",),
        ("purge", "--yes", "--status", "queued"),
        ("purge", "--yes", "--status", "odd"),
        ("purge", "--yes", "--older-than", "yesterday"),
        ("list", "--limit", "0"),
        ("list", "--nonsense"),
        ("nonsense",),
        ("watch", "--interval", "0"),
    ],
)
def test_wrong_usage_is_code_2_and_changes_nothing(shop: Journal, args: tuple[str, ...]) -> None:
    before = call("--journal", shop.path, "list", "--json").out
    outcome = call("--journal", shop.path, *args)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err
    assert call("--journal", shop.path, "list", "--json").out == before


def test_cancel_ends_what_waits(shop: Journal) -> None:
    """And says of the others why not; a second time is no error."""
    queued = shop.ids["queued"]
    for _ in range(2):
        outcome = call("--journal", shop.path, "cancel", queued)
        assert outcome.code == 0
        assert outcome.out == f"{queued} shop:queued: cancelled\n"
    for name, reason in (("good", "succeeded"), ("evil", "failed"), ("handed", "engine")):
        outcome = call("--journal", shop.path, "cancel", shop.ids[name])
        assert outcome.code == 1
        assert reason in outcome.err
    check_tally(shop)


def test_cancel_asks_the_process_that_has_the_job(tmp_path: Path) -> None:
    shop = Journal(tmp_path / "shop.db")
    other = Other(shop.path)
    try:
        assert other.tell("[row.id for row in journal.claim(1, time.time())]") == [
            shop.ids["queued"]
        ]
        outcome = call("--journal", shop.path, "cancel", shop.ids["queued"])
        assert outcome.code == 0
        assert f"pid:{other.process.pid}" in outcome.out
        assert "asked to cancel" in outcome.out
        assert other.tell("journal.cancellations()") == [shop.ids["queued"]]
        assert other.tell("journal.close()") is None
    finally:
        other.kill()
        other.process.communicate()


def test_purge_needs_a_terminal_or_yes(shop: Journal) -> None:
    outcome = call("--journal", shop.path, "purge", input="y\n")
    assert outcome.code == 2
    assert "--yes" in outcome.err
    assert len(call("--journal", shop.path, "list").rows) == 6


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ((), ["old", "good", "evil", "cancelled"]),
        (("--older-than", "7d"), ["old"]),
        (("--older-than", "100w"), []),
        (("--status", "failed"), ["evil"]),
        (("--status", "succeeded", "--older-than", "1h"), ["old"]),
    ],
)
def test_purge_removes_what_has_ended(
    shop: Journal, options: tuple[str, ...], gone: list[str]
) -> None:
    outcome = call("--journal", shop.path, "purge", "--yes", "--json", *options)
    assert outcome.json == {"purged": len(gone)}
    left = {row["id"] for row in call("--journal", shop.path, "list").rows}
    assert left == {job for name, job in shop.ids.items() if name not in gone}
    check_tally(shop)


def test_changes_leave_no_owner_behind(shop: Journal) -> None:
    """The command runs no jobs, so it must not be taken for a process that does."""
    call("--journal", shop.path, "retry", "--failed")
    call("--journal", shop.path, "purge", "--yes", "--older-than", "7d")
    assert list(Path(shop.path).parent.glob("*-owner-*")) == []
    call("--journal", shop.path, "cancel", shop.ids["handed"])
    call("--journal", shop.path, "purge", "--yes")
    assert call("--journal", shop.path, "stats", "--json").json["processes"] == []


def test_counts_stay_right(tmp_path: Path) -> None:
    shop = Journal(tmp_path / "shop.db")
    call("--journal", shop.path, "retry", shop.ids["evil"])
    call("--journal", shop.path, "cancel", shop.ids["evil"])
    call("--journal", shop.path, "purge", "--yes", "--status", "cancelled")
    check_tally(shop)
