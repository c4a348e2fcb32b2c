"""The jobs that this process knows: all unfinished ones, and the last finished."""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Iterator
from weakref import WeakValueDictionary

from asgi_bg._job import JobStatus
from asgi_bg._record import JobRecord
from asgi_bg.exceptions import JobNotFound


class Registry:
    """Finds jobs by id and by key, and forgets finished ones beyond ``history``.

    Attributes:
        unfinished: The jobs that have not ended, in the order admitted; a dictionary, as it
            keeps that order and forgets in constant time, from any thread.
        finished: The last ones that have, in the order they did.
        ended: How many ever have, by how.
        handed_over: How many were handed over to an engine.
    """

    def __init__(self, history: int) -> None:
        self._history = history
        self.unfinished: dict[JobRecord, None] = {}
        self.finished: deque[JobRecord] = deque(maxlen=history)
        self._named: WeakValueDictionary[str, JobRecord] = WeakValueDictionary()
        self._keys: WeakValueDictionary[str, JobRecord] = WeakValueDictionary()
        self._lock = threading.Lock()
        self.handed_over = 0
        self.ended = {status: 0 for status in JobStatus if status.is_final}

    def hold_key(self, key: str, record: JobRecord) -> JobRecord:
        """Give a key to a new job; return it, or the job that has the key already (J6)."""
        with self._lock:
            return self._keys.setdefault(key, record)

    def free_key(self, record: JobRecord) -> None:
        """Take the key of a job away, if it has one, so that another may have it."""
        key = record.task.options.key
        if key is not None:
            with self._lock:
                if self._keys.get(key) is record:
                    del self._keys[key]

    def name(self, record: JobRecord) -> None:
        """Make a job known by its id."""
        self._named[record.id] = record

    def finish(self, record: JobRecord) -> None:
        """Count a job among the finished ones, and forget the oldest of them."""
        self.unfinished.pop(record, None)
        if record.kept is None:  # of the others, the journal knows more and for longer
            self.finished.append(record)
        self.ended[record.status] += 1

    def reopen(self, record: JobRecord) -> None:
        """Count a finished job among the unfinished ones again."""
        with contextlib.suppress(ValueError):  # forgotten by now, but somebody keeps it
            self.finished.remove(record)
        self.ended[record.status] -= 1
        self.unfinished[record] = None

    def known(self, id: str) -> JobRecord | None:
        """Return the record of that id, if somebody still has it."""
        return self._named.get(id)

    def get(self, id: str) -> JobRecord:
        """Return a job by its id.

        Raises:
            JobNotFound: There is none, or it was finished and is forgotten.
        """
        try:
            return self._named[id]
        except KeyError:
            raise JobNotFound(
                f"no job {id!r} is known to this runner; it remembers unfinished jobs and the "
                f"last {self._history} finished ones (history=)"
            ) from None

    def newest(
        self, status: JobStatus | None, task: str | None, after: str | None, limit: int
    ) -> list[JobRecord]:
        """The newest jobs of that status and task that are older than the job ``after``."""

        def matching() -> Iterator[JobRecord]:
            for record in (*self.finished, *self.unfinished):
                if (
                    (status is None or record.status is status)
                    and (task is None or record.task_name == task)
                    and (after is None or record.id < after)
                ):
                    yield record

        return heapq.nlargest(limit, matching(), key=lambda record: record.id)

    def purge(self, status: JobStatus | None, before: float) -> int:
        """Forget finished jobs of that status that ended before that instant; count them."""
        doomed = [
            record
            for record in self.finished
            if (status is None or record.status is status)
            and (record.finished_at is None or record.finished_at <= before)
        ]
        gone = set(doomed)
        self.finished = deque(
            (record for record in self.finished if record not in gone), maxlen=self._history
        )
        for record in doomed:
            self._named.pop(record.id, None)
            self.free_key(record)
        return len(doomed)
