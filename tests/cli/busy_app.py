"""An app that adds jobs as fast as it can, until its input ends; then it tells what it did."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter

from asgi_bg import Runner, task

ADDERS = 20

ran: Counter[int] = Counter()
failed: Counter[int] = Counter()


@task
async def good(number: int) -> int:
    ran[number] += 1
    return number


@task
async def bad(number: int) -> None:
    failed[number] += 1
    raise ValueError(f"bad luck {number}")


async def main(path: str) -> None:
    slowest = 0.0
    added: list[int] = []
    numbers = iter(range(10**9))
    is_over = asyncio.Event()

    async def add() -> None:
        nonlocal slowest
        while not is_over.is_set():
            number = next(numbers)
            begun = time.perf_counter()
            # Every twentieth fails.
            await runner.add_task(good if number % 20 else bad, number)
            slowest = max(slowest, time.perf_counter() - begun)
            added.append(number)

    async with Runner(journal=path) as runner:
        adders = [asyncio.create_task(add()) for _ in range(ADDERS)]
        print("ready", flush=True)
        begun = time.perf_counter()
        await asyncio.to_thread(sys.stdin.read)
        is_over.set()
        await asyncio.gather(*adders)
        seconds = time.perf_counter() - begun
        await runner.drain()
    print(
        json.dumps(
            {
                "added": len(added),
                "seconds": seconds,
                "slowest": slowest,
                "not_run": [n for n in added if not ran[n] and not failed[n]],
                "run_twice": [n for n in ran if ran[n] > 1],
                "failures": sum(failed.values()),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    import logging

    logging.disable()
    asyncio.run(main(sys.argv[1]))
