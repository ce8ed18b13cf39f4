"""No rollup is too large for a message, and nothing that it counts is lost or told twice for it."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fakes.rollups import row
from fakes.samples import sample
from runtime.adapters.packet_size import DEFAULT_MAX_PACKET_BYTES
from runtime.common_settings import RequestSettings
from runtime.core.merging import MAX_BARE_BYTES, MAX_WITH_SAMPLES_BYTES, merged
from runtime.core.parting import bare_bytes, parted
from runtime.core.rollup import (
    MAX_AUDITS_BYTES,
    MAX_ROWS_BYTES,
    Audited,
    Decided,
    roll_up,
    roll_up_audits,
)
from runtime.decision_sample import MAX_SAMPLE_BYTES, MAX_SAMPLES_OF_A_SITE
from runtime.telemetry import AuditRow, Rollup, RollupRow, Source, decode_rollup, encode_rollup

Row = TypeVar("Row", RollupRow, AuditRow)
NOW_S = 1_800_000_000.0
BOUND = 6000
sites = st.sampled_from(["cam-1", "cam-2", "cam-3"])
tiers = st.sampled_from(["edge", "regional"])
texts = st.sampled_from(["", "7", "m" * 128, "ü" * 128])
buckets = st.dictionaries(st.integers(-600, 1600), st.integers(1, 10**6), max_size=40)
rows = st.builds(
    row,
    minutes_ago=st.integers(0, 3),
    site=sites,
    tier=tiers,
    label=texts,
    model=texts,
    count=st.integers(0, 50),
    latency=buckets,
    latency_ms_sum=st.floats(0, 1e9),
)
audits = st.builds(
    AuditRow,
    st.integers(0, 3), st.just("eu"), sites, texts, texts,
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 9),
    st.integers(0, 99).map(float), st.just(0.0),
)  # fmt: skip


@st.composite
def rollups(draw: st.DrawFn) -> list[Rollup]:
    """Some of several places, one after the other, with logs that were lost and rows unread."""
    after: Counter[tuple[str, ...]] = Counter()
    is_numbered = draw(st.booleans())
    told = []
    for number in range(draw(st.integers(0, 4))):
        some = draw(st.lists(rows, max_size=12))
        few = draw(st.lists(audits, max_size=6))
        counts: Counter[tuple[str, str]] = Counter({(one.site, "edge"): 0 for one in few})
        for one in some:
            counts[one.site, one.tier] += one.count
        num_audits = Counter[str]()
        for one_audit in few:
            num_audits[one_audit.site] += one_audit.agreed + one_audit.disagreed + one_audit.failed
        sources = []
        for (site, tier), count in counts.items():
            num_lost, unread = draw(st.integers(0, count)), draw(st.integers(0, 5))
            for log, num, skipped in (("a", num_lost, unread), ("b", count - num_lost, 0)):
                first = after[site, tier, log] + 1
                last = after[site, tier, log] = first - 1 + num + skipped
                audits_from = after[site, tier, log, "audits"] + 1
                num_here = num_audits[site] if (tier, log) == ("edge", "a") else 0
                audits_to = after[site, tier, log, "audits"] = audits_from - 1 + num_here
                numbers_ = (audits_from, audits_to) if is_numbered else ()
                sources.append(
                    Source("eu", site, tier, log, first, last, skipped, number, *numbers_)
                )
        told.append(Rollup(tuple(sources), tuple(some), tuple(few)))
    return told


def totals(many: list[Rollup]) -> Counter[object]:
    """Everything that rollups count, by where it belongs."""
    found: Counter[object] = Counter()
    for one in many:
        for it in one.rows:
            place = (it.minutes_ago, it.site, it.tier, it.label, it.model)
            found[place] += it.count
            found.update({(place, bucket): num for bucket, num in it.latency.items()})
        for audit in one.audits:
            of = (audit.minutes_ago, audit.site, audit.policy, audit.gear)
            found[of] += audit.agreed
            found[of, "against"] += audit.disagreed
            found[of, "failed"] += audit.failed
            found[of, "weighted"] += int(audit.weighted_agreed)
        for source in one.sources:
            found["unread", source.site, source.tier, source.log] += source.unread
    return +found


def numbers(many: list[Rollup]) -> Counter[object]:
    """How often the numbers of each log are covered."""
    found: Counter[object] = Counter()
    for source in (source for one in many for source in one.sources):
        log = (source.site, source.tier, source.log)
        found.update((*log, number) for number in range(source.first, source.last + 1))
        if source.audits_first:
            of_audits = range(source.audits_first, source.audits_last + 1)
            found.update((*log, "audit", number) for number in of_audits)
    return found


@given(rollups())
def test_every_part_is_under_the_bound_and_all_is_in_one_of_them(given_: list[Rollup]) -> None:
    for whole in given_:
        parts = parted(whole, BOUND)

        assert all(bare_bytes(one) <= BOUND for one in parts)
        assert all(decode_rollup(encode_rollup(one)) == one for one in parts)
        assert totals(parts) == totals([whole])
        assert numbers(parts) == numbers([whole])


@given(rollups(), st.floats(0, 1e5))
def test_what_is_merged_is_under_the_bound_and_arrives_once(
    given_: list[Rollup], age_s: float
) -> None:
    sent = merged(((age_s, one) for one in given_), BOUND)
    late = int(age_s // 60)

    assert all(bare_bytes(one) <= BOUND for one in sent)
    assert all(decode_rollup(encode_rollup(one)) == one for one in sent)
    aged = [
        msgspec.structs.replace(
            one,
            rows=tuple(_later(it, late) for it in one.rows),
            audits=tuple(_later(it, late) for it in one.audits),
        )
        for one in given_
    ]
    assert totals(sent) == totals(aged)
    assert numbers(sent) == numbers(given_)


def _later(row_: Row, minutes: int) -> Row:
    return msgspec.structs.replace(row_, minutes_ago=row_.minutes_ago + minutes)


def decided(number: int, model: str) -> Decided:
    return Decided(
        NOW_S - number, "eu", "cam-1", "edge", model, "1", "", "", "", "answer", "confident",
        "answered", "confident", "edge", "none", number, 0, 1.1**(number % 200), None, 0, 10, None,
        0.9,
    )  # fmt: skip


@given(st.lists(st.builds(decided, st.integers(0, 300), texts), max_size=80))
def test_a_device_leaves_for_the_next_rollup_what_is_over_the_bound(given_: list[Decided]) -> None:
    sent: list[RollupRow] = []
    left = given_
    while left:
        some, taken = roll_up(left, NOW_S, BOUND)
        assert len(msgspec.json.encode(some)) <= BOUND
        assert sum(one.count for one in some) == taken
        sent, left = [*sent, *some], left[taken:]

    assert sum(one.count for one in sent) == len(given_)


def test_decisions_that_differ_in_long_words_stay_under_the_bound() -> None:
    many = [decided(number, f"{number:\x01>128}") for number in range(1000)]
    some, taken = roll_up(many, NOW_S)
    few, audits_taken = roll_up_audits(
        [Audited(NOW_S, "eu", "cam-1", it.model, "", 0.5, agrees=True) for it in many], NOW_S
    )

    assert 0 < len(msgspec.json.encode(some)) <= MAX_ROWS_BYTES
    assert 0 < len(msgspec.json.encode(few)) <= MAX_AUDITS_BYTES
    assert (sum(one.count for one in some), len(few)) == (taken, audits_taken)


def test_a_row_alone_always_fits() -> None:
    most, text = 1 << 53, "\x01" * 128
    every = dict.fromkeys(range(-2048, 2048), most)
    changes: dict[str, Any] = dict.fromkeys(
        ("region", "site", "tier", "model", "version", "policy", "gear", "route", "action",
         "decided", "outcome", "reason", "answered_by", "guarantee", "label"), text,
    )  # fmt: skip
    largest = row(count=most, confidences=every, latency=every, **changes)
    told = Rollup((Source(text, text, text, "f" * 32, 1, most),), (largest, largest))

    assert len(encode_rollup(Rollup(told.sources, (largest,)))) < 250_000 < MAX_BARE_BYTES
    with_its_samples = MAX_ROWS_BYTES + MAX_AUDITS_BYTES + MAX_SAMPLES_OF_A_SITE * MAX_SAMPLE_BYTES
    assert MAX_BARE_BYTES < MAX_WITH_SAMPLES_BYTES < RequestSettings().max_body_bytes
    assert with_its_samples < MAX_WITH_SAMPLES_BYTES < DEFAULT_MAX_PACKET_BYTES


def test_what_must_be_parted_gives_up_its_samples() -> None:
    told = tuple(row(label=str(number), site="cam-1") for number in range(40))
    whole = Rollup((Source("eu", "cam-1", "edge", "a", 1, 40),), told, samples=(sample(),))

    assert parted(whole, 10**6) == [whole]
    assert [one.samples for one in parted(whole, bare_bytes(whole) - 1)] == [(), ()]


def test_numbers_are_dealt_to_the_part_that_counts_them() -> None:
    def place(site: str, last: int, unread: int = 0, audits_last: int = 0) -> Source:
        numbers_ = (1, audits_last) if audits_last else ()
        return Source("eu", site, "edge", "a", 1, last, unread, 0, *numbers_)

    def audit(site: str, agreed: int) -> AuditRow:
        return AuditRow(0, "eu", site, "", "", agreed, 0, 0, 0.0, 0.0)

    whole = Rollup(
        (place("cam-1", 3), place("cam-2", 9, 2, 5), place("cam-3", 1, audits_last=4)),
        (row(site="cam-1", count=3), row(site="cam-2", count=7), row(site="cam-3", count=1)),
        (audit("cam-2", 2), audit("cam-2", 3), audit("cam-3", 4)),
    )

    parts = parted(whole, 400)

    dealt = [
        [(one.site, one.first, one.last, one.audits_first, one.audits_last) for one in part.sources]
        for part in parts
    ]
    assert dealt == [
        [("cam-1", 1, 3, 0, 0)],
        [("cam-2", 1, 9, 1, 0)],
        [("cam-3", 1, 1, 1, 0)],
        [("cam-2", 10, 9, 1, 2)],
        [("cam-2", 10, 9, 3, 5), ("cam-3", 2, 1, 1, 4)],
    ]
