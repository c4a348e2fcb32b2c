"""Measures what ``import asgi_bg`` takes, and looks what it brings along."""

from __future__ import annotations

import subprocess
import sys

BASE = "asyncio, anyio"
FRAMEWORKS = (
    *("starlette", "fastapi", "django", "litestar", "quart", "flask", "aiohttp", "sanic"),
    *("uvicorn", "uvloop", "pydantic"),
)

_TIMED = "from time import perf_counter; t = perf_counter(); import {}; print(perf_counter() - t)"
_BROUGHT = "import sys, asgi_bg; print(*(name for name in {!r} if name in sys.modules))"


def measure(runs: int) -> float:
    """Return the milliseconds that it takes beyond asyncio and anyio, best of the runs."""
    base: list[float] = []
    ours: list[float] = []
    for _ in range(runs):
        base.append(float(_python(_TIMED.format(BASE))))
        ours.append(float(_python(_TIMED.format(f"{BASE}, asgi_bg"))))
    return (min(ours) - min(base)) * 1e3


def frameworks() -> list[str]:
    """Return which frameworks the import brings along; it should be none."""
    return _python(_BROUGHT.format(FRAMEWORKS)).split()


def _python(code: str) -> str:
    return subprocess.run(
        (sys.executable, "-c", code), check=True, capture_output=True, text=True
    ).stdout
