"""The status API keeps what its own OpenAPI document says, whatever is asked (W2)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.strategies import integers

from asgi_bg import Runner, current_job
from tests.helpers import need

schemathesis = need("schemathesis")
validator = need("openapi_spec_validator")
need("starlette")

from schemathesis.specs.openapi.checks import negative_data_rejection  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from asgi_bg.web import status  # noqa: E402
from asgi_bg.web.status import JobStatusApp  # noqa: E402


async def work() -> dict[str, Any]:
    current_job().progress(0.5, "half")
    return {"rows": [1, None, "x"]}


async def fail() -> None:
    raise ValueError("a secret")


class Site:
    """An app with a job that has succeeded, and one that has failed.

    Attributes:
        ids: The ids of the jobs.
    """

    def __init__(self) -> None:
        self.runner = Runner()
        self._api = JobStatusApp(self.runner)
        self.ids: list[str] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        # Starlette's own `Mount` answers some paths itself, as those with a line feed.
        await self._api({**scope, "root_path": "/jobs"}, receive, send)

    async def fill(self) -> None:
        async with self.runner:
            self.ids = [(await self.runner.add_task(func)).id for func in (work, fail)]
            assert await self.runner.drain(60)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Waiting is cut short, as it is asked for hundreds of times."""
    made = Site()
    asyncio.run(made.fill())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(status, "WAIT_LIMIT", 0.01)
        yield made


def test_document_is_valid_and_says_where_the_api_is(site: Site) -> None:
    """By OpenAPI's own rules; the server's address is the place where the app is mounted."""
    with TestClient(site.app) as client:
        found = client.get("/jobs/openapi.json").json()
        validator.validate(found)
        assert found["openapi"].startswith("3.1.")
        assert found["servers"] == [{"url": "/jobs"}]
        assert set(found["paths"]) == {"/{id}", "/openapi.json"}
    with TestClient(JobStatusApp(site.runner)) as client:
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/"}]


@pytest.mark.parametrize(
    ("path", "mode"),
    [("/{id}", "positive"), ("/{id}", "negative"), ("/openapi.json", "positive")],
)
def test_answers_are_those_of_the_document(site: Site, path: str, mode: str) -> None:
    """Whatever is asked, in the document's terms or against them.

    By ids that there are, ids that there are not, and what is no id.
    """
    operation = schemathesis.openapi.from_asgi("/jobs/openapi.json", site.app)[path]["GET"]
    cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

    @given(case=cases, number=integers(0, 2))
    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    def ask(case: Any, number: int) -> None:
        # A newline leads to no mount of Starlette's, and so not to the app.
        assume("\n" not in str((case.path_parameters or {}).get("id")))
        excluded = []
        if number < len(site.ids) and "id" in (case.path_parameters or {}):
            case.path_parameters["id"] = site.ids[number]
            # That may have been all that was wrong; and a parameter too many is no error.
            excluded = [negative_data_rejection]
        case.call_and_validate(excluded_checks=excluded)

    ask()
