"""Devices that are out of service, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_tier.telemetry import retired as module
from cloud_tier.telemetry.asking import question
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.reading import answer
from cloud_tier.telemetry.retired import SPEAKS_AFTER_S, RetiredDevices
from cloud_tier.telemetry.rows import FleetRow
from cloud_tier.telemetry.store import TelemetryStore
from fakes.telemetry import NOW_S, item, row, source
from runtime.errors import RequestError
from runtime.telemetry import Rollup

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def devices(store: TelemetryStore, clock: list[float]) -> RetiredDevices:
    return RetiredDevices(store.engine, wall_s=lambda: clock[0])


async def tell(store: TelemetryStore, site: str, *, at_s: float = NOW_S, **more: Any) -> None:
    said = Rollup((source(1, site=site, **more),), (row(1, site=site, **more),))
    await store.apply(item(said, at_s=at_s, origin=""))


def fleet(store: TelemetryStore, **words: str) -> dict[str, str]:
    asked = question("fleet", words, now_s=NOW_S, retention=Retention())
    rows = answer(store.engine, asked, now_s=NOW_S).rows
    return {one.group["site"]: one.retired for one in rows if isinstance(one, FleetRow)}


async def test_who_is_retired_is_shown_only_where_that_is_asked(
    store: TelemetryStore, devices: RetiredDevices
) -> None:
    await tell(store, "cam-1")
    await tell(store, "cam-2")

    one = devices.retire("cam-1", by="ada", why="sold")
    again = devices.retire("cam-1", region="eu", by="bob", why="sold twice")

    assert (one.region, one.by, one.at_s, one.heard_s) == ("eu", "ada", NOW_S, NOW_S)
    assert again == one
    assert devices.all() == [one]
    assert fleet(store) == {"cam-2": "no"}
    assert fleet(store, retired="yes") == {"cam-1": "yes", "cam-2": "no"}

    assert devices.restore("cam-1") == one
    assert devices.all() == []
    assert fleet(store) == {"cam-1": "no", "cam-2": "no"}


async def test_who_speaks_all_the_same_is_shown(
    store: TelemetryStore, devices: RetiredDevices, clock: list[float]
) -> None:
    await tell(store, "cam-1", at_s=NOW_S - 5)
    devices.retire("cam-1", by="ada", why="sold")
    clock[0] += SPEAKS_AFTER_S
    # What it told before may be on its way for a while.
    await tell(store, "cam-1", at_s=NOW_S + SPEAKS_AFTER_S)
    before = fleet(store)
    clock[0] += 1
    await tell(store, "cam-1", at_s=NOW_S + SPEAKS_AFTER_S + 1)

    assert before == {}
    assert fleet(store) == {"cam-1": "speaks"}
    assert [one.speaks for one in devices.all()] == [True]


async def test_who_has_spoken_is_out_of_service_anew_when_that_is_said_again(
    store: TelemetryStore, devices: RetiredDevices, clock: list[float]
) -> None:
    await tell(store, "cam-1", at_s=NOW_S - 5)
    devices.retire("cam-1", by="ada", why="sold")
    clock[0] += SPEAKS_AFTER_S + 1
    await tell(store, "cam-1", at_s=clock[0])
    assert fleet(store) == {"cam-1": "speaks"}

    again = devices.retire("cam-1", by="bob", why="its plug is pulled now")

    assert (again.by, again.why, again.at_s) == ("bob", "its plug is pulled now", clock[0])
    assert not again.speaks
    assert devices.all() == [again]
    assert fleet(store) == {}


async def test_what_a_database_cannot_keep_is_left_out_of_what_is_said(
    store: TelemetryStore, devices: RetiredDevices
) -> None:
    await tell(store, "cam-1")

    one = devices.retire("cam\0-1", region="e\0u", by="a\0da", why="so\0ld")

    assert (one.region, one.site, one.by, one.why) == ("eu", "cam-1", "ada", "sold")
    assert devices.restore("cam\0-1", region="e\0u") == one


async def test_an_order_by_what_is_no_number_is_refused(store: TelemetryStore) -> None:
    await tell(store, "cam-1")
    await tell(store, "cam-2")

    for name in ("retired", "-retired", "tiers"):
        with pytest.raises(RequestError, match="cannot order by") as refused:
            fleet(store, order=name)
        choices = str(refused.value).partition("choose from ")[2].split(", ")
        assert {"group", "decisions"} <= set(choices)
        assert not {"retired", "tiers", "versions"} & set(choices)


async def test_a_device_is_named_so_that_it_is_one(
    store: TelemetryStore, devices: RetiredDevices, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tell(store, "cam-1")
    await tell(store, "cam-1", region="us")

    with pytest.raises(RequestError, match="cam-1 is a device of eu, us: say which with --region"):
        devices.retire("cam-1", by="ada", why="sold")
    with pytest.raises(RequestError, match="no device cam-9 is known to telemetry"):
        devices.retire("cam-9", by="ada", why="sold")
    with pytest.raises(RequestError, match="no device eu/cam-1 is retired"):
        devices.restore("cam-1", region="eu")
    assert devices.retire("cam-1", region="us", by="ada", why="sold").region == "us"
    monkeypatch.setattr(module, "MAX_RETIRED", 1)
    with pytest.raises(RequestError, match="restore some first"):
        devices.retire("cam-1", region="eu", by="ada", why="sold")


@pytest.mark.parametrize(
    ("metric", "said", "text"),
    [("fleet", "maybe", "retired is yes or no"), ("cost", "yes", "unknown word 'retired'")],
)
def test_a_question_about_them_that_is_none_is_refused(metric: str, said: str, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        question(metric, {"retired": said}, now_s=NOW_S, retention=Retention())
