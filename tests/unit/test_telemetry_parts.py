"""The pure parts of the store of telemetry: who may speak, what is kept, how sure a share is."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from cloud_tier.settings import CloudSettings, TelemetrySettings
from cloud_tier.telemetry.claims import check_claims
from cloud_tier.telemetry.intake import (
    MAX_PAST_S,
    Earlier,
    Feedback,
    minute_of,
    read_item,
    sane,
)
from cloud_tier.telemetry.intervals import weighted, wilson
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.series import digest_of, folded, series_of
from fakes.telemetry import NOW_S, audit, escalated, feedback, item, row, source
from runtime.errors import MalformedBodyError
from runtime.messages import ItemKind
from runtime.ports import OutboxItem
from runtime.telemetry import OTHER, Rollup

HERE = "cloud"


def said(*places: str, rows: tuple[str, ...] | None = None) -> Rollup:
    """A rollup of these places, with rows of the same or of others."""
    sources = tuple(source(1, region=one.split("/")[0], site=one.split("/")[1]) for one in places)
    of = places if rows is None else rows
    return Rollup(
        sources, tuple(row(1, region=one.split("/")[0], site=one.split("/")[1]) for one in of)
    )


@pytest.mark.parametrize(
    ("origin", "places", "speakers"),
    [
        ("", ("eu/cam-1", "us/cam-2"), {}),
        ("eu/cam-1", ("eu/cam-1",), {}),
        ("cloud/gw-1", ("eu/gw-1", "eu/cam-1", "north/cam-2"), {}),
        ("cloud/edge-1", ("cloud/edge-1",), {}),
        ("cloud/gw-1", ("eu/cam-1", "north/cam-2"), {"gw-1": ("eu", "north")}),
        ("eu/gw-low", ("low/cam-1",), {"gw-low": ("low",)}),
        ("eu/cam-1", ("eu/cam-1",), {"gw-1": ("eu",)}),
    ],
)
def test_who_may_speak_for_whom(
    origin: str, places: tuple[str, ...], speakers: dict[str, tuple[str, ...]]
) -> None:
    check_claims(origin, said(*places), own_region=HERE, speakers=speakers)


@pytest.mark.parametrize(
    ("origin", "places", "speakers"),
    [
        ("eu/cam-1", ("eu/cam-2",), {}),
        ("eu/cam-1", ("eu/cam-1", "eu/cam-2"), {}),
        ("cloud/edge-1", ("cloud/edge-2",), {}),
        ("cloud/gw-1", ("us/cam-1",), {"gw-1": ("eu",)}),
        ("cloud/gw-2", ("eu/cam-1",), {"gw-1": ("eu",)}),
        ("eu", ("eu/cam-1",), {}),
    ],
)
def test_who_may_not(
    origin: str, places: tuple[str, ...], speakers: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(MalformedBodyError, match="may not speak for"):
        check_claims(origin, said(*places), own_region=HERE, speakers=speakers)


def test_rows_are_of_the_sources_or_of_what_was_too_much() -> None:
    check_claims("eu/cam-1", said("eu/cam-1", rows=(f"eu/{OTHER}",)), own_region=HERE, speakers={})
    with pytest.raises(MalformedBodyError, match="rows of eu/cam-2"):
        check_claims("eu/cam-1", said("eu/cam-1", rows=("eu/cam-2",)), own_region=HERE, speakers={})
    with pytest.raises(MalformedBodyError, match="rows of us"):
        check_claims(
            "eu/cam-1", said("eu/cam-1", rows=(f"us/{OTHER}",)), own_region=HERE, speakers={}
        )
    bad = Rollup((source(1),), (row(1),), (audit(site="cam-9"),))
    with pytest.raises(MalformedBodyError, match="rows of eu/cam-9"):
        check_claims("eu/cam-1", bad, own_region=HERE, speakers={})


@pytest.mark.parametrize("ago", [0, 1, 59, 60, 1000])
def test_a_row_has_its_minute(ago: int) -> None:
    assert minute_of(NOW_S + 30, ago, NOW_S + 40) == (int(NOW_S) - ago * 60, False)


@pytest.mark.parametrize(
    ("said_s", "ago", "wanted_s"),
    [
        (NOW_S + 1e6, 0, NOW_S),
        (NOW_S, 1 << 24, NOW_S - MAX_PAST_S),
        (-math.inf, 0, NOW_S - MAX_PAST_S),
        (math.nan, 0, NOW_S - MAX_PAST_S),
        (math.inf, 0, NOW_S - MAX_PAST_S),
    ],
)
def test_times_that_cannot_be_are_moved(said_s: float, ago: int, wanted_s: float) -> None:
    assert minute_of(said_s, ago, NOW_S) == (wanted_s // 60 * 60, True)


def test_numbers_that_contradict_one_another_are_cut() -> None:
    hostile = row(
        3, late=9, confident=7, confidence_sum=99.0, confidences={1: 8}, latency={5: 1 << 50}
    )

    kept = sane(hostile)

    assert (kept.late, kept.confident, kept.confidence_sum) == (3, 3, 3.0)
    assert (kept.confidences, kept.latency) == ({}, {})
    assert sane(row(3)) == row(3)
    assert sane(row(1 << 52)).count == 10**9


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"\xff", b"{}", b'{"sources": [], "rows": [[1, 2]]}', b"[" * 5000,
        b'{"sources": [{"region": "", "site": "", "tier": "", "log": "/", "first": 1, "last": 1}]}',
    ],
)  # fmt: skip
def test_what_is_no_rollup_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        read_item(OutboxItem("x", ItemKind.METRICS, NOW_S, body, origin="eu/cam-1"))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"label": "x"}', b'{"label": -1}', b"\xff"])
def test_what_is_no_feedback_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="no feedback"):
        read_item(OutboxItem("x", ItemKind.FEEDBACK, NOW_S, body, origin="eu/cam-1"))


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"label": 3}, True),
        ({"label": 4}, False),
        ({"label": 4, "is_correct": True}, True),
        ({"label": 4, "answered": None}, None),
        ({"is_correct": False, "answered": None}, False),
        ({}, None),
    ],
)
def test_the_verdict_of_feedback(given: dict[str, Any], verdict: bool | None) -> None:
    body = read_item(feedback(**given)).body

    assert isinstance(body, Feedback)
    assert body.verdict is verdict


def test_a_report_of_an_earlier_version_is_known_as_one() -> None:
    report = {
        "epoch": 1, "number": 1, "over_s": 60.0, "latency_ms_sum": 1.0, "decision_log_dropped": 0,
        "answers": [{"outcome": "answered", "reason": "confident", "answered_by": "edge",
                     "count": 3}],
    }  # fmt: skip

    body = read_item(OutboxItem("x", ItemKind.METRICS, NOW_S, json.dumps(report).encode())).body

    assert isinstance(body, Earlier)
    assert isinstance(read_item(item(said("eu/cam-1"))).body, Rollup)


def test_what_is_too_much_keeps_what_escalation_needs() -> None:
    series = series_of(escalated(1, gear="g77", reason="lower_stands"))

    kept = folded(series, with_site=True)

    assert (kept.region, kept.site, kept.gear, kept.label) == ("eu", "cam-1", OTHER, OTHER)
    assert (kept.tier, kept.action, kept.answered_by) == ("edge", "escalate", "cloud")
    assert (kept.outcome, kept.reason) == ("answered", "lower_stands")
    alien = folded(
        series._replace(tier="fog", action="?", answered_by="fog", outcome="?", reason="unsure"),
        with_site=False,
    )
    assert set(alien[:-1]) == {OTHER}


def test_words_are_as_a_database_can_keep_them() -> None:
    assert series_of(row(1, model="a\0b")).model == "ab"
    assert digest_of("a", "b") != digest_of("ab", "")


def test_intervals_hold_their_estimate() -> None:
    found = wilson(8, 10)

    assert found is not None
    assert found.value == 0.8
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 0) is None


def test_a_weighted_share_is_that_of_horvitz_and_thompson() -> None:
    # 90 that agree and 10 that do not, each of weight 10.
    found = weighted(900, 1000, 90 * 100, 10 * 100)

    assert found is not None
    assert found.value == pytest.approx(0.9)
    assert found.high - found.value == pytest.approx(1.96 * 0.03, abs=1e-4)
    assert weighted(0, 0, 0, 0) is None


def test_where_all_agree_the_interval_still_has_a_width() -> None:
    found = weighted(1000, 1000, 100 * 100, 0)
    none = weighted(1000, 1000, 0, 0)

    assert found is not None
    assert none is not None
    assert (found.value, found.high) == (1, 1)
    assert 0.96 < found.low < 0.97
    assert none.low < 0.5


@pytest.mark.parametrize(
    "ages_s", [(10.0, 100.0, 100.0), (1000.0, 100.0, 100.0), (100.0, 1000.0, 100.0)]
)
def test_coarse_rows_do_not_go_before_the_fine_ones(ages_s: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="kept longer"):
        Retention(*ages_s)


def test_settings_name_the_regions_of_gateways() -> None:
    settings = TelemetrySettings(gateways="gw-1:eu, gw-1:north,gw-2:us,")

    assert settings.speakers == {"gw-1": ("eu", "north"), "gw-2": ("us",)}
    assert TelemetrySettings().speakers == {}
    assert CloudSettings(cloud="c").telemetry.enabled


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"gateways": "gw-1"}, "is no gateway:region"),
        ({"gateways": ":eu"}, "is no gateway:region"),
        ({"minute_retention_s": 1e9}, "at most hour_retention_s"),
        ({"max_rows": 5}, "max_rows"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], wanted: str) -> None:
    with pytest.raises((msgspec.ValidationError, ValueError), match=wanted):
        msgspec.convert(given, TelemetrySettings)
