"""The functions of ARQ's workers, among them those for tasks that are declared later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from arq.worker import Function, func

from asgi_bg._task import Task, declared_task
from asgi_bg.engines._arq_worker import Functions
from asgi_bg.exceptions import EngineError

__all__ = ["Roster"]

NO_LIMIT = 10.0 * 365 * 86400
"""How many seconds ARQ gives an attempt of ours: its time limit is the runner's to keep."""


class Roster(Sequence[Function]):
    """The functions of ARQ workers: the user's own, and one for each declared task.

    It grows while tasks are declared. Each worker that goes through it gets functions of its
    own for those, as a limit is put on them before and another one after it was made.

    Args:
        functions: Makes them.
        own: Functions of ARQ's own.
        limit: How many seconds an attempt may take, of tasks that do not say; None for any.
    """

    def __init__(self, functions: Functions, own: Sequence[Any], limit: float | None) -> None:
        self._functions = functions
        self._own = [func(each) for each in own]
        self._limit = limit
        self._names: dict[str, None] = {}
        self._made: list[Function] = []

    def add(self, task: Task[..., Any]) -> None:
        """Take a declared task in.

        Raises:
            EngineError: A function of ARQ's own has its name.
        """
        if any(own.name == task.name for own in self._own):
            raise EngineError(
                f"the worker has an ARQ function called {task.name!r} already; "
                "give the declared task another name"
            )
        self._names[task.name] = None

    def __iter__(self) -> Iterator[Function]:
        yield from self._own
        for name in self._names:
            self._made.append(self._functions.of(name))
            yield self._made[-1]

    def __len__(self) -> int:
        return len(self._own) + len(self._names)

    @overload
    def __getitem__(self, index: int) -> Function: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Function]: ...
    def __getitem__(self, index: int | slice) -> Function | Sequence[Function]:
        return list(self)[index]

    def lift_limits(self) -> None:
        """Take ARQ's time limit off the jobs of declared tasks.

        ARQ takes the longest limit of all functions for how long a job counts as running, so
        this is for when a worker has done that.
        """
        made, self._made = self._made, []
        for function in made:
            self._lift_limit(function)

    def late(self, name: str) -> Function:
        """Return the function for a task that was declared when the worker had been made.

        Raises:
            KeyError: There is none of that name.
        """
        if name not in self._names:
            raise KeyError(name)
        function = self._functions.of(name)
        self._lift_limit(function)
        return function

    def _lift_limit(self, function: Function) -> None:
        task = declared_task(function.name)
        has_own = task is not None and task.options.timeout is not None
        function.timeout_s = NO_LIMIT if has_own or self._limit is None else self._limit
