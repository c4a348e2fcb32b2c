"""What must hold of the record and the journal, however often processes were killed.

A pure function over the evidence, so that it can itself be tested.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

CRASH_LIMIT = 3
"""Running in so many processes that died fails a job (J5)."""

GAP_LIMIT = 1.0
"""For how many seconds a process may go on after the end of a task, and die with that untold."""

SHOWN = 10
"""How many violations are printed in full."""


@dataclass(frozen=True)
class Row:
    """A job as the journal has it in the end."""

    status: str
    attempt: int
    crashes: int
    error: str | None = None


@dataclass
class Evidence:
    """All that is known of what happened.

    Attributes:
        lines: The record, see `tests.crash.app`; and ``kill PROCESS`` before the harness
            kills a process (``kill-group GROUP`` for all of a group, ``end-group GROUP`` where
            they are asked to end), ``dead PROCESS`` after it has seen that it is dead.
        accepted: The job's id by its number, where the client saw all of a response of
            status 200. The number of a request's second job, its follower, is negative.
        refused: The numbers of requests that got a whole response of another status.
        unanswered: The numbers of requests whose response did not arrive.
        rows: What the journal has, by id.
    """

    lines: list[str] = field(default_factory=list)
    accepted: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    unanswered: set[int] = field(default_factory=set)
    rows: Mapping[str, Row] = field(default_factory=dict)


@dataclass
class Figures:
    """What an audit found; can be added up.

    Attributes:
        kills: Processes that were killed, or killed themselves.
        sent: Requests that were sent.
        accepted: Those whose client saw all of a response of status 200.
        unanswered: Those whose response did not arrive.
        run: Jobs that have run to their end.
        lost: Accepted jobs that have not, and were not failed as poisonous.
        poisonous: Jobs that were failed for running in three processes that died.
        again: Starts of jobs that had been started before.
        again_in_gap: Those whose task had returned, and whose process was killed before
            the journal was told; their end is to be found in the record, if little else.
        again_noted: Those whose end the journal had been told of.
        overlapping: Those while the process of the start before lived.
        violations: What must not be, in words.
        gap_total, gap_count, gap_most: How long it took from the end of a task until
            the journal was told: the sum, how often, the most; in seconds.
    """

    kills: int = 0
    sent: int = 0
    accepted: int = 0
    unanswered: int = 0
    run: int = 0
    lost: int = 0
    poisonous: int = 0
    again: int = 0
    again_in_gap: int = 0
    again_noted: int = 0
    overlapping: int = 0
    gap_total: float = 0.0
    gap_count: int = 0
    gap_most: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __add__(self, other: Figures) -> Figures:
        added = {
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)
        }
        return Figures(**{**added, "gap_most": max(self.gap_most, other.gap_most)})

    def report(self) -> str:
        """The violations in words."""
        count = len(self.violations)
        shown = "\n\n".join(self.violations[:SHOWN])
        return f"{count} violations; the first of them:\n\n{shown}"


@dataclass
class _Attempt:
    number: int
    process: str
    started: int  # these are places in the record
    ended: int | None = None
    noted: int | None = None
    cancelled: int | None = None
    ended_at: float = 0.0


class _Audit:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        requests = {abs(number) for number in evidence.accepted}
        self.figures = Figures(
            accepted=len(requests),
            unanswered=len(evidence.unanswered),
            sent=len(requests) + len(evidence.unanswered) + len(evidence.refused),
        )
        self._attempts: dict[str, list[_Attempt]] = defaultdict(list)
        self._numbers: dict[str, int] = {}
        self._deaths: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._last_at: dict[str, float] = {}
        self._parents: dict[str, str] = {}
        self._groups: dict[str, str] = {}
        self._read()

    def _read(self) -> None:
        for place, line in enumerate(self._evidence.lines):
            word, *rest = line.split()
            if word in ("kill", "dying", "dead"):
                # The first of them: from there on its jobs may be started elsewhere.
                if self._deaths.setdefault(rest[0], place) == place and word != "dead":
                    self.figures.kills += 1
            elif word in ("kill-group", "end-group"):
                self._deaths.setdefault(rest[0], place)
            elif word == "born":
                self._last[rest[0]] = place
                self._groups[rest[0]] = rest[1]
            elif word == "child":
                self._last[rest[0]] = place
                self._parents[rest[0]] = rest[1]
            elif word == "noted":
                self._read_note(place, *rest)
            else:
                self._read_task(place, word, *rest)

    def _read_task(
        self, place: int, word: str, number: str, job: str, attempt: str, process: str, at: str
    ) -> None:
        self._last[process], self._last_at[process] = place, float(at)
        if self._numbers.setdefault(job, int(number)) != int(number):
            self._violated(job, "the job runs with the number of another request")
        if word == "start":
            self._attempts[job].append(_Attempt(int(attempt), process, place))
            return
        for found in self._attempts[job]:
            if (found.number, found.process) == (int(attempt), process) and found.ended is None:
                if word == "end":
                    found.ended, found.ended_at = place, float(at)
                else:
                    found.cancelled = place
                return
        self._violated(job, f"an {word} without a start")

    def _read_note(self, place: int, job: str, attempt: str, process: str, at: str) -> None:
        self._last[process], self._last_at[process] = place, float(at)
        for found in self._attempts[job]:
            runner = self._parents.get(found.process, found.process)
            if (found.number, runner) == (int(attempt), process):
                found.noted = place
                if found.ended is not None:
                    gap = float(at) - found.ended_at
                    self.figures.gap_total += gap
                    self.figures.gap_count += 1
                    self.figures.gap_most = max(self.figures.gap_most, gap)

    # What must hold.

    def check(self) -> Figures:
        self._jobs = {number: job for job, number in self._numbers.items()}
        for job, attempts in self._attempts.items():
            self._check_attempts(job, attempts)
            self._check_order(job, attempts)
        for job, row in self._evidence.rows.items():
            self._check_row(job, row)
        for job in self._attempts.keys() - self._evidence.rows.keys():
            self._violated(job, "a job ran that the journal does not know")
        self._check_requests()
        return self.figures

    def _check_attempts(self, job: str, attempts: list[_Attempt]) -> None:
        self.figures.run += any(attempt.ended is not None for attempt in attempts)
        for former, latter in itertools.pairwise(attempts):
            self.figures.again += 1
            if latter.number <= former.number:
                self._violated(job, "an attempt has not a higher number than the one before")
            if former.noted is not None and former.noted < latter.started:
                self.figures.again_noted += 1
                self._violated(job, "started again though the journal knew of its end")
            elif former.ended is not None and former.ended < latter.started:
                self.figures.again_in_gap += 1
                runner = self._parents.get(former.process, former.process)
                if self._last_at.get(runner, 0.0) > former.ended_at + GAP_LIMIT:
                    self._violated(job, "started again though it had ended long before")
            death = self._death_of(former.process)
            if former.cancelled is not None and former.cancelled < latter.started:
                continue  # given up by a process that shut down
            if death is None or death > latter.started:
                self.figures.overlapping += 1
                self._violated(job, "started again while the process that ran it lived")
            elif self._last[former.process] > latter.started:
                self.figures.overlapping += 1
                self._violated(job, "started again while the process that ran it yet worked")

    def _death_of(self, process: str) -> int | None:
        """Where in the record a process came to its end, or whom it worked for, or its group."""
        parent = self._parents.get(process, process)
        names = (process, parent, self._groups.get(parent, ""))
        found = [self._deaths.get(name) for name in names]
        return min((place for place in found if place is not None), default=None)

    def _check_order(self, job: str, attempts: list[_Attempt]) -> None:
        """Check that a follower began only when the job before it had ended (R2)."""
        former = self._jobs.get(-self._numbers[job])
        if self._numbers[job] >= 0 or former is None:
            return
        ends = [one.ended for one in self._attempts[former] if one.ended is not None]
        if not ends or min(ends) > attempts[0].started:
            self._violated(job, f"a follower that began before the end of {former}")

    def _check_row(self, job: str, row: Row) -> None:
        attempts = self._attempts.get(job, [])
        cut_off = sum(attempt.ended is None for attempt in attempts)
        if row.status == "succeeded":
            if not any(one.ended is not None and one.number == row.attempt for one in attempts):
                self._violated(job, f"succeeded in attempt {row.attempt}, which did not end")
        elif row.status == "failed":
            if row.crashes >= CRASH_LIMIT and cut_off >= CRASH_LIMIT:
                self.figures.poisonous += 1
            else:
                self._violated(job, f"failed without a reason: {row.error}")
        else:
            self._violated(job, f"the journal is finished, and this job is {row.status}")

    def _check_requests(self) -> None:
        rows = self._evidence.rows
        for number, job in self._evidence.accepted.items():
            row = rows.get(job)
            is_run = any(one.ended is not None for one in self._attempts.get(job, ()))
            is_poisonous = row is not None and row.status == "failed"
            if not is_run and not is_poisonous:
                self.figures.lost += 1
                self._violated(job, f"request {number} was answered, and its job is lost")
            elif is_run and self._numbers[job] != number:
                self._violated(job, f"request {number} was told the id of another one's job")
        jobs_of: dict[int, str] = {}
        for job, number in self._numbers.items():
            if jobs_of.setdefault(number, job) != job:
                self._violated(job, f"request {number} has two jobs, {jobs_of[number]} too")
            if abs(number) in self._evidence.refused:
                self._violated(job, f"request {number} was refused, and its job runs")

    def _violated(self, job: str, what: str) -> None:
        """Note a violation, with the lines of the job and of the processes that had it."""
        processes = {attempt.process for attempt in self._attempts.get(job, ())}
        story = [
            f"{place:>8}  {line}"
            for place, line in enumerate(self._evidence.lines)
            if job in line or (_is_life(line) and processes.intersection(line.split()))
        ][:60]
        row = self._evidence.rows.get(job)
        accepted = [n for n, found in self._evidence.accepted.items() if found == job]
        self.figures.violations.append(
            f"job {job}: {what}\n  the journal: {row}\n  answered: {accepted or 'no'}\n"
            + "\n".join(story if len(self.figures.violations) < SHOWN else [])
        )


def _is_life(line: str) -> bool:
    return line.startswith(("born ", "child ", "kill ", "dying ", "dead "))


def audit(evidence: Evidence) -> Figures:
    """Compare what happened with what was promised (J3 to J5)."""
    return _Audit(evidence).check()


def table(figures: Figures) -> str:
    """The figures, one a line."""
    mean = figures.gap_total / figures.gap_count if figures.gap_count else 0.0
    rows: Iterable[tuple[str, object]] = (
        ("kills", figures.kills),
        ("requests", figures.sent),
        ("accepted", figures.accepted),
        ("unanswered", figures.unanswered),
        ("run", figures.run),
        ("lost", figures.lost),
        ("failed as poisonous", figures.poisonous),
        ("run again", figures.again),
        ("run again though its end was noted", figures.again_noted),
        ("run again, killed between end and note", figures.again_in_gap),
        ("run again while still running", figures.overlapping),
        ("from end to note, mean", f"{mean * 1e6:,.0f} µs"),
        ("from end to note, most", f"{figures.gap_most * 1e6:,.0f} µs"),
        ("violations", len(figures.violations)),
    )
    return "\n".join(
        f"{name:<40} {value:>12,}" if isinstance(value, int) else f"{name:<40} {value:>12}"
        for name, value in rows
    )
