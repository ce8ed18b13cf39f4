"""Rollups count every decision once, whatever is merged with whatever."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core import merging, rollup
from runtime.core.merging import merged, speaks_for
from runtime.core.rollup import Audited, Decided, roll_up, roll_up_audits
from runtime.core.sketch import LEAST, MOST, RELATIVE_ERROR, added, bucket_of, quantile, value_of
from runtime.errors import MalformedBodyError
from runtime.messages import Tier
from runtime.telemetry import (
    OTHER,
    AuditRow,
    Rollup,
    RollupRow,
    Source,
    decode_rollup,
    encode_rollup,
)

NOW_S = 1_800_000_000.0
values_ms = st.floats(1e-3, 1e7)
odd = st.sampled_from([math.nan, math.inf, -1.0, 0.0, 1e300])
decisions = st.builds(
    Decided,
    wall_s=st.one_of(st.floats(NOW_S - 400, NOW_S + 100), odd),
    region=st.just("eu"),
    site=st.just("cam"),
    tier=st.just("edge"),
    model=st.sampled_from(["m", "n" * 300]),
    model_version=st.just("1"),
    policy=st.just(""),
    gear=st.just(""),
    route=st.just(""),
    action=st.sampled_from(["answer", "escalate"]),
    decided_because=st.just("confident"),
    outcome=st.just("answered"),
    reason=st.just("confident"),
    answered_by=st.just("edge"),
    guarantee=st.just("none"),
    label=st.one_of(st.none(), st.integers(0, 40)),
    hop=st.integers(0, 1),
    latency_ms=st.one_of(st.floats(0, 1e6), odd),
    budget_ms=st.one_of(st.none(), st.just(50.0)),
    sent_bytes=st.integers(-1, 2**60),
    service_us=st.integers(0, 2**60),
    cost=st.one_of(st.none(), st.floats(0, 10), odd),
    confidence=st.one_of(st.none(), st.floats(0, 1), odd),
)
audits = st.builds(
    Audited,
    wall_s=st.floats(NOW_S - 400, NOW_S),
    region=st.just("eu"),
    site=st.just("cam"),
    policy=st.sampled_from(["a", "b"]),
    gear=st.just(""),
    chance=st.one_of(st.floats(0.01, 1), st.just(0.0)),
    agrees=st.sampled_from([True, False, None]),
)


def source(first: int, last: int, *, site: str = "cam", log: str = "1", unread: int = 0) -> Source:
    return Source("eu", site, "edge", log, first, last, unread)


def numbered(first: int, last: int) -> Source:
    """Of a log whose decisions were counted before."""
    return msgspec.structs.replace(source(5, 4), audits_first=first, audits_last=last)


def told(given_: list[Decided], first: int = 1) -> Rollup:
    rows, taken = roll_up(given_, NOW_S)
    assert taken == len(given_)
    return Rollup((source(first, first + taken - 1),), rows)


@given(st.lists(values_ms, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_the_relative_error(values: list[float], share: float) -> None:
    sketch = added({bucket_of(value): 1} for value in values)
    found = quantile(sketch, share)
    exact = float(np.quantile(values, share, method="lower"))

    assert found is not None
    assert abs(found - exact) <= exact * RELATIVE_ERROR * (1 + 1e-9)


def test_what_is_no_latency_is_in_the_least_bucket_and_what_is_enormous_in_the_last() -> None:
    assert [bucket_of(value) for value in (math.nan, -1.0, 0.0, math.inf, 1e300)] == [
        LEAST, LEAST, LEAST, MOST, MOST,
    ]  # fmt: skip
    assert value_of(LEAST) < value_of(MOST)
    assert quantile({}, 0.5) is None
    with pytest.raises(ValueError, match="lies in 0"):
        quantile({1: 1}, 1.5)


@given(st.lists(decisions, max_size=60))
def test_every_decision_is_counted_once_and_the_wire_takes_it(given_: list[Decided]) -> None:
    sent = told(given_)
    got = decode_rollup(encode_rollup(sent))

    assert got == sent
    assert sum(row.count for row in got.rows) == len(given_)
    assert sum(sum(row.latency.values()) for row in got.rows) == len(given_)
    assert sum(row.confident for row in got.rows) == sum(
        one.confidence is not None and 0 <= one.confidence <= 1 for one in given_
    )
    assert all(sum(row.confidences.values()) == row.confident for row in got.rows)


@given(st.lists(st.lists(decisions, max_size=8), max_size=8), st.floats(0, 1e5))
def test_merging_changes_no_total(parts: list[list[Decided]], age_s: float) -> None:
    first, rollups = 1, []
    for part in parts:
        rollups.append(told(part, first))
        first += len(part)
    whole = merged((age_s, one) for one in rollups)

    def totals(many: list[Rollup]) -> Counter[tuple[object, ...]]:
        found: Counter[tuple[object, ...]] = Counter()
        for one in many:
            for row in one.rows:
                found[row.model, row.action, row.label, row.is_entry] += row.count
                found["late",] += row.late
        return found

    assert totals(whole) == totals(rollups)
    assert all(decode_rollup(encode_rollup(one)) == one for one in whole)
    assert len(whole) == min(1, len(rollups))


@given(st.lists(audits, max_size=40))
def test_audits_are_weighted_by_one_over_their_chance(given_: list[Audited]) -> None:
    rows, taken = roll_up_audits(given_, NOW_S)

    assert taken == len(given_)
    assert sum(row.agreed + row.disagreed + row.failed for row in rows) == len(given_)
    weights = [1 / one.chance if one.chance else 0 for one in given_ if one.agrees is not None]
    assert sum(row.weighted for row in rows) == pytest.approx(sum(weights))
    sent = Rollup((source(1, 0),), (), rows)
    assert decode_rollup(encode_rollup(sent)) == sent
    twice = merged([(0.0, sent), (0.0, sent)])
    assert sum(row.weighted for one in twice for row in one.audits) == pytest.approx(
        2 * sum(weights)
    )


def plain(label: int | None, minute: int = 0, policy: str = "") -> Decided:
    return Decided(
        NOW_S - 60 * minute, "eu", "cam", "edge", "m", "1", policy, "", "", "answer", "confident",
        "answered", "confident", "edge", "none", label, 0, 1.0, None, 0, 10, None, 0.9,
    )  # fmt: skip


def test_labels_without_end_are_told_as_one_and_the_rest_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollup, "MAX_LABELLED", 3)
    monkeypatch.setattr(rollup, "MAX_ROWS", 5)
    rows, taken = roll_up([plain(label) for label in range(10)], NOW_S)

    assert taken == 10
    assert [row.label for row in rows] == ["0", "1", "2", OTHER]
    assert rows[-1].count == 7

    rows, taken = roll_up([plain(0, minute) for minute in range(10)], NOW_S)
    assert (len(rows), taken) == (5, 5)
    many = [Audited(NOW_S - 60 * ago, "eu", "cam", "", "", 0.5, agrees=True) for ago in range(9)]
    assert roll_up_audits(many, NOW_S)[1] == 5


def test_merged_rollups_stay_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_ROWS", 3)
    rollups = [told([plain(number), plain(number + 1)], 2 * number + 1) for number in range(4)]
    whole = merged((0.0, one) for one in rollups)

    assert [len(one.rows) for one in whole] == [3, 3]
    assert [one.sources for one in whole] == [(source(1, 4),), (source(5, 8),)]


def test_a_gap_in_a_log_is_never_bridged() -> None:
    ahead, behind = told([plain(1)], 5), told([plain(1)], 1)

    assert [one.sources for one in merged([(0.0, ahead), (0.0, behind)])] == [
        (source(5, 5),),
        (source(1, 1),),
    ]
    assert merged([]) == []


def test_a_gap_in_the_numbers_of_audits_is_never_bridged() -> None:
    def sources(*given_: Source) -> list[tuple[Source, ...]]:
        return [one.sources for one in merged((0.0, Rollup((it,))) for it in given_)]

    assert sources(numbered(1, 3), numbered(4, 4)) == [(numbered(1, 4),)]
    assert len(sources(numbered(1, 3), numbered(5, 6))) == 2
    assert len(sources(numbered(1, 3), source(5, 4))) == 2
    assert len(sources(source(5, 4), numbered(1, 3))) == 2


def test_age_is_told_in_minutes_before_the_merging() -> None:
    (whole,) = merged([(600.0, told([plain(1, minute=2)]))])
    assert whole.rows[0].minutes_ago == 12
    (same,) = merged([(math.nan, told([plain(1, minute=2)]))])
    assert same.rows[0].minutes_ago == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "not a rollup"),
        (b"{", "not a rollup"),
        (b'{"sources": [], "v": 2}', "version 2"),
        (encode_rollup(Rollup((source(1, 2),))), "counts other decisions"),
        (encode_rollup(Rollup((), told([plain(1)]).rows)), "counts other decisions"),
        (encode_rollup(Rollup((source(5, 2),))), "covers rows"),
        (encode_rollup(Rollup((source(1, 2, unread=3),))), "covers rows"),
        (encode_rollup(Rollup((numbered(2, 0),))), "covers audits 2 to 0"),
        (encode_rollup(Rollup((numbered(0, 3),))), "covers audits 0 to 3"),
        (
            encode_rollup(Rollup((), (), (AuditRow(0, "eu", "cam", "", "", 1, 0, 0, 1.0, 1.0),))),
            "none of its sources",
        ),
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(MalformedBodyError, match=says):
        decode_rollup(body)


def test_a_decision_of_another_place_is_refused() -> None:
    rows = tuple(msgspec.structs.replace(row, site="elsewhere") for row in told([plain(1)]).rows)
    with pytest.raises(MalformedBodyError, match="counts other decisions"):
        decode_rollup(encode_rollup(Rollup((source(1, 1),), rows)))


@pytest.mark.parametrize(
    ("tier", "region", "agent", "may"),
    [
        (Tier.REGIONAL, "eu", "cam", True),
        (Tier.REGIONAL, "eu", "other", False),
        (Tier.REGIONAL, "us", "cam", False),
        (Tier.CLOUD, "cloud", "gw", True),
        (Tier.CLOUD, "eu", "cam", True),
        (Tier.CLOUD, "eu", "other", False),
    ],
)
def test_nobody_tells_of_decisions_that_are_not_theirs(
    tier: Tier, region: str, agent: str, may: bool
) -> None:
    assert speaks_for(tier, region, agent, source(1, 5)) is may


def test_a_device_cannot_make_sums_overflow() -> None:
    assert not speaks_for(Tier.REGIONAL, "eu", "cam", source(1, 2_000_000_000))
    most: dict[str, object] = {"sent_bytes": 2**53, "latency_ms_sum": 1e18}
    huge = Rollup(
        (source(1, 1),),
        tuple(msgspec.structs.replace(row, **most) for row in told([plain(1)]).rows),
    )
    after = Rollup((source(2, 2),), huge.rows)
    (whole,) = merged([(0.0, huge), (0.0, after)])

    assert decode_rollup(encode_rollup(whole)) == whole
    row: RollupRow = whole.rows[0]
    assert (row.count, row.sent_bytes, row.latency_ms_sum) == (2, 2**53, 1e18)


def test_a_device_cannot_make_a_rollup_that_is_refused_above() -> None:
    def strange(first: int, buckets: range) -> Rollup:
        """Buckets that no latency lies in, with as many as a number can be."""
        (plain_row,) = told([plain(1)]).rows
        sketch = dict.fromkeys(buckets, 2**53)
        row = msgspec.structs.replace(plain_row, latency=sketch, confidences=sketch)
        return Rollup((source(first, first),), (row,))

    low, high = strange(1, range(-2048, 2048)), strange(2, range(1, 4097))
    (whole,) = merged([(0.0, low), (0.0, high)])
    (same,) = merged([(0.0, strange(1, range(5))), (0.0, strange(2, range(5)))])

    assert decode_rollup(encode_rollup(whole)) == whole
    assert decode_rollup(encode_rollup(same)) == same
    assert (min(whole.rows[0].latency), max(whole.rows[0].latency)) == (LEAST, MOST)
    assert same.rows[0].latency == dict.fromkeys(range(5), 2**53)
