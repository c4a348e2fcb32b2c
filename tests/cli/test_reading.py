"""``list``, ``show`` and ``stats`` (W3)."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.cli.helpers import EVIL, Journal, call
from tests.helpers import need

need("typer")


def ids(text: str) -> list[str]:
    return [line.split("\t")[0] for line in text.splitlines()[1:]]


def test_list_shows_the_newest_first_a_line_each(shop: Journal) -> None:
    """In a pipe: tab-separated, in full, no control characters."""
    outcome = call("--journal", shop.path, "list")
    assert outcome.code == 0
    assert outcome.err == ""
    assert [row["id"] for row in outcome.rows] == list(shop.ids.values())[::-1]
    assert [row["status"] for row in outcome.rows] == [
        "handed over",
        "queued",
        "cancelled",
        "failed",
        "succeeded",
        "succeeded",
    ]
    evil = outcome.rows[3]
    assert evil["error"] == (
        "ValueError: \\x1b]0;owned\\x07 \\x1b[31mred [bold]b[/bold] \\u202eevil \\x9b2J"
    )
    assert evil["progress"] == "0.250"
    assert evil["attempt"] == "2"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--status", "failed"), ["evil"]),
        (("-s", "succeeded"), ["good", "old"]),
        (("--task", "shop:queued"), ["queued"]),
        (("--text", "OWNED"), ["evil"]),
        (("--text", "two", "--status", "cancelled"), ["cancelled"]),
        (("--text", "nothing has this"), []),
    ],
)
def test_list_filters(shop: Journal, options: tuple[str, ...], names: list[str]) -> None:
    outcome = call("--journal", shop.path, "list", *options)
    assert ids(outcome.out) == [shop.ids[name] for name in names]


def test_pages_lead_to_all_jobs(shop: Journal) -> None:
    """What stderr says leads to the next page, and after the last one says nothing."""
    found: list[str] = []
    more: tuple[str, ...] = ()
    for _ in range(4):
        outcome = call("--journal", shop.path, "list", "--limit", "2", *more)
        found += ids(outcome.out)
        if not outcome.err:
            break
        *_, option, after = outcome.err.split()
        more = (option, after)
    assert found == list(shop.ids.values())[::-1]
    assert ids(call("--journal", shop.path, "list", "--limit", "1", "--all").out) == found


def test_list_as_json_is_one_document(shop: Journal) -> None:
    page = call("--journal", shop.path, "--json", "list", "-n", "2").json
    assert [job["id"] for job in page["jobs"]] == [shop.ids["handed"], shop.ids["queued"]]
    assert page["next"] == shop.ids["queued"]
    rest = call("--journal", shop.path, "list", "--json", "--after", page["next"]).json
    assert [job["task"] for job in rest["jobs"]] == [
        "shop:cancelled",
        "shop:evil",
        "shop:good",
        "shop:old",
    ]
    assert rest["next"] is None
    none = call("--journal", shop.path, "list", "--json", "--task", "none").json
    assert none == {"jobs": [], "next": None}


def test_json_is_plain_ascii(shop: Journal) -> None:
    """It may be looked at in a terminal, too; what a task said is data there as well."""
    outcome = call("--journal", shop.path, "list", "--json")
    assert outcome.out.isascii()
    assert not set(outcome.out) & {chr(n) for n in (*range(10), *range(11, 32), 127)}
    assert [job["error"] for job in outcome.json["jobs"]][3] == EVIL


def test_show_tells_everything(shop: Journal) -> None:
    """Arguments by position, as the task is not declared here; attempts, traceback, logs."""
    outcome = call("--journal", shop.path, "show", "--utc", shop.ids["evil"])
    assert outcome.code == 0
    for line in (
        "  status       failed",
        "  request      POST /orders/\\x1b[2J",
        "  request id   req-1",
        "  took         1.2 s",
        "  message      half \\x1b[2J",
        "  1 = 1",
        '  2 = "two"',
        "  three = [3]",
        "  2030-01-02 03:04:05.000+00:00 WARNING shop: odd \\x1b[2J",
    ):
        assert line in outcome.out.splitlines()
    assert "25%" in outcome.out
    assert "Traceback\n  Traceback:\n    line\n  ValueError: \\x1b]0;owned" in outcome.out
    assert "\x1b" not in outcome.out
    details = call("--journal", shop.path, "show", "--json", shop.ids["evil"]).json
    assert details["job"]["error"] == EVIL
    assert [one["value"] for one in details["arguments"]] == ["1", '"two"', "[3]"]


def test_show_tells_the_result(shop: Journal) -> None:
    outcome = call("--journal", shop.path, "show", shop.ids["good"])
    assert 'Result\n  {\n    "total": 12\n  }\n' in outcome.out


def test_beginning_of_an_id_is_enough(shop: Journal) -> None:
    """If there is one job only whose id begins so."""
    evil, good = shop.ids["evil"], shop.ids["good"]
    common = next(evil[:n] for n in range(32, 0, -1) if good.startswith(evil[:n]))
    others = [job for job in shop.ids.values() if job != evil]
    short = next(evil[:n] for n in range(32) if not any(o.startswith(evil[:n]) for o in others))
    assert evil in call("--journal", shop.path, "show", short.upper()).out
    several = call("--journal", shop.path, "show", common)
    assert several.code == 1
    assert evil in several.err
    assert good in several.err
    for typed in ("fff", "", "g", "\x1b[2J", evil[:-1] + "0" * 20):
        none = call("--journal", shop.path, "show", typed)
        assert none.code == 1
        assert none.out == ""
        assert "\x1b" not in none.err


def test_stats_count_and_time(shop: Journal) -> None:
    outcome = call("--journal", shop.path, "stats")
    lines = [line.split() for line in outcome.out.splitlines()]
    for expected in (["queued", "1"], ["failed", "1"], ["handed", "over", "1"], ["succeeded", "2"]):
        assert expected in lines
    assert "none has the journal open" in outcome.out
    overview = call("--journal", shop.path, "stats", "--since", "60d", "--json").json
    assert overview["counts"]["succeeded"] == 2
    assert sum(task["succeeded"] for task in overview["tasks"]) == 2
    assert {task["task"] for task in overview["tasks"]} >= {"shop:old", "shop:good"}


@pytest.mark.parametrize("since", ["never", "0", "0.5s"])
def test_stats_refuse_what_is_no_span(shop: Journal, since: str) -> None:
    outcome = call("--journal", shop.path, "stats", "--since", since)
    assert outcome.code == 2
    assert since in outcome.err


def test_options_stand_before_the_command_after_it_or_in_the_environment(shop: Journal) -> None:
    """The one after the command counts, then the one before, then the environment."""
    other = {"ASGI_BG_JOURNAL": "/nowhere"}
    assert call("list", "--journal", shop.path, env=other).code == 0
    assert call("--journal", "/nowhere", "list", "--journal", shop.path).code == 0
    assert call("--journal", shop.path, "list", env=other).code == 0
    assert call("list", env={"ASGI_BG_JOURNAL": shop.path}).code == 0
    nothing = call("list")
    assert nothing.code == 2
    assert "ASGI_BG_JOURNAL" in nothing.err


def test_sealed_jobs_need_their_key(tmp_path: Path) -> None:
    """From a file or the environment; no message says anything of a key (J10)."""
    key = base64.b64encode(b"k" * 32).decode()
    other = base64.b64encode(b"o" * 32).decode()
    shop = Journal(tmp_path / "sealed.db", keys=(b"k" * 32,))
    file = tmp_path / "keys"
    file.write_text(f"{other}\n\n{key}\n")
    assert call("--journal", shop.path, "--key-file", str(file), "show", shop.ids["good"]).code == 0
    given = {"ASGI_BG_KEYS": f"{other},{key}"}
    found = call("--journal", shop.path, "list", "--text", "x", env=given)
    assert found.code == 0
    for wrong in ({}, {"ASGI_BG_KEYS": other}):
        outcome = call("--journal", shop.path, "show", shop.ids["evil"], env=wrong)
        assert outcome.code == 3
        assert "--key-file" in outcome.err


@pytest.mark.parametrize("text", ["", "secret!", "c2hvcnQ=", "\udcff"])
def test_what_is_no_key_is_refused_and_not_repeated(
    shop: Journal, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    outcome = call("--journal", shop.path, "--key-file", str(file), "list")
    assert outcome.code == 2
    assert not text or text not in outcome.err


def test_missing_key_file_is_told(shop: Journal, tmp_path: Path) -> None:
    outcome = call("--journal", shop.path, "--key-file", str(tmp_path / "none"), "list")
    assert outcome.code == 2
    assert "No such file" in outcome.err


def test_help_needs_no_journal() -> None:
    for args in ((), ("--help",), ("list", "-h"), ("--version",)):
        outcome = call(*args)
        assert outcome.code == (0 if args else 2)
    assert "Exit codes" in call("--help").out
