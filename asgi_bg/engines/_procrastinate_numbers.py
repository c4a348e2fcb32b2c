"""By which numbers Procrastinate knows our jobs."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from asgi_bg._ids import instant_of
from asgi_bg.engines._procrastinate_line import Line
from asgi_bg.engines._procrastinate_sql import FIND, FIND_ENDED

__all__ = ["Numbers"]

KNOWN = 10_000
"""Of how many jobs the number that Procrastinate knows them by is remembered."""


class Numbers:
    """Finds the numbers of jobs, and remembers some.

    Args:
        line: The way to the tables.

    Attributes:
        known: The numbers of the jobs that were sent or found last, by their ids.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self.known: OrderedDict[str, int] = OrderedDict()

    async def of(self, id: str) -> int | None:
        """Return the number of a job; None if there is no such job."""
        number = self.known.get(id)
        if number is not None or instant_of(id) is None:
            return number
        rows = await self._line.execute_query_all_async(FIND, lock=id)
        if not rows:
            # This reads all jobs, unless the user has made an index for it.
            rows = await self._line.execute_query_all_async(FIND_ENDED, lock=id)
        number = cast("int | None", rows[0]["id"])
        if number is not None:
            self.remember(id, number)
        return number

    def remember(self, id: str, number: int) -> None:
        """Note the number of a job."""
        self.known[id] = number
        while len(self.known) > KNOWN:
            self.known.popitem(last=False)
