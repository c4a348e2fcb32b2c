"""The limits of a runner."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """What bounds the jobs of a runner; explained at `Runner`."""

    max_jobs: int
    max_processes: int | None
    max_queued: int
    timeout: float | None
    ordered: bool
