"""The command ``asgi-bg``: look at a journal, and put things right, from a terminal (W3).

Needs the extra ``asgi_bg[cli]``.
"""

from __future__ import annotations

import sys

from asgi_bg.cli._exits import INTERRUPTED

try:
    from asgi_bg.cli._app import main
except ModuleNotFoundError as exc:
    if exc.name not in ("rich", "typer"):
        raise
    raise ImportError(
        "the command asgi-bg needs typer and rich; install them with: pip install 'asgi_bg[cli]'"
    ) from exc
except KeyboardInterrupt:  # loading takes a moment
    sys.exit(INTERRUPTED)

__all__ = ["main"]
