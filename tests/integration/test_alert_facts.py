"""What devices and gateways tell of themselves, and how it becomes an alert."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from fakes.alert_desk import Desk
from fakes.clock import FakeClock
from fakes.storing import storing_cloud, storing_edge, storing_gateway
from fakes.waiting import until
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.metrics import TierMetrics
from runtime.alert_facts import AlertFacts
from runtime.errors import MalformedBodyError
from runtime.exchange.alert_signs import HOLD_S, AlertSigns, tell_signs
from runtime.messages import Guarantee, ItemKind
from runtime.ports import OutboxItem


async def test_facts_of_a_device_reach_the_cloud_through_its_gateway(
    tmp_path: Path, alert_desk: Desk
) -> None:
    broker = MemoryBroker()
    await alert_desk.start()
    async with (
        storing_cloud(broker, tmp_path) as cloud,
        storing_gateway(broker, tmp_path) as gateway,
        storing_edge(broker, tmp_path) as edge,
    ):
        assert cloud.receiver is not None
        cloud.receiver.appliers = {ItemKind.ALERT: alert_desk.alerts.hear}
        signs = AlertSigns(edge.metrics, edge.clock)
        telling = asyncio.create_task(
            tell_signs(signs, edge.storage.outbox, edge.clock, interval_s=0.01)
        )
        edge.metrics.set_breakers("gateway", "open", 2)
        edge.metrics.count_drift_alarm("scores")
        # It speaks for its own clock; ours in this test stands still.
        alert_desk.clock.advance(edge.clock.wall_s() - alert_desk.clock.wall_s())
        facts = await until(lambda: alert_desk.alerts.store.facts(0.0), bool)
        await until(gateway.waiting, lambda items: not items)
        telling.cancel()

    ((origin, body),) = facts
    assert origin == "r/edge-1"
    kinds = [one.kind for one in msgspec.json.decode(body, type=AlertFacts).signs]
    assert set(kinds) <= {"breaker_open", "drift"}
    assert "breaker_open" in kinds


def test_signs_are_what_the_metrics_say() -> None:
    clock, metrics = FakeClock(), TierMetrics("edge")
    metrics.count_decision_log_drops(3)
    signs = AlertSigns(metrics, clock)
    assert signs.look() == AlertFacts()

    metrics.outbox.set_limits(10, 1000)
    metrics.outbox.set_held(5, 4, 100)
    metrics.count_decision_log_drops(4)
    metrics.count_guarantee(Guarantee.SUSPENDED)
    assert {one.kind for one in signs.look().signs} == {
        "outbox_full",
        "decisions_missing",
        "guarantee_suspended",
    }
    metrics.outbox.set_held(1, 0, 100)
    clock.advance(HOLD_S)
    assert signs.look() == AlertFacts()


@pytest.mark.parametrize("body", [b"", b"{", b'{"signs":[{"kind":"../x"}]}', b"\xff", b"[[[["])
async def test_facts_that_are_none_are_refused(alert_desk: Desk, body: bytes) -> None:
    await alert_desk.start()
    with pytest.raises(MalformedBodyError):
        await alert_desk.alerts.hear(OutboxItem("i", ItemKind.ALERT, 1.0, body, origin="r/e"))


async def test_what_is_older_does_not_undo_what_is_newer(alert_desk: Desk) -> None:
    await alert_desk.start()
    await alert_desk.say("drift")
    alert_desk.clock.set_wall_s(alert_desk.clock.wall_s() - 10.0)
    await alert_desk.say()
    assert [origin for origin, _ in await alert_desk.alerts.store.facts(0.0)] == ["plant/camera-1"]
    await alert_desk.alerts.look()
    assert list(await alert_desk.alerts.store.alerts()) == ["drift.plant.camera-1"]
