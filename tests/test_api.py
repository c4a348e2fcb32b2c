"""The surface of the package cannot change unnoticed."""

from __future__ import annotations

from pathlib import Path

from tests.api_surface import MODULES, surface
from tests.helpers import need

RECORDED = Path(__file__).with_name("api.txt")


def test_surface_is_the_recorded_one() -> None:
    """Adding to it is a minor version, taking away needs a deprecation: see CONTRIBUTING.md."""
    for package in ("arq", "celery", "taskiq", "procrastinate", "fastapi", "jinja2"):
        need(package)
    for package in ("litestar", "quart", "django", "falcon", "blacksheep", "uvicorn"):
        need(package)
    need("opentelemetry")
    need("prometheus_client")
    found = list(surface())
    recorded = RECORDED.read_text().splitlines()
    gone = [line for line in recorded if line not in found]
    new = [line for line in found if line not in recorded]
    advice = "if that is meant, write it down: python -m tests.api_surface > tests/api.txt"
    assert (gone, new) == ([], []), advice


def test_every_public_module_is_recorded() -> None:
    """Those without an underscore that have an __all__, but for what others give on."""
    root = Path(__file__).parent.parent / "asgi_bg"
    found = set()
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        is_private = any(part.startswith("_") for part in name.split(".")[1:])
        if not is_private and "__all__" in path.read_text():
            found.add(name)
    found -= {each for each in found if each.startswith("asgi_bg.cli")}
    inner = {
        "asgi_bg._collector",
        "asgi_bg.middleware",
        "asgi_bg.journal.base",
        "asgi_bg.journal.checking",
        "asgi_bg.journal.codec",
        "asgi_bg.journal.sqlite",
        "asgi_bg.engines.base",
        "asgi_bg.engines.worker",
        "asgi_bg.web.dashboard",
        "asgi_bg.web.status",
        "asgi_bg.testing.recorder",
        "asgi_bg.pytest_plugin",
    }
    assert found - inner == set(MODULES)
