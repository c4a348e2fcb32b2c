"""The jobs that this process knows: all unfinished ones, and the last finished."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Iterator

from asgi_bg._job import JobRecord, JobStatus
from asgi_bg.exceptions import JobNotFound


class Registry:
    """Finds jobs by id and by key, and forgets finished ones beyond ``history``."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._jobs: dict[str, JobRecord] = {}
        self._finished: deque[JobRecord] = deque()
        self._keys: dict[str, JobRecord] = {}
        self._lock = threading.Lock()
        self.ended = {status: 0 for status in JobStatus if status.is_final}

    def add(self, record: JobRecord) -> JobRecord:
        """Remember a new job; return it, or the one that has its key already (J6)."""
        key = record.task.options.key
        if key is not None:
            with self._lock:
                holder = self._keys.setdefault(key, record)
            if holder is not record:
                return holder
        self._jobs[record.id] = record
        return record

    def finish(self, record: JobRecord) -> None:
        """Note that a job has ended, and forget the oldest that has, if there are too many."""
        with self._lock:
            self.ended[record.status] += 1
            self._finished.append(record)
            forgotten = self._finished.popleft() if len(self._finished) > self._history else None
        if forgotten is not None:
            self._forget(forgotten)

    def reopen(self, record: JobRecord) -> None:
        """Count a finished job among the unfinished ones again."""
        with self._lock:
            self._finished.remove(record)
            self.ended[record.status] -= 1

    def discard(self, record: JobRecord) -> None:
        """Forget a job that never was one."""
        self._forget(record)

    def _forget(self, record: JobRecord) -> None:
        self._jobs.pop(record.id, None)
        key = record.task.options.key
        if key is not None:
            with self._lock:
                if self._keys.get(key) is record:
                    del self._keys[key]

    def get(self, id: str) -> JobRecord:
        """Return a job by its id.

        Raises:
            JobNotFound: There is none, or it was finished and is forgotten.
        """
        try:
            return self._jobs[id]
        except KeyError:
            raise JobNotFound(
                f"no job {id!r} is known to this runner; it remembers unfinished jobs and the "
                f"last {self._history} finished ones (history=)"
            ) from None

    def unfinished(self) -> list[JobRecord]:
        """All jobs that have not ended, oldest first."""
        return [record for record in list(self._jobs.values()) if not record.status.is_final]

    def newest(
        self, status: JobStatus | None, task: str | None, after: str | None, limit: int
    ) -> list[JobRecord]:
        """The newest jobs of that status and task that are older than the job ``after``."""

        def matching() -> Iterator[JobRecord]:
            for record in list(self._jobs.values()):
                if (
                    (status is None or record.status is status)
                    and (task is None or record.task.name == task)
                    and (after is None or record.id < after)
                ):
                    yield record

        return heapq.nlargest(limit, matching(), key=lambda record: record.id)

    def purge(self, status: JobStatus | None, before: float | None) -> int:
        """Forget finished jobs of that status that ended before that instant; count them."""
        with self._lock:
            doomed = [
                record
                for record in self._finished
                if (status is None or record.status is status)
                and (before is None or (record.finished_at or 0.0) < before)
            ]
            going = {record.id for record in doomed}
            self._finished = deque(r for r in self._finished if r.id not in going)
        for record in doomed:
            self._forget(record)
        return len(doomed)
