"""Decisions that are told whole: which ones, how much of them, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.rollups import row
from fakes.samples import climbed, sample
from runtime.common_settings import RequestSettings
from runtime.core import merging
from runtime.core.merging import MAX_WITH_SAMPLES_BYTES, fair, merged
from runtime.core.sampling_decisions import COLUMNS, chosen, is_notable, rank_of, sample_of
from runtime.core.seen import Seen, seen_text
from runtime.decision_sample import MAX_SAMPLE_BYTES, Sample, name_of, size_of
from runtime.errors import MalformedBodyError
from runtime.telemetry import (
    AuditRow,
    Rollup,
    RollupRow,
    Source,
    decode_rollup,
    encode_rollup,
)

NOW_S = 1_800_000_000.0
# As it was before there were samples.
BEFORE = (
    b'{"sources":[{"region":"eu","site":"cam-1","tier":"edge","log":"a","first":1,"last":0,'
    b'"unread":0,"dropped":0}],"rows":[],"audits":[],"v":1}'
)
samples = st.builds(
    sample,
    request_id=st.integers(0, 500).map(str),
    site=st.sampled_from(["cam-1", "cam-2"]),
    action=st.sampled_from(["answer", "answer", "escalate"]),
    outcome=st.sampled_from(["answered", "answered", "answered", "degraded"]),
    hop=st.sampled_from([0, 0, 1]),
)


def named(some: list[Sample]) -> dict[tuple[str, ...], Sample]:
    return {name_of(one): one for one in some}


def logged(**more: Any) -> dict[str, object]:
    """A row of a decision log."""
    values: dict[str, object] = dict.fromkeys(COLUMNS, "")
    values |= {
        "wall_s": NOW_S - 5, "request_id": "r1", "hop": 0, "label": 3, "confidence": 0.9,
        "remaining_ms": 95.0, "latency_ms": 2.0, "score": None, "gain": None, "cost": None,
        "chance": None, "budget_ms": None, "service_us": 300, "sent_bytes": 0,
        "propensity": 1.0, "seen": "edge=3:0.9", "audit_chance": 0.0, "residency": "cloud",
    }  # fmt: skip
    return {**values, **more}


def told(**more: Any) -> Sample | None:
    return sample_of(logged(**more), region="eu", site="cam-1", tier="edge", now_s=NOW_S)


@given(st.lists(samples, max_size=80), st.lists(samples, max_size=80), st.integers(0, 20))
def test_a_choice_out_of_choices_is_the_choice_out_of_everything(
    some: list[Sample], others: list[Sample], most: int
) -> None:
    first, second = named(some), {k: v for k, v in named(others).items() if k not in named(some)}

    of_choices = chosen(named(chosen(first, most) + chosen(second, most)), most)

    assert of_choices == chosen({**first, **second}, most)


@given(st.lists(samples, max_size=80), st.integers(0, 20))
def test_half_of_the_places_are_for_what_climbed_or_did_not_succeed(
    some: list[Sample], most: int
) -> None:
    every = named(some)
    kept = chosen(every, most)

    num_notable = sum(map(is_notable, every.values()))
    assert len(kept) == min(most, len(every))
    assert sum(map(is_notable, kept)) >= min(num_notable, math.ceil(most / 2))
    ranks = [rank_of(one.request_id) for one in kept]
    assert ranks == sorted(ranks)


def test_tiers_choose_the_same_requests() -> None:
    edge = [climbed(str(number)) for number in range(200)]
    top = [sample(str(number), tier="cloud", hop=2) for number in range(200)]

    below, above = chosen(named(edge), 10), chosen(named(top), 10)

    assert [one.request_id for one in below] == [one.request_id for one in above]


@given(
    st.fixed_dictionaries(
        {
            name: st.one_of(
                st.none(), st.floats(), st.integers(), st.text(max_size=300), st.binary(max_size=9)
            )
            for name in COLUMNS
            if name != "residency"
        }
    )
)
def test_whatever_a_log_holds_the_wire_takes_what_is_told_of_it(row_: dict[str, object]) -> None:
    found = told(**row_)

    if found is not None:
        sent = rollup_of(found)
        assert decode_rollup(encode_rollup(sent)) == sent


def rollup_of(*some: Sample, count: int = 0) -> Rollup:
    """A rollup of cam-1 that covers as many decisions as it has samples."""
    num = count or len(some)
    rows = (row(region="eu", site="cam-1", count=num),) if num else ()
    return Rollup((Source("eu", "cam-1", "edge", "a", 1, num),), rows, samples=some)


def test_a_sample_says_what_the_log_says() -> None:
    found = told(seen=seen_text({"edge": Seen(7, 0.98123), "regional-2": Seen(3, -1e-05)}))

    assert found is not None
    assert (found.age_s, found.request_id, found.label) == (5.0, "r1", 3)
    assert found.seen == "edge=7:0.98123;regional-2=3:-1e-05"
    assert (found.confidence, found.latency_ms, found.score) == (0.9, 2.0, None)


@pytest.mark.parametrize("residency", ["region", "device", "", None, "elsewhere"])
def test_what_may_not_reach_the_cloud_is_not_told(residency: object) -> None:
    assert told(residency=residency) is None


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a\nb", None, b"r1", 7])
def test_an_id_that_no_caller_may_choose_is_not_told(request_id: object) -> None:
    assert told(request_id=request_id) is None


def test_numbers_that_are_none_and_texts_that_are_long_are_told_as_far_as_they_may_be() -> None:
    found = told(
        confidence=math.nan, latency_ms=math.inf, label=-1, hop=1e9, propensity=2, wall_s=None,
        model="m" * 300, seen="0.1,0.2,0.7", service_us="x",
    )  # fmt: skip

    assert found is not None
    assert (found.confidence, found.latency_ms, found.label, found.hop) == (None, None, None, 0)
    assert (found.propensity, found.age_s, found.service_us) == (1.0, 0.0, 0)
    assert (found.model, found.seen) == ("m" * 128, "")
    wide = dict.fromkeys(("model", "gear", "policy", "rule", "route"), "\U0001f600" * 128)
    assert told(**wide) is None


def test_an_earlier_version_skips_samples_and_this_one_takes_rollups_without() -> None:
    class Earlier(msgspec.Struct, frozen=True):
        sources: tuple[Source, ...]
        rows: tuple[RollupRow, ...] = ()
        audits: tuple[AuditRow, ...] = ()
        v: int = 1

    sent = rollup_of(sample(), climbed("r2"))
    skipped = msgspec.json.decode(encode_rollup(sent), type=Earlier)

    assert (skipped.sources, skipped.rows, skipped.v) == (sent.sources, sent.rows, 1)
    assert decode_rollup(BEFORE).samples == ()


@pytest.mark.parametrize(
    ("rollup", "says"),
    [
        (rollup_of(sample(site="cam-2")), "do not cover"),
        (rollup_of(sample(), sample("r2"), count=1), "do not cover"),
        (rollup_of(sample("a\u200bb")), "no caller may choose"),
        (rollup_of(sample("\u0000")), "no caller may choose"),
        (rollup_of(sample("x" * 129)), "not a rollup"),
        (rollup_of(sample("")), "not a rollup"),
        (rollup_of(sample(confidence=1.5)), "not a rollup"),
        (rollup_of(sample(age_s=-1.0)), "not a rollup"),
        (rollup_of(sample(label=-1)), "not a rollup"),
        (rollup_of(sample(seen="edge=3:0.9\n")), "not a rollup"),
        (rollup_of(sample(seen=";".join(["edge=3:0.9"] * 7))), "not a rollup"),
        (rollup_of(sample(seen="0.1 0.2 0.7")), "not a rollup"),
        (rollup_of(sample(model="m" * 129)), "not a rollup"),
        (rollup_of(*(sample(str(one)) for one in range(501))), "not a rollup"),
        (
            rollup_of(
                sample(
                    **dict.fromkeys(("model", "gear", "policy", "rule"), "\U0001f600" * 128)
                )
            ),
            f"more than {MAX_SAMPLE_BYTES} bytes",
        ),
    ],
)  # fmt: skip
def test_what_no_sample_may_say_is_refused(rollup: Rollup, says: str) -> None:
    body = encode_rollup(rollup)

    with pytest.raises(MalformedBodyError, match=says):
        decode_rollup(body)


@pytest.mark.parametrize("value", [b"1e999", b"NaN", b'"5"', b"-1"])
def test_a_number_that_is_none_is_refused(value: bytes) -> None:
    body = encode_rollup(rollup_of(sample(age_s=123.25))).replace(b"123.25", value)

    with pytest.raises(MalformedBodyError, match="not a rollup"):
        decode_rollup(body)


def part(first: int, *some: Sample) -> Rollup:
    count = len(some)
    place = some[0]
    source = Source("eu", place.site, "edge", "a", first, first + count - 1)
    return Rollup((source,), (row(region="eu", site=place.site, count=count),), samples=some)


def test_merged_samples_are_older_and_of_a_request_once() -> None:
    (whole,) = merged(
        [(90.0, part(1, sample(), sample("r2"))), (math.nan, part(3, sample(label=4)))]
    )

    assert {(one.request_id, one.age_s, one.label) for one in whole.samples} == {
        ("r1", 5.0, 4), ("r2", 95.0, 3),
    }  # fmt: skip
    assert decode_rollup(encode_rollup(whole)) == whole


def test_no_site_has_more_than_its_share_of_what_is_merged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merging, "_MAX_HELD", 150)
    loud = [part(1 + 50 * at, *(sample(f"{at}-{one}") for one in range(50))) for at in range(8)]
    quiet = part(1, *(sample(str(one), site="cam-2") for one in range(10)))

    (whole,) = merged((0.0, one) for one in [*loud, quiet])

    sites = [one.site for one in whole.samples]
    assert (sites.count("cam-1"), sites.count("cam-2")) == (100, 10)


@given(st.lists(samples, max_size=60))
def test_what_is_merged_is_bounded_in_number_and_bytes(some: list[Sample]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "MAX_SAMPLES", 20)
        patch.setattr(merging, "MAX_SAMPLES_BYTES", 2000)
        kept = fair(named(some))

    assert len(kept) <= 20
    assert sum(map(size_of, kept)) <= 2000
    room = 2000 // max(map(size_of, some), default=1)
    assert len(kept) >= min(room, 20, len(named(some)))


@pytest.mark.parametrize(("num_buckets", "num_merged"), [(40, 1), (120, 2)])
def test_samples_never_make_a_rollup_too_large_to_be_taken(
    num_buckets: int, num_merged: int
) -> None:
    latency = {1000 + at: 1 for at in range(num_buckets)}
    rollups = []
    for number in range(40):
        site = f"cam-{number}"
        told = tuple(sample(f"{at:0>100}", site=site) for at in range(50))
        rows = tuple(
            row(site=site, label=str(at), count=num_buckets, latency=latency) for at in range(25)
        )
        place = Source("eu", site, "edge", "a", 1, 25 * num_buckets)
        rollups.append(Rollup((place,), rows, samples=told))

    sent = merged((0.0, one) for one in rollups)

    assert len(sent) == num_merged
    assert sum(len(one.rows) for one in sent) == 1000
    assert all(one.samples for one in sent)
    assert all(len(encode_rollup(one)) <= MAX_WITH_SAMPLES_BYTES for one in sent)
    assert RequestSettings().max_body_bytes > MAX_WITH_SAMPLES_BYTES
