"""``python -m asgi_bg`` is the command ``asgi-bg``."""

from __future__ import annotations

import sys

try:
    from asgi_bg.cli import main
except ImportError as exc:
    sys.exit(f"asgi-bg: {exc}")

if __name__ == "__main__":
    main()
