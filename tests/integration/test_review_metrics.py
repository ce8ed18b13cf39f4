"""What Prometheus sees of answers that wait for people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud_tier.reviews import service
from fakes.review_reports import report
from fakes.review_shop import Shop
from fakes.waiting import eventually
from runtime.adapters.metrics import TierMetrics


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(f"sqlite:///{tmp_path / 'telemetry.sqlite'}")
    yield made
    made.close()


def shown(metrics: TierMetrics) -> dict[str, float]:
    """Samples about reviews, by name and labels."""
    lines = metrics.render()[0].decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {
        name.removeprefix("tierwise_cloud_"): float(value)
        for name, value in found
        if "review" in name
    }


async def test_what_waits_is_late_and_agreed_on_is_measured(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TIDY_S", 0.01)
    monkeypatch.setattr(service, "_TURNS_OF_AGREEMENT", 1)
    metrics = TierMetrics("cloud")
    before = shown(metrics) if metrics.reviews else {}
    await shop.put(report("i1"), report("i2"))
    await shop.next_item("ann")

    tidying = asyncio.create_task(service._tidy(shop.store, metrics.reviews))
    await eventually(lambda: shown(metrics)['reviews{state="assigned"}'] == 1)
    waiting = shown(metrics)
    shop.now_s += 40 * 86_400
    await eventually(lambda: shown(metrics)['reviews{state="waiting"}'] == 0)
    gone = shown(metrics)
    tidying.cancel()
    await asyncio.gather(tidying, return_exceptions=True)

    assert (before["late_reviews"], before["oldest_review_seconds"]) == (0, 0)
    assert (waiting['reviews{state="waiting"}'], waiting["late_reviews"]) == (1, 0)
    assert waiting["review_agreement_ratio"] != waiting["review_agreement_ratio"]
    assert gone["oldest_review_seconds"] == 0


def test_what_is_said_is_shown() -> None:
    metrics = TierMetrics("cloud")

    metrics.reviews.set_open({"waiting": 3, "labelled": 9}, num_late=2, oldest_s=7200.0)
    metrics.reviews.set_agreement(0.75)
    known = shown(metrics)
    metrics.reviews.set_agreement(None)

    assert known == {
        'reviews{state="waiting"}': 3.0,
        'reviews{state="assigned"}': 0.0,
        "late_reviews": 2.0,
        "oldest_review_seconds": 7200.0,
        "review_agreement_ratio": 0.75,
    }
    assert str(shown(metrics)["review_agreement_ratio"]) == "nan"
