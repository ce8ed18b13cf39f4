"""The alerts of a cloud tier, restarted at will; time is given."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from cloud_tier.alerts.service import Alerts
from cloud_tier.alerts.settings import AlertSettings
from cloud_tier.alerts.sinks import Sink
from cloud_tier.alerts.store import AlertStore, open_store
from cloud_tier.alerts.watching import Watch
from fakes.clock import FakeClock
from runtime.adapters.metrics import TierMetrics
from runtime.alert_facts import AlertFacts, Sign
from runtime.exchange.alert_signs import AlertSigns
from runtime.exchange.course import Identity
from runtime.exchange.items import json_item
from runtime.messages import ItemKind, Tier
from runtime.ports import OutboxItem

IDENTITY = Identity(Tier.CLOUD, "cloud-1", "cloud")
SECRET = b"a secret of thirty-two characters"
AT_ONCE = AlertSettings(pending_for_s=0, clear_for_s=0)


class Desk:
    """A cloud tier's alerts, restarted at will; time is given."""

    def __init__(self, folder: Path, *, settings: AlertSettings = AT_ONCE) -> None:
        self.folder, self.settings = folder, settings
        self.clock = FakeClock()
        self.metrics = TierMetrics("cloud")
        self.sinks: list[Sink] = []
        self.watch = Watch()
        self._stack = AsyncExitStack()

    async def start(self) -> Alerts:
        await self._stack.aclose()
        file = self._stack.enter_context(open_store(self.folder))
        self.alerts = Alerts(
            IDENTITY,
            self.settings,
            AlertStore(file),
            self.sinks,
            signs=AlertSigns(self.metrics, self.clock),
            clock=self.clock,
            watch=self.watch,
        )
        return self.alerts

    async def close(self) -> None:
        await self._stack.aclose()

    async def say(self, *kinds: str, origin: str = "plant/camera-1") -> None:
        facts = AlertFacts(tuple(Sign(kind, "words") for kind in kinds))
        item = json_item(ItemKind.ALERT, facts, self.clock)
        await self.alerts.hear(
            OutboxItem(item.id, item.kind, item.created_s, item.body, origin=origin)
        )

    async def turn(self) -> None:
        await self.alerts.look()
        await self.alerts.deliver()
