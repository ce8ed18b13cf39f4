"""A device that is taken out of service by a command is missed by nobody, until it speaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud_tier.alerts.service import Alerts
from cloud_tier.alerts.watching import ASK_EVERY_S, Remembered, watch_of
from cloud_tier.operators.audit import AuditLog
from cloud_tier.operators.fleet import Fleet, devices_page, region_view
from cloud_tier.operators.listener import operators_listening
from cloud_tier.operators.retiring import RetiringApi
from cloud_tier.operators.told import tell_fleet, tell_retired
from cloud_tier.telemetry.retired import SPEAKS_AFTER_S
from cloud_tier.telemetry.service import Telemetry
from fakes.alert_desk import AT_ONCE, Desk
from fakes.telemetry import item, row, source
from fakes.watched_telemetry import firing, watched_telemetry
from runtime.errors import StorageError
from runtime.messages import Birth, Offline, Tier
from runtime.telemetry import Rollup
from tierwise.cli import main


@pytest.fixture
async def telemetry(alert_desk: Desk, tmp_path: Path) -> AsyncIterator[Telemetry]:
    async with watched_telemetry(alert_desk, tmp_path) as telemetry:
        yield telemetry


async def tell(telemetry: Telemetry, alert_desk: Desk, number: int, *, site: str = "cam-1") -> None:
    place: dict[str, Any] = {"region": "north", "site": site}
    said = Rollup((source(number, number, **place),), (row(1, **place),))
    await telemetry.apply(item(said, at_s=alert_desk.clock.wall_s(), origin=""))


async def later(alert_desk: Desk, alerts: Alerts) -> dict[str, str]:
    """What fires when the database has been asked again."""
    alert_desk.clock.advance(ASK_EVERY_S)
    return await firing(alerts)


async def test_its_alerts_recover_and_it_is_told_of_when_it_speaks(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    alerts, devices = await alert_desk.start(), telemetry.retired
    await tell(telemetry, alert_desk, 1)
    await tell(telemetry, alert_desk, 5)
    alert_desk.clock.advance(3700)
    away = await later(alert_desk, alerts)
    devices.retire("cam-1", by="ada", why="sold")
    gone = await later(alert_desk, alerts)
    alert_desk.clock.advance(SPEAKS_AFTER_S)
    await tell(telemetry, alert_desk, 6)
    speaks = await later(alert_desk, alerts)
    alert_desk.clock.advance(7200)
    quiet = await later(alert_desk, alerts)
    devices.restore("cam-1")
    back = await later(alert_desk, alerts)

    both = {"device_silent.north.cam-1", "decisions_missing.north.cam-1.gap"}
    assert (set(away), set(back)) == (both, both)
    assert (gone, quiet) == ({}, {})
    assert speaks == {"retired_speaks.north.cam-1": "north/cam-1 is retired, yet it speaks"}


async def test_while_nobody_knows_who_is_retired_nobody_is_missed_anew(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    async def away(_: float) -> dict[tuple[str, str], float]:
        raise StorageError("away")

    watch = watch_of(AT_ONCE, telemetry, None)
    blind = replace(watch, retired=Remembered("telemetry", away, {}))
    await tell(telemetry, alert_desk, 1)
    await tell(telemetry, alert_desk, 5)
    alert_desk.clock.advance(3700)
    now_s = alert_desk.clock.wall_s()

    assert await blind.silent({}, now_s, 3600.0, {}) == []
    assert await blind.gaps(now_s, {}) == []
    (silent,) = await watch.silent({}, now_s, 3600.0, {})
    (gap,) = await watch.gaps(now_s, {})
    assert await blind.silent({}, now_s, 3600.0, {silent.key: silent}) == [silent]
    assert await blind.gaps(now_s, {gap.key: gap}) == [gap]


async def test_a_region_is_as_large_as_what_is_in_service(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    watch = watch_of(AT_ONCE, telemetry, None)
    for number in range(60):
        site = f"cam-{number}"
        await tell(telemetry, alert_desk, 1, site=site)
        if number < 10:
            await tell(telemetry, alert_desk, 5, site=site)
        else:
            telemetry.retired.retire(site, by="ada", why="sold")
    alert_desk.clock.advance(3700)

    (all_of_them,) = await watch.gaps(alert_desk.clock.wall_s(), {})

    said = "10 of 10 devices of north have told of decisions that have not come"
    assert all_of_them.summary == said


async def test_the_picture_leaves_it_out_until_it_speaks(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    fleet, now_s = Fleet(), alert_desk.clock.wall_s()
    await tell(telemetry, alert_desk, 1)
    fleet.take("north", "cam-2", Birth(Tier.EDGE, "cam-2", "north", 7), now_s, is_agent=True)
    await tell_fleet(telemetry.ask, fleet)
    fleet.retire({("north", "cam-2"): now_s + 600})
    shown = [one["name"] for one in devices_page(fleet, {}, ("", ""), 10)[0]]
    marked = region_view("north", fleet)["shown"]
    fleet.take("north", "cam-2", Offline(Tier.EDGE, "cam-2", "north", 7), now_s, is_agent=True)
    offline = [one["name"] for one in devices_page(fleet, {}, ("", ""), 10)[0]]

    assert (shown, offline) == (["cam-1", "cam-2"], ["cam-1"])
    assert [one["retired"] for one in marked] == [False, True]
    telemetry.retired.retire("cam-1", by="ada", why="sold")
    await tell_retired(telemetry.retired, fleet)
    assert fleet.changed == {"north"}
    assert [one.name for one in fleet.sites("north")] == ["cam-2"]


async def test_the_picture_follows_who_is_retired_anew(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    fleet, now_s = Fleet(), alert_desk.clock.wall_s()
    await tell(telemetry, alert_desk, 1)
    await tell_fleet(telemetry.ask, fleet)
    fleet.retire({("north", "cam-1"): now_s - 1})
    before = [one.retired for one in fleet.sites("north")]
    fleet.changed.clear()
    fleet.retire({("north", "cam-1"): now_s + 600})

    assert before == [True]
    assert fleet.changed == {"north"}
    assert list(fleet.sites("north")) == []


async def test_where_there_is_no_telemetry_the_command_says_what_is_missing(
    alert_desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with operators_listening(tmp_path, 0, alert_desk.clock, []):
        words = ["fleet", "list", "--operator", str(tmp_path / "operator.json")]
        code = await asyncio.to_thread(main, words)

    assert code != 0
    assert "for fleets, is telemetry.enabled set there" in capsys.readouterr().err


async def test_the_command_retires_lists_and_restores(
    alert_desk: Desk, telemetry: Telemetry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await tell(telemetry, alert_desk, 1)
    audit = AuditLog(tmp_path)
    api = RetiringApi(telemetry.retired, audit, alert_desk.clock, Fleet())
    file = str(tmp_path / "operator.json")

    async def run(*words: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["fleet", *words, "--operator", file])
        return (code, *capsys.readouterr())

    async with operators_listening(tmp_path, 0, alert_desk.clock, [api.add_routes]):
        nothing = await run("list")
        done = await run("retire", "cam-1", "--why", "sold", "--by", "ada")
        listed = (await run("list"))[1]
        shown: dict[str, Any] = json.loads((await run("list", "--json"))[1])
        back = await run("restore", "cam-1", "--region", "north", "--why", "bought back")
        refused = await run("restore", "cam-1", "--why", "again")
        lines = audit.page(0, 10)
        audit.close()
        unaudited = await run("retire", "cam-1", "--why", "sold")

    assert nothing[1].endswith("nothing is out of service\n")
    assert done == (0, "north/cam-1 is out of service\n", "")
    assert "cam-1" in listed
    assert "sold" in listed
    (one,) = shown["retired"]
    assert (one["by"], one["why"], one["speaks"]) == ("ada", "sold", False)
    assert back[1] == "north/cam-1 is watched again\n"
    assert refused[0] != 0
    assert "no device cam-1 is retired" in refused[2]
    assert unaudited[0] == 0
    assert "the change stands, but the audit could not be written" in unaudited[2]
    assert [(one.what, one.target, one.why) for one in lines] == [
        ("restore", "north/cam-1", "bought back"),
        ("retire", "north/cam-1", "sold"),
    ]
