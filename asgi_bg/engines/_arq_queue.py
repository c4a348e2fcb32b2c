"""ARQ's queues in Redis: many jobs put in at once, one taken out, or looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from arq.connections import ArqRedis
from arq.constants import (
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)
from redis.exceptions import NoScriptError

__all__ = ["Entry", "Look", "enqueue", "look", "withdraw"]


class Entry(NamedTuple):
    """A job on its way into a queue.

    Attributes:
        id: Its id.
        queue: The name of the queue.
        start: When it may start, in milliseconds since the epoch.
        keep: For how many milliseconds it is kept, if no worker takes it.
        data: What ARQ keeps of it.
    """

    id: str
    queue: str
    start: int
    keep: int
    data: bytes


class Look(NamedTuple):
    """What Redis has of a job.

    Attributes:
        result: Its result, as ARQ keeps it; None if it has none.
        is_running: Whether a worker has it.
        data: What ARQ keeps of it; None if it has ended.
        starts: How often it has been started.
    """

    result: bytes | None
    is_running: bool
    data: bytes | None
    starts: int


class Script:
    """A script that Redis runs without anything in between.

    Args:
        source: Its source, in Lua.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        # What Redis itself knows a script by.
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: ArqRedis, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run it, and return what it returns."""
        client: Any = redis
        try:
            return await client.evalsha(self._digest, len(keys), *keys, *arguments)
        except NoScriptError:  # the first time, and after a restart of Redis
            return await client.eval(self._source, len(keys), *keys, *arguments)


# As `ArqRedis.enqueue_job` does it. A job whose queue cannot be written to must not stay
# behind: it would be taken for one that is queued when it is sent again.
_enqueue = Script("""
for i = 1, #KEYS / 3 do
  local job, result, queue = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
  local id, start, keep, data = unpack(ARGV, 4 * i - 3, 4 * i)
  if redis.call('EXISTS', job, result) == 0 then
    redis.call('PSETEX', job, keep, data)
    local added = redis.pcall('ZADD', queue, start, id)
    if type(added) == 'table' and added.err then
      redis.call('DEL', job)
      return added
    end
  end
end
return #KEYS / 3
""")

# As a worker does it with a job that was aborted before its start.
_withdraw = Script("""
local job, in_progress, retry, result = unpack(KEYS, 1, 4)
if redis.call('EXISTS', in_progress) == 1 then
  return 0
end
for i = 5, #KEYS do
  if redis.call('ZREM', KEYS[i], ARGV[1]) == 1 then
    redis.call('DEL', job, retry)
    if ARGV[2] == '' then
      redis.call('SET', result, ARGV[3])
    elseif ARGV[2] ~= '0' then
      redis.call('SET', result, ARGV[3], 'PX', ARGV[2])
    end
    return 1
  end
end
return 0
""")


async def enqueue(redis: ArqRedis, entries: Sequence[Entry]) -> None:
    """Put jobs into their queues; those that ARQ knows already by their id stay as they are."""
    keys: list[str] = []
    arguments: list[str | int | bytes] = []
    for entry in entries:
        keys += (job_key_prefix + entry.id, result_key_prefix + entry.id, entry.queue)
        arguments += (entry.id, entry.start, entry.keep, entry.data)
    await _enqueue.run(redis, keys, arguments)


async def withdraw(
    redis: ArqRedis, id: str, queues: Iterable[str], result: bytes, keep: int | None
) -> bool:
    """Take a job that waits out of its queue; return whether it was in one.

    Args:
        redis: The client.
        id: The job's id.
        queues: The queues that it may be in.
        result: What is to be its result.
        keep: For how many milliseconds that is kept; None for ever.
    """
    prefixes = (job_key_prefix, in_progress_key_prefix, retry_key_prefix, result_key_prefix)
    keys = [*(prefix + id for prefix in prefixes), *queues]
    return bool(await _withdraw.run(redis, keys, (id, "" if keep is None else keep, result)))


async def look(redis: ArqRedis, id: str) -> Look:
    """Return what there is of a job."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.get(result_key_prefix + id)
        pipe.exists(in_progress_key_prefix + id)
        pipe.get(job_key_prefix + id)
        pipe.get(retry_key_prefix + id)
        result, is_running, data, starts = await pipe.execute()
    return Look(result, bool(is_running), data, int(starts or 0))
