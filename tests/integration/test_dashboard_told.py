"""What a real store of telemetry tells the dashboard."""

from __future__ import annotations

import time
from pathlib import Path

from cloud_tier.operators.fleet import Fleet, devices_page, region_view
from cloud_tier.operators.told import rates, tell_fleet
from cloud_tier.settings import CloudSettings
from cloud_tier.telemetry.service import keeping_telemetry
from fakes.telemetry import escalated, item, rollup, row
from runtime.common_settings import StateSettings


async def test_sites_and_rates_come_out_of_the_store(tmp_path: Path) -> None:
    settings = CloudSettings(cloud="cloud-1", state=StateSettings(folder=str(tmp_path)))
    fleet = Fleet()
    async with keeping_telemetry(settings, time.time) as telemetry:
        assert telemetry is not None
        said = item(rollup(row(300), escalated(60)), at_s=time.time() - 120)
        assert await telemetry.apply(said) == "stored"

        await tell_fleet(telemetry.ask, fleet)
        found = await rates(telemetry.ask)

    assert found == {"eu": {"edge": 300 / 3600, "cloud": 60 / 3600}}
    devices, _ = devices_page(fleet, {}, ("", ""), 10)
    assert [(one["region"], one["name"], one["state"]) for one in devices] == [
        ("eu", "cam-1", "reporting")
    ]
    assert region_view("eu", fleet)["devices"]["reporting"] == 1
