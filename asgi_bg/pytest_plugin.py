"""The pytest plugin: one fixture, ``background_tasks``, which is there once this is installed."""

from __future__ import annotations

from collections.abc import Iterator

from asgi_bg.testing.recorder import TaskRecorder, record_tasks

try:
    import pytest
except ImportError as exc:
    raise ImportError(
        "asgi_bg.pytest_plugin needs pytest; install it with: pip install 'asgi_bg[testing]'"
    ) from exc

__all__ = ["background_tasks"]


@pytest.fixture
def background_tasks() -> Iterator[TaskRecorder]:
    """Record the background tasks that the app adds, instead of running them.

    See `asgi_bg.testing.TaskRecorder`. Only tests that ask for it are concerned.
    """
    with record_tasks() as recorder:
        yield recorder
