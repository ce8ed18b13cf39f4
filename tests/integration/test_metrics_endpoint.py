"""``/metrics`` over HTTP."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

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
