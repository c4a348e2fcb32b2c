"""Fixtures and settings of the whole suite."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import hypothesis
import pytest

from asgi_bg import Runner

# A busy machine makes examples slowly, which is no fault of theirs.
PATIENT = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("default", max_examples=100, **PATIENT)
hypothesis.settings.register_profile("soak", max_examples=10_000, **PATIENT)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every async test runs on both event loops that are promised."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def make_runner(anyio_backend: Any) -> AsyncIterator[Callable[..., Awaitable[Runner]]]:
    """Make started runners, and close them in the end."""
    made: list[Runner] = []

    async def make(**options: Any) -> Runner:
        runner = Runner(**options)
        await runner.start()
        made.append(runner)
        return runner

    yield make
    for runner in made:
        await runner.aclose(5)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what has been logged as an error by asgi_bg so far."""

    def logged() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "asgi_bg" and record.levelno >= logging.ERROR
        ]

    return logged


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what has been logged as a warning by asgi_bg so far."""

    def logged() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "asgi_bg" and record.levelno == logging.WARNING
        ]

    return logged


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Have what tests print and log reach the report, odd characters too."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report
