"""Alerts of what the stores of the cloud tier say: silence, gaps, and reviews that are late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cloud_tier.alerts.service import Alerts
from cloud_tier.alerts.settings import AlertSettings
from cloud_tier.alerts.watching import ASK_EVERY_S, GIVEN_UP_AFTER_S, Remembered, Watch, watch_of
from cloud_tier.telemetry.service import Telemetry
from fakes.alert_desk import Desk
from fakes.telemetry import item, row, source
from fakes.watched_telemetry import firing, watched_telemetry
from runtime.core.alert_groups import FORGOTTEN_AFTER_S
from runtime.errors import StorageError
from runtime.telemetry import Rollup


@pytest.fixture
async def telemetry(alert_desk: Desk, tmp_path: Path) -> AsyncIterator[Telemetry]:
    async with watched_telemetry(alert_desk, tmp_path) as telemetry:
        yield telemetry


async def tell(
    telemetry: Telemetry, alert_desk: Desk, site: str, *, first: int = 1, last: int = 1, **more: Any
) -> None:
    place: dict[str, Any] = {"region": "north", "site": site, **more}
    num = last - first + 1
    rows = (row(num, **place),) if num else ()
    rollup = Rollup((source(last, first, **place),), rows)
    await telemetry.apply(item(rollup, at_s=alert_desk.clock.wall_s(), origin=""))


async def test_a_device_that_telemetry_knows_is_missed_until_it_says_something(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    alerts = await alert_desk.start()
    await tell(telemetry, alert_desk, "cam-1")
    await tell(telemetry, alert_desk, "top", tier="cloud")
    before = await firing(alerts)
    alert_desk.clock.advance(3700)
    away = await firing(alerts)
    # A sign of life without any decision.
    await tell(telemetry, alert_desk, "cam-1", first=2, last=1)
    alert_desk.clock.advance(ASK_EVERY_S)
    after = await firing(alerts)
    alert_desk.clock.advance(FORGOTTEN_AFTER_S + 60)
    forgotten = await firing(alerts)

    assert (before, after, forgotten) == ({}, {}, {})
    assert away == {"device_silent.north.cam-1": "north/cam-1 says nothing"}


async def test_a_broker_that_is_down_is_one_alert(alert_desk: Desk, telemetry: Telemetry) -> None:
    alerts = await alert_desk.start()
    for number in range(40):
        await tell(telemetry, alert_desk, f"cam-{number}")
    alert_desk.clock.advance(3700)

    assert await firing(alerts) == {"device_silent.north": "40 of 40 devices of north say nothing"}


async def test_decisions_that_do_not_come_are_told_until_they_do(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    alerts = await alert_desk.start()
    await tell(telemetry, alert_desk, "cam-1", first=1, last=10)
    await tell(telemetry, alert_desk, "cam-1", first=31, last=40)
    # Where it was heard first, nobody knows what came before.
    await tell(telemetry, alert_desk, "cam-2", first=500, last=501)
    before = await firing(alerts)
    for _ in range(5):
        alert_desk.clock.advance(800)
        await tell(telemetry, alert_desk, "cam-1", first=41, last=40)
        await tell(telemetry, alert_desk, "cam-2", first=502, last=501)
    missed = await firing(alerts)
    await tell(telemetry, alert_desk, "cam-1", first=11, last=30)
    alert_desk.clock.advance(ASK_EVERY_S)
    after = await firing(alerts)

    assert (before, after) == ({}, {})
    assert missed == {
        "decisions_missing.north.cam-1.gap": "20 decisions of north/cam-1 have not come"
    }


async def test_what_nobody_keeps_any_more_is_not_waited_for(
    alert_desk: Desk, telemetry: Telemetry
) -> None:
    alerts = await alert_desk.start()
    await tell(telemetry, alert_desk, "cam-1", first=1, last=10)
    await tell(telemetry, alert_desk, "cam-1", first=31, last=40)
    alert_desk.clock.advance(GIVEN_UP_AFTER_S + 60)
    await tell(telemetry, alert_desk, "cam-1", first=41, last=40)

    assert await firing(alerts) == {}


async def test_reviews_that_are_late_are_told(alert_desk: Desk) -> None:
    counts = {"overdue": 12, "oldest_s": 7200.0}

    async def said(_: float) -> dict[str, Any]:
        return dict(counts)

    alert_desk.watch = Watch(reviews=Remembered("reviews", said, {}))
    alerts = await alert_desk.start()
    late = await firing(alerts)
    counts["overdue"] = 0
    alert_desk.clock.advance(ASK_EVERY_S)

    assert late == {
        "review_late.cloud": "12 answers wait for a person for longer than they may, the oldest "
        "for 2.0 h"
    }
    assert await firing(alerts) == {}


async def test_a_store_that_is_away_is_logged_once_and_what_it_said_holds(alert_desk: Desk) -> None:
    answers: list[dict[str, Any] | None] = [{"overdue": 1, "oldest_s": 60.0}, None, None, {}]

    async def said(_: float) -> dict[str, Any]:
        found = answers.pop(0)
        if found is None:
            raise StorageError("it is away")
        return found

    alert_desk.watch = Watch(reviews=Remembered("reviews", said, {}))
    alerts = await alert_desk.start()
    with capture_logs() as lines:
        seen = []
        for _ in range(4):
            seen.append(bool(await firing(alerts)))
            # Asked again at once, it is not asked.
            await alerts.look()
            alert_desk.clock.advance(ASK_EVERY_S)

    assert seen == [True, True, True, False]
    events = [line["event"] for line in lines if line["event"].startswith("alerts.")]
    assert events == ["alerts.not_seen", "alerts.seen_again"]


async def test_what_was_told_before_a_restart_holds_until_the_stores_answer(
    alert_desk: Desk,
) -> None:
    is_away = False
    now_s = alert_desk.clock.wall_s()
    said: dict[str, Any] = {
        "heard": {("north", "cam-1"): now_s - 7200},
        "missing": {("north", "cam-1"): 20},
        "reviews": {"overdue": 1, "oldest_s": 60.0},
    }

    def remembered(name: str) -> Remembered[dict[Any, Any]]:
        async def ask(_: float) -> dict[Any, Any]:
            if is_away:
                raise StorageError("it is away")
            return dict(said[name])

        return Remembered(name, ask, {})

    async def restarted() -> Alerts:
        alert_desk.watch = Watch(remembered("heard"), remembered("missing"), remembered("reviews"))
        return await alert_desk.start()

    before = await firing(await restarted())
    is_away = True
    alerts = await restarted()
    alert_desk.clock.advance(ASK_EVERY_S)
    while_away = await firing(alerts)
    is_away = False
    said = {"heard": {("north", "cam-1"): now_s}, "missing": {}, "reviews": {}}
    alert_desk.clock.advance(ASK_EVERY_S)
    after = await firing(alerts)

    assert before.keys() == {
        "device_silent.north.cam-1",
        "decisions_missing.north.cam-1.gap",
        "review_late.cloud",
    }
    assert (while_away, after) == (before, {})


async def test_switched_off_nobody_is_missed(alert_desk: Desk, telemetry: Telemetry) -> None:
    off = AlertSettings(pending_for_s=0, silent_after_s=0, missing_after_s=0)
    alert_desk.settings, alert_desk.watch = off, watch_of(off, telemetry, None)
    alerts = await alert_desk.start()
    await tell(telemetry, alert_desk, "cam-1", first=1, last=10)
    await tell(telemetry, alert_desk, "cam-1", first=31, last=40)
    alert_desk.clock.advance(7200)

    assert await firing(alerts) == {}
    assert watch_of(off, None, None) == Watch()
