"""Who may run now, and who is next: bounds on all jobs and on the jobs of one task (R2)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Generic, Protocol, TypeVar


class Claim(Protocol):
    """Something that wants a slot."""

    @property
    def task_name(self) -> str:
        """Whose bound counts it, besides the bound on all."""
        ...

    @property
    def concurrency(self) -> int | None:
        """The bound on that task, or None."""
        ...

    @property
    def priority(self) -> int:
        """Of waiting claims, the higher go first; then the older."""
        ...

    @property
    def settled(self) -> bool:
        """Whether it has gone elsewhere while it waited."""
        ...


C = TypeVar("C", bound=Claim)


class _Bound(Generic[C]):
    """A number of slots, and the claims that wait for one of them."""

    __slots__ = ("limit", "used", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.waiting: list[tuple[int, int, C]] = []

    @property
    def is_full(self) -> bool:
        return self.used >= self.limit

    def wait(self, claim: C, order: int) -> None:
        heapq.heappush(self.waiting, (-claim.priority, order, claim))

    def next(self) -> tuple[C, int] | None:
        while self.waiting:
            _, order, claim = heapq.heappop(self.waiting)
            if not claim.settled:
                return claim, order
        return None


class Slots(Generic[C]):
    """Hands out ``limit`` slots; ``start`` is called with each claim that gets one."""

    def __init__(self, limit: int, start: Callable[[C], None]) -> None:
        self._start = start
        self._all: _Bound[C] = _Bound(limit)
        self._tasks: dict[str, _Bound[C]] = {}
        self._order = count()

    @property
    def used(self) -> int:
        """How many slots are taken."""
        return self._all.used

    def request(self, claim: C) -> None:
        """Start the claim now, or when its turn comes."""
        self._request(claim, next(self._order))

    def _request(self, claim: C, order: int) -> None:
        bound = self._task_bound(claim)
        if bound is not None and bound.is_full:
            bound.wait(claim, order)
        elif self._all.is_full:
            self._all.wait(claim, order)
        else:
            self._all.used += 1
            if bound is not None:
                bound.used += 1
            self._start(claim)

    def release(self, claim: C) -> None:
        """Take back the slot of a claim that was started."""
        self._all.used -= 1
        if claim.concurrency is not None:
            bound = self._tasks[claim.task_name]
            bound.used -= 1
            waiter = bound.next()
            if waiter is not None:
                self._all.wait(*waiter)
            elif not bound.used:
                del self._tasks[claim.task_name]
        while not self._all.is_full:
            waiter = self._all.next()
            if waiter is None:
                return
            self._request(*waiter)

    def _task_bound(self, claim: C) -> _Bound[C] | None:
        if claim.concurrency is None:
            return None
        bound = self._tasks.get(claim.task_name)
        if bound is None:
            bound = self._tasks[claim.task_name] = _Bound(claim.concurrency)
        return bound
