"""Following jobs: who waits for changes of them, and the one look that serves all.

A client that follows a job costs an entry in a table, and no thread: while anybody follows,
the runner is asked for all followed jobs at once, a few times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING

from asgi_bg._job import JobInfo
from asgi_bg._types import Receive
from asgi_bg.web._ending import is_server_ending
from asgi_bg.web._state import JobState, facts_of, state_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from asgi_bg._runner import Runner

logger = logging.getLogger("asgi_bg")

LOOK_INTERVAL = 0.2
"""How many seconds lie between two looks at the jobs that are followed."""

ENGINE_INTERVAL = 1.0
"""How many seconds lie between two looks at those that an engine has; it is asked for each."""


class _Followed:
    """A job that somebody follows.

    Attributes:
        id: The job's id.
        followers: Who follows it.
        state: How it stands; None if it is not known (any more), or not yet.
        is_handed_over: Whether an engine has it; None before the first look.
    """

    __slots__ = ("_facts", "_is_missed", "_look", "followers", "id", "is_handed_over", "state")

    def __init__(self, id: str) -> None:
        self.id = id
        self.followers: set[Follower] = set()
        self.state: JobState | None = None
        self.is_handed_over: bool | None = None
        self._facts: tuple[object, ...] = ()
        self._is_missed = False
        self._look = 0

    def see(self, job: JobInfo | None, look: int) -> None:
        """Take in how the job stands, and wake the followers if that is new.

        Args:
            job: It; None if it was not found.
            look: The number of the look that has seen so; what an older one says is not news.
        """
        if look < self._look:
            return
        self._look = look
        if job is None:
            # It may be on its way between two places, so it is gone only at the second look.
            is_new = self._is_missed and self.state is not None
            self._is_missed = True
            if is_new:
                self.state, self._facts = None, ()
        else:
            self._is_missed = False
            self.is_handed_over = job.handed_over_at is not None
            facts = facts_of(job)
            is_new = facts != self._facts
            if is_new:
                self.state, self._facts = state_of(job), facts
        if is_new:
            self.wake()

    def wake(self) -> None:
        for follower in self.followers:
            follower.wake()


class Follower:
    """One client that follows one job; a context manager around its time.

    Args:
        following: Where it belongs.
        id: The job's id.
        receive: The client's connection, which is listened to: `has_left` tells of its end.

    Attributes:
        has_left: Whether the client has disconnected.
    """

    __slots__ = ("_event", "_failure", "_following", "_is_seen", "_job", "_listener", "has_left")

    def __init__(self, following: Following, id: str, receive: Receive) -> None:
        self.has_left = False
        self._following = following
        self._event = asyncio.Event()
        self._is_seen = False
        self._failure: Exception | None = None
        self._job = following.join(self, id)
        self._listener = asyncio.create_task(self._listen(receive))

    @property
    def id(self) -> str:
        """The job's id."""
        return self._job.id

    @property
    def state(self) -> JobState | None:
        """How the job stands; None if it is not known (any more)."""
        return self._job.state

    @property
    def is_over(self) -> bool:
        """Whether there is no use in waiting: the client has left, or the server is ending."""
        return self.has_left or self._following.is_ending

    async def first(self) -> JobState | None:
        """Return how the job stands, by a look that began after this was made.

        Raises:
            JournalError: The journal cannot be read.
        """
        while not self._is_seen and not self.has_left:
            await self._event.wait()
            self._event.clear()
        if self._failure is not None:
            raise self._failure
        return self.state

    async def pause(self, seconds: float) -> bool:
        """Wait until something may be new; False if nothing is after so many seconds."""
        is_late = False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            self._event.set()

        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
        self._event.clear()
        return not is_late

    def wake(self) -> None:
        """End its `pause`."""
        self._event.set()

    def seen(self, failure: Exception | None) -> None:
        """Let `first` go on, now that its look is over."""
        self._is_seen = True
        self._failure = failure
        self._event.set()

    async def _listen(self, receive: Receive) -> None:
        # Where `receive` raises there is nobody to hear us either.
        with contextlib.suppress(Exception):
            while (await receive())["type"] != "http.disconnect":
                pass
        self.has_left = True
        self._event.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.cancel()
        self._following.leave(self, self._job)


class Following:
    """All jobs of a runner that are followed on one event loop.

    Args:
        runner: Who is asked for them.

    Attributes:
        is_ending: Whether the server is about to end, and waits for its clients.
    """

    def __init__(self, runner: Runner) -> None:
        self.is_ending = False
        self._runner = runner
        self._jobs: dict[str, _Followed] = {}
        self._arrived: list[Follower] = []
        self._wanted = asyncio.Event()
        self._looks = 0
        self._is_failing = False
        self._looking: list[asyncio.Task[None]] = []

    @property
    def is_idle(self) -> bool:
        """Whether nobody follows anything."""
        return not self._jobs

    def join(self, follower: Follower, id: str) -> _Followed:
        """Take a follower in, and look for its job soon."""
        job = self._jobs.get(id)
        if job is None:
            job = self._jobs[id] = _Followed(id)
        job.followers.add(follower)
        self._arrived.append(follower)
        self._wanted.set()
        if not self._looking:
            # In contexts of their own, as they belong to none of the requests that they serve.
            loop = asyncio.get_running_loop()
            self._looking = [
                Context().run(loop.create_task, looking)
                for looking in (
                    self._look_for_arrived(),
                    self._look_every(LOOK_INTERVAL, is_handed_over=False),
                    self._look_every(ENGINE_INTERVAL, is_handed_over=True),
                )
            ]
        return job

    def leave(self, follower: Follower, job: _Followed) -> None:
        """Let a follower go; with the last one all looking ends."""
        job.followers.discard(follower)
        if not job.followers:
            del self._jobs[job.id]
        if not self._jobs:
            for looking in self._looking:
                looking.cancel()
            self._looking = []

    # An engine that is away is waited for, so those that follow its jobs wait by themselves.

    async def _look_for_arrived(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._look_at_server()
            arrived, self._arrived = self._arrived, []
            failure = await self._look([follower.id for follower in arrived])
            for follower in arrived:
                follower.seen(failure)

    async def _look_every(self, seconds: float, *, is_handed_over: bool) -> None:
        while True:
            await asyncio.sleep(seconds)
            self._look_at_server()
            wanted = [job.id for job in self._jobs.values() if job.is_handed_over is is_handed_over]
            if wanted:
                await self._look(wanted)

    def _look_at_server(self) -> None:
        self.is_ending = is_server_ending()
        if self.is_ending:
            for job in self._jobs.values():
                job.wake()

    async def _look(self, ids: list[str]) -> Exception | None:
        """See how these jobs stand; return what went wrong."""
        self._looks += 1
        look = self._looks
        try:
            infos = await self._runner.infos(tuple(dict.fromkeys(ids)))
            for job in [self._jobs[id_] for id_ in ids if id_ in self._jobs]:
                job.see(infos.get(job.id), look)
        except Exception as exc:
            # Whatever it is: who knows a state stays with it until the next can be told.
            if not self._is_failing:
                logger.exception("followed jobs cannot be looked up; this is tried again")
            self._is_failing = True
            return exc
        self._is_failing = False
        return None
