"""Whether and when to try again: functions of numbers and values, without a clock."""

from __future__ import annotations

from asgi_bg._job import Failed, Retry
from asgi_bg._options import Options


def backoff(attempt: int, *, base: float, cap: float, draw: float) -> float:
    """Return how many seconds to wait after a failed attempt.

    Exponential with full jitter: a random share of ``base * 2 ** (attempt - 1)``, at most
    ``cap``. The source is Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015.

    Args:
        attempt: The number of the attempt that failed, from 1.
        base: The longest wait after the first attempt, in seconds.
        cap: The longest wait ever, in seconds.
        draw: A random number in [0, 1).
    """
    # 2.0 ** 1024 overflows; beyond 2 ** 64 every sensible cap has long been reached.
    return draw * min(cap, base * 2.0 ** min(attempt - 1, 64))


def judge(failure: Failed, attempt: int, options: Options, draw: float) -> Failed | Retry:
    """Return the failure, or that the job is to be tried again.

    Args:
        failure: What the attempt failed with.
        attempt: Its number, from 1.
        options: The task's.
        draw: A random number in [0, 1).
    """
    if attempt > options.retries or not isinstance(failure.exception, options.retry_on):
        return failure
    delay = backoff(attempt, base=options.retry_delay, cap=options.retry_max_delay, draw=draw)
    return Retry(delay, failure)
