"""The page and the example do what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from asgi_bg import Runner
from tests.helpers import need
from tests.test_readme import blocks_of

need("opentelemetry.sdk")
need("prometheus_client")


def test_the_programs_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W4: a request's job has a span that links to the request's, is counted, and is logged."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "telemetry_page"}
    for block in blocks_of("docs/telemetry.md"):
        exec(compile(block, "docs/telemetry.md", "exec"), names)
    try:
        with TestClient(names["app"]) as client:
            assert client.get("/").text == "accepted\n"
        spans = {span.name: span for span in names["exporter"].get_finished_spans()}
        job = spans["process telemetry_page:send_invoice"]
        assert job.links[0].context.span_id == spans["POST /orders"].context.span_id
        (resource,) = names["reader"].get_metrics_data().resource_metrics
        found = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
        assert "messaging.client.sent.messages" in found
        assert "asgi_bg_jobs_added_total" in TestClient(names["metrics_app"]).get("/").text
    finally:
        names["telemetry"].close()
        names["metrics"].close()
        logger = names["logging"].getLogger("shop")
        logger.removeHandler(names["handler"])


def test_every_metric_is_on_the_page() -> None:
    """W4: the tables and the code name the same."""
    page = (Path(__file__).parent.parent.parent / "docs" / "telemetry.md").read_text()
    rows = set(re.findall(r"^\| `((?:messaging|asgi_bg)[\w.]+)` \| (?:c|h|g)", page, re.M))

    class Meter:
        """Takes down the names of what is made with it."""

        def __getattr__(self, method: str) -> Any:
            return lambda name, *args, **kwargs: made.add(name)

    made: set[str] = set()
    need("asgi_bg._telemetry_metrics").JobMetrics(Meter(), None)
    registry = need("prometheus_client").CollectorRegistry()
    events = need("asgi_bg.prometheus").PrometheusEvents(registry=registry)
    events.observe(Runner())
    events.close()
    for family in registry.collect():
        made.add(family.name + ("_total" if family.type == "counter" else ""))
    assert rows == made


def test_the_formatter_makes_one_line_of_json() -> None:
    """W4: of a failure, too."""
    names: dict[str, Any] = {"__name__": "telemetry_page"}
    exec(blocks_of("docs/telemetry.md")[-1], names)
    logging = names["logging"]
    logging.getLogger("shop").removeHandler(names["handler"])
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.getLogger("shop").makeRecord(
            "shop", logging.ERROR, __file__, 1, "odd %d", (1,), __import__("sys").exc_info()
        )
    names["handler"].filter(record)
    (line,) = names["handler"].format(record).splitlines()
    told = json.loads(line)
    assert (told["message"], told["job_id"]) == ("odd 1", "-")
    assert "ValueError: no" in told["error"]
