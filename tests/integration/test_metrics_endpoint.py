"""``/metrics`` over HTTP."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from runtime.adapters.metrics import TierMetrics, metrics_handler


async def test_prometheus_gets_its_text_format() -> None:
    metrics = TierMetrics("regional")
    metrics.set_pending(3)
    app = web.Application()
    app.router.add_get("/metrics", metrics_handler(metrics))

    async with TestClient(TestServer(app)) as client:
        response = await client.get("/metrics")
        body = await response.text()

    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "tierwise_regional_pending_requests 3.0" in body


TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


async def scraped(metrics: TierMetrics, accept: str) -> tuple[str, str]:
    app = web.Application()
    app.router.add_get("/metrics", metrics_handler(metrics))
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/metrics", headers={"Accept": accept})
        return response.headers["Content-Type"], await response.text()


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
        "text/plain, Application/OpenMetrics-Text; q=0.01",
    ],
)
async def test_who_asks_for_openmetrics_gets_exemplars_of_recorded_traces(accept: str) -> None:
    metrics = TierMetrics("edge")
    metrics.observe_answer("answered", "confident", "edge", 20.0, TRACE_ID)

    kind, body = await scraped(metrics, accept)

    (family,) = [
        family
        for family in text_string_to_metric_families(body)  # type: ignore[no-untyped-call]
        if family.name == "tierwise_edge_latency_seconds"
    ]
    found = [one.exemplar for one in family.samples if one.exemplar is not None]
    assert kind.startswith("application/openmetrics-text")
    assert [(one.labels, one.value) for one in found] == [({"trace_id": TRACE_ID}, 0.02)]


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "application/json"]
)
async def test_all_others_get_plain_text_without_exemplars(accept: str) -> None:
    metrics = TierMetrics("edge")
    metrics.observe_answer("answered", "confident", "edge", 20.0, TRACE_ID)

    kind, body = await scraped(metrics, accept)

    assert kind.startswith("text/plain; version=0.0.4")
    assert TRACE_ID not in body


async def test_a_disk_that_is_gone_is_not_a_number(tmp_path: Path) -> None:
    metrics = TierMetrics("edge")
    metrics.state.measure(tmp_path)
    _, before = await scraped(metrics, "")
    metrics.state.measure(tmp_path / "gone")

    _, after = await scraped(metrics, "")

    (said,) = re.findall(r"^tierwise_edge_state_disk_bytes (.+)$", before, re.MULTILINE)
    assert float(said) == shutil.disk_usage(tmp_path).total
    assert "tierwise_edge_state_disk_bytes NaN" in after
    assert "tierwise_edge_state_free_bytes NaN" in after
