"""Overrides as pure decisions: what holds where and when, and what it makes of answers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.overrides import MADE_S, overridden, override
from runtime.core.control import Subject, is_usable, with_stop, without_stops
from runtime.core.overrides import (
    TOLERANCE_S,
    HeardOverrides,
    adjusted,
    in_force,
    key_of,
    notice_of,
    ruling_of,
    treated,
    with_override,
    without_ended,
    without_overrides,
)
from runtime.messages import ControlState, Override, OverrideKind, Stop, StopMode, StopScope, Tier

LABELS = ("cat", "dog", "owl")
HERE = Subject("r", "camera-1", "animals", "edge-1")
ABOVE = (Tier.EDGE, Tier.REGIONAL, Tier.CLOUD)
labels = st.lists(st.sampled_from([*LABELS, "unicorn"]), min_size=1, max_size=4)
scores = st.lists(
    st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), min_size=1, max_size=4
).map(lambda rows: np.array(rows, np.float32))


def bans_and_boosts() -> st.SearchStrategy[list[Override]]:
    ban = labels.map(lambda names: override("ban", *names))
    boost = st.tuples(labels, st.floats(0.5, 20)).map(
        lambda said: override("boost", *said[0], amount=said[1])
    )
    return st.lists(st.one_of(ban, boost), max_size=5)


@given(scores, bans_and_boosts())
def test_no_answer_has_a_banned_label(given_: Any, overrides: list[Override]) -> None:
    before = given_.copy()
    found = adjusted(given_, LABELS, overrides)
    banned = {name for one in overrides if one.kind is OverrideKind.BAN for name in one.labels}

    assert np.array_equal(given_, before)
    if found is None:
        assert not any(set(one.labels) & set(LABELS) for one in overrides)
        return
    assert found.is_empty == (banned >= set(LABELS))
    assert np.isfinite(found.scores).all()
    assert found.scores.dtype == given_.dtype
    if not found.is_empty:
        chosen = {LABELS[int(row.argmax())] for row in found.scores}
        assert not chosen & banned
    left = [place for place, name in enumerate(LABELS) if name not in banned]
    amounts = np.zeros(3, np.float64)
    for one in overrides:
        if one.kind is OverrideKind.BOOST:
            for name in set(one.labels) & set(LABELS):
                amounts[LABELS.index(name)] += one.amount
    expected = given_[:, left] + amounts[left].astype(np.float32)
    assert np.allclose(found.scores[:, left], expected, atol=1e-4)


def test_scores_of_another_shape_are_left_alone() -> None:
    assert adjusted(np.zeros((1, 5), np.float32), LABELS, [override("ban", "cat")]) is None


def test_what_is_for_answers_leaves_scores_alone() -> None:
    assert adjusted(np.zeros((1, 3), np.float32), LABELS, [override("withhold", "cat")]) is None


@given(
    st.sampled_from([0, 1, 2]),
    st.one_of(st.none(), st.floats(0, 1)),
    st.lists(
        st.tuples(st.sampled_from(["withhold", "replace"]), labels, st.floats(0.1, 1.0)),
        max_size=4,
    ),
)
def test_labels_are_kept_back_or_replaced_in_their_order(
    label: int, confidence: float | None, said: list[tuple[str, list[str], float]]
) -> None:
    overrides = [
        override(kind, *(name for name in names if name != "owl" or kind == "withhold"),
                 below=below, **({"answer": "owl"} if kind == "replace" else {}))
        for kind, names, below in said
        if kind == "withhold" or set(names) - {"owl"}
    ]  # fmt: skip
    now: str | None = LABELS[label]
    by = []
    for one in overrides:
        is_unsure = one.below == 1.0 or (confidence or 0.0) < one.below
        if now is None or now not in one.labels or not is_unsure:
            continue
        now = None if one.kind is OverrideKind.WITHHOLD else "owl"
        by.append(one)

    found = treated(label, confidence, LABELS, overrides)
    if not by:
        assert found is None
        return
    assert found is not None
    assert (None if found.label is None else LABELS[found.label]) == now
    assert found.by == tuple(by)


def test_a_replacement_that_the_model_does_not_have_changes_nothing() -> None:
    assert treated(0, 0.5, LABELS, [override("replace", "cat", answer="unicorn")]) is None


def test_the_pin_or_tier_that_was_said_last_and_holds_decides() -> None:
    pinned = override("pin", answer="dog", context={"line": 7.0})
    elsewhere = override("pin", answer="unicorn", id="pin-2")
    climbs = override("tier", tier="cloud", id="tier-1")
    below = override("tier", tier="edge", id="tier-2")
    banned = override("ban", "cat")

    found = ruling_of([climbs, pinned, elsewhere, banned], {"line": 7.0}, LABELS, ABOVE)
    assert found is not None
    ruling, by = found
    assert (ruling.rule, ruling.label, ruling.when) == ("override:pin-1", 1, ("line == 7.0",))
    assert by is pinned
    found = ruling_of([climbs, pinned, elsewhere, banned], {"line": 8.0}, LABELS, ABOVE)
    assert found is not None
    assert (found[0].tier, found[0].label) == (Tier.CLOUD, None)
    assert ruling_of([below], {}, LABELS, ABOVE[1:]) is None


@pytest.mark.parametrize(
    ("scope", "target", "holds"),
    [
        ("all", "", True), ("region", "r", True), ("region", "s", False),
        ("model", "animals", True), ("model", "animals@edge-1", True),
        ("model", "animals@edge-2", False), ("device", "camera-1", True),
        ("device", "r/camera-1", True), ("device", "s/camera-1", False),
    ],
)  # fmt: skip
def test_it_holds_where_its_scope_reaches(scope: str, target: str, holds: bool) -> None:
    known = {"r": overridden(1, override("ban", "cat", scope=scope, target=target))}
    assert bool(in_force(known, HERE, {}, 0.0)) is holds


def test_it_ends_so_long_after_it_was_heard_first_whatever_the_clock_says() -> None:
    one = override("ban", "cat", lasts_s=100)
    known = {"r": overridden(1, one)}
    heard = HeardOverrides(known, {}, 50.0)

    assert heard.of(HERE, 50.0) == (one,)
    assert heard.of(HERE, 50.1) == (one,)
    assert heard.of(HERE, 149.0) == (one,)
    assert heard.of(HERE, 151.0) == ()
    again = HeardOverrides(known, heard.heard, 120.0)
    assert again.of(HERE, 151.0) == ()
    # The clock was set back: it does not hold for ever.
    back = HeardOverrides(known, heard.heard, 10.0)
    assert back.heard == {key_of("r", one): 10.0}
    assert back.of(HERE, 109.0) == (one,)
    assert back.of(HERE, 111.0) == ()
    assert heard.of(HERE, 40.0) == (one,)


def test_many_versions_are_remembered_for_a_while_only() -> None:
    heard = HeardOverrides({"r": overridden(1, override("ban", "cat"))}, {}, 0.0)
    for number in range(40):
        assert heard.of(Subject("r", "c", "animals", str(number)), 1.0)
    assert len(heard._found) <= 16


def test_who_serves_a_region_takes_back_what_has_ended() -> None:
    short, long = override("ban", "cat", lasts_s=10), override("ban", "dog", id="b2", lasts_s=99)
    state = overridden(5, short, long)

    assert without_ended(state, MADE_S + 10 + TOLERANCE_S - 1) is None
    left = without_ended(state, MADE_S + 10 + TOLERANCE_S)
    assert left is not None
    assert (left.sequence, left.overrides) == (6, (long,))
    assert left == without_ended(state, MADE_S + 11 + TOLERANCE_S)


def test_changes_of_one_kind_leave_the_other_alone() -> None:
    stop = Stop(StopScope.ALL, StopMode.STOP, "w", "b", MADE_S)
    one, two = override("ban", "cat"), override("ban", "dog", id="b2")
    state = with_override(None, "r", one, sequence=1)
    state = with_override(with_stop(state, "r", stop, sequence=2), "r", two, sequence=3)
    again = with_override(state, "r", override("ban", "owl"), sequence=4)

    assert (state.stops, state.overrides) == ((stop,), (one, two))
    assert [item.labels for item in again.overrides] == [("dog",), ("owl",)]
    gone = without_overrides(state, ["b2", "nobody"], sequence=5, by="k", why="w")
    assert (gone.stops, gone.overrides) == ((stop,), (one,))
    resumed = without_stops(state, [stop], sequence=6, by="k", why="w")
    assert (resumed.stops, resumed.overrides) == ((), (one, two))


def test_a_state_with_an_id_twice_or_a_target_that_is_none_is_not_usable() -> None:
    one = override("ban", "cat")
    assert is_usable(overridden(1, one))
    assert not is_usable(overridden(1, one, override("ban", "dog")))
    assert not is_usable(overridden(1, override("ban", "cat", target="r")))
    assert not is_usable(overridden(1, override("ban", "cat", wall_s=-1.0)))


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "ban"},
        {"kind": "pin"},
        {"kind": "pin", "answer": "cat", "labels": ["dog"]},
        {"kind": "tier"},
        {"kind": "tier", "tier": "cloud", "answer": "cat"},
        {"kind": "boost", "labels": ["cat"]},
        {"kind": "boost", "labels": ["cat"], "amount": 21},
        {"kind": "ban", "labels": ["cat"], "amount": 1},
        {"kind": "ban", "labels": ["cat"], "context": {"a": 1}},
        {"kind": "replace", "labels": ["cat"], "answer": "cat"},
        {"kind": "withhold", "labels": ["cat"], "below": 0},
        {"kind": "ban", "labels": ["cat"], "lasts_s": 0},
        {"kind": "ban", "labels": ["cat"], "lasts_s": 1e9},
        {"kind": "ban", "labels": [""]},
        {"kind": "ban", "labels": ["cat"], "id": "a/b"},
        {"kind": "dance", "labels": ["cat"]},
    ],
)
def test_what_does_nothing_or_two_things_is_refused(said: dict[str, Any]) -> None:
    whole = {"id": "x", "scope": "all", "why": "w", "by": "b", "wall_s": 1.0, "lasts_s": 1, **said}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(whole, Override)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        override("ban", "cat", wall_s=math.nan)
    with pytest.raises(ValueError, match="not finite"):
        override("pin", answer="cat", context={"a": math.inf})


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (override("pin", answer="cat"), "answers cat"),
        (override("tier", tier="cloud"), "has cloud answer"),
        (override("ban", "cat", "dog"), "bans cat, dog"),
        (override("boost", "cat", amount=-1.5), "adds -1.5 to cat"),
        (override("withhold", "cat", below=0.9), "keeps cat back below 0.9"),
        (override("replace", "cat", answer="dog"), "makes dog of cat"),
    ],
)
def test_it_is_told_in_words(said: Override, text: str) -> None:
    told = notice_of([said])
    assert told.startswith(f"override {said.id} ({text}) by kim@desk since 2026-")
    assert told.endswith(": a test")
    assert "\x1b" not in notice_of([msgspec.structs.replace(said, why="a\x1b[31m")])


def test_a_state_of_an_earlier_version_has_no_overrides() -> None:
    assert msgspec.json.decode(b'{"kind":"control","region":"r","sequence":1}', type=ControlState
                               ).overrides == ()  # fmt: skip
