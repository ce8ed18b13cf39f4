"""Telemetry of a cloud tier that alerts watch, and what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cloud_tier.alerts.service import Alerts
from cloud_tier.alerts.watching import watch_of
from cloud_tier.settings import CloudSettings
from cloud_tier.telemetry.service import Telemetry, keeping_telemetry
from fakes.alert_desk import Desk
from runtime.common_settings import StateSettings


@asynccontextmanager
async def watched_telemetry(desk: Desk, folder: Path) -> AsyncIterator[Telemetry]:
    """Telemetry with the desk's clock, which is asked by the desk's alerts."""
    settings = CloudSettings(cloud="cloud-1", state=StateSettings(folder=str(folder)))
    async with keeping_telemetry(settings, desk.clock.wall_s) as telemetry:
        assert telemetry is not None
        desk.watch = watch_of(desk.settings, telemetry, None)
        yield telemetry


async def firing(alerts: Alerts) -> dict[str, str]:
    """What fires after one more look: summaries by keys."""
    await alerts.look()
    return {
        key: one.condition.summary
        for key, one in (await alerts.store.alerts()).items()
        if one.phase.value == "firing"
    }
