"""The audit itself: it finds what must not be, and nothing else."""

from __future__ import annotations

import pytest

from tests.crash.audit import Evidence, Figures, Row, audit, table

JOB = "0" * 31 + "a"
OTHER = "0" * 31 + "b"
DONE = Row("succeeded", 1, 0)


def _audit(record: str, **evidence: object) -> Figures:
    lines = [line.strip().replace("JOB", JOB).replace("OTHER", OTHER) for line in record.split(";")]
    values: dict[str, object] = {"accepted": {1: JOB}, "rows": {JOB: DONE}, **evidence}
    return audit(Evidence(lines=[line for line in lines if line], **values))  # type: ignore[arg-type]


def test_job_that_ran_once_is_fine() -> None:
    figures = _audit("born p 1; start 1 JOB 1 p 1.0; end 1 JOB 1 p 2.0; noted JOB 1 p 2.5")
    assert (figures.violations, figures.run, figures.accepted) == ([], 1, 1)
    assert figures.gap_most == 0.5


def test_job_that_was_running_in_a_process_that_died_may_run_again() -> None:
    figures = _audit(
        "start 1 JOB 1 p 1.0; kill p; dead p; start 1 JOB 2 q 3.0; end 1 JOB 2 q 4.0",
        rows={JOB: Row("succeeded", 2, 1)},
    )
    assert (figures.violations, figures.again, figures.kills) == ([], 1, 1)


def test_job_that_was_cancelled_by_a_shutdown_may_run_again() -> None:
    figures = _audit(
        "start 1 JOB 1 p 1.0; cancelled 1 JOB 1 p 2.0; start 1 JOB 2 q 3.0; end 1 JOB 2 q 4.0",
        rows={JOB: Row("succeeded", 2, 0)},
    )
    assert (figures.violations, figures.again, figures.kills) == ([], 1, 0)


def test_job_that_ended_just_before_the_kill_is_counted() -> None:
    figures = _audit(
        "start 1 JOB 1 p 1.0; end 1 JOB 1 p 2.0; kill p; start 1 JOB 2 q 3.0; end 1 JOB 2 q 4.0",
        rows={JOB: Row("succeeded", 2, 1)},
    )
    assert (figures.again, figures.again_in_gap, figures.again_noted) == (1, 1, 0)


def test_poisonous_job_is_counted_and_not_lost() -> None:
    figures = _audit(
        "start 1 JOB 1 p 1; dying p poison; start 1 JOB 2 q 2; dying q poison;"
        "start 1 JOB 3 r 3; dying r poison",
        rows={JOB: Row("failed", 3, 3, "died")},
    )
    assert (figures.violations, figures.poisonous, figures.lost, figures.kills) == ([], 1, 0, 3)


ONCE = "start 1 JOB 1 p 1.0; end 1 JOB 1 p 2.0; noted JOB 1 p 2.0;"


@pytest.mark.parametrize(
    ("record", "evidence", "words"),
    [
        ("born p 1", {"rows": {}}, "its job is lost"),
        ("start 1 JOB 1 p 1.0; kill p", {"rows": {JOB: Row("queued", 1, 0)}}, "is lost"),
        ("start 1 JOB 1 p 1.0; kill p", {"rows": {JOB: Row("queued", 1, 0)}}, "is queued"),
        ("start 1 JOB 1 p 1.0", {}, "attempt 1, which did not end"),
        (ONCE, {"rows": {JOB: Row("failed", 1, 0, "why")}}, "failed without a reason: why"),
        (ONCE, {"rows": {}}, "the journal does not know"),
        (ONCE + "kill p; start 1 JOB 2 q 3.0; end 1 JOB 2 q 4.0", {}, "knew of its end"),
        ("start 1 JOB 1 p 1.0; start 1 JOB 2 q 2.0; kill p", {}, "while the process that ran it"),
        (
            "start 1 JOB 1 p 1.0; kill p; start 1 JOB 2 q 2.0; end 1 JOB 1 p 3.0",
            {},
            "that ran it yet worked",
        ),
        ("start 1 JOB 1 p 1.0; kill p; start 1 JOB 1 q 2.0", {}, "not a higher number"),
        (ONCE + "start 2 JOB 2 p 3.0", {}, "with the number of another request"),
        (ONCE, {"accepted": {2: JOB}}, "the id of another one's job"),
        (ONCE + "start 1 OTHER 1 p 3.0", {}, "has two jobs"),
        (ONCE, {"accepted": {}, "refused": {1}}, "was refused, and its job runs"),
        ("start -1 OTHER 1 p 0.5;" + ONCE, {}, "began before the end of"),
        (
            "child c p; start 1 JOB 1 c 1.0; kill p; start 1 JOB 2 q 2.0; end 1 JOB 1 c 3.0",
            {},
            "that ran it yet worked",
        ),
        (
            "start 1 JOB 1 p 1; end 1 JOB 1 p 2; end 2 OTHER 1 p 3.1; kill p; start 1 JOB 2 q 4",
            {},
            "had ended long before",
        ),
        ("end 1 JOB 1 p 1.0", {}, "an end without a start"),
    ],
)
def test_broken_promise_is_found(record: str, evidence: dict[str, object], words: str) -> None:
    figures = _audit(record, **evidence)
    assert any(words in violation for violation in figures.violations), figures.violations


def test_figures_add_up() -> None:
    one = _audit(ONCE)
    both = one + Figures(kills=2, run=3, gap_most=0.5, violations=["bad"])
    assert (both.kills, both.run, both.gap_most, both.violations) == (2, 4, 0.5, ["bad"])
    assert "lost                                                0" in table(both)
