"""The recommendation keeps every limit, is the best there is, and moves as prices and limits do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fakes.placing import CASE, answers, brute_force, small_cases
from runtime.core.placement.bounds import relaxations
from runtime.core.placement.case import Case, check_case
from runtime.core.placement.curves import Answers, Curve, pruned
from runtime.core.placement.decide import front, p95_ms, recommend
from runtime.core.placement.knobs import limits_of
from runtime.core.placement.options import Evaluator

few = settings(max_examples=60, deadline=None)
EVALUATOR = Evaluator(answers())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """The usual case with other limits, prices, links and load."""
    limits = replace(
        CASE.limits,
        budget_ms=draw(st.floats(1, 300)),
        min_accuracy=draw(st.floats(0.7, 0.97)),
        residency=draw(st.sampled_from(("device", "region", "cloud"))),
        max_leaving_share=draw(st.floats(0, 1)),
    )
    places = tuple(
        replace(one, price_per_hour=draw(st.floats(0, 2)), max_machines=draw(st.integers(1, 20)))
        for one in CASE.places
    )
    links = tuple(replace(one, rtt_ms=draw(st.floats(0, 60))) for one in CASE.links)
    rates = draw(st.lists(st.floats(0.1, 500), min_size=1, max_size=4))
    load = replace(CASE.load, requests_per_s=tuple(rates))
    return replace(CASE, limits=limits, places=places, links=links, load=load)


@few
@given(small_cases())
def test_the_best_is_what_brute_force_finds_and_impossible_where_it_finds_nothing(
    drawn: tuple[Case, Answers],
) -> None:
    case, found = drawn
    check_case(case)

    choice = recommend(Evaluator(found), case)

    expected = brute_force(case, found)
    if expected is None:
        assert choice is None
    else:
        assert choice is not None
        assert choice.cost == pytest.approx(expected, rel=1e-9, abs=1e-9)


@few
@given(cases())
def test_what_is_recommended_keeps_every_limit(case: Case) -> None:
    choice = recommend(EVALUATOR, case)

    assume(choice is not None)
    assert choice is not None
    placed, limits = choice.placed(), case.limits
    assert placed.accuracy >= limits.min_accuracy - 1e-9
    assert placed.latency[1].ms <= limits.budget_ms
    assert placed.cost == pytest.approx(placed.compute + placed.transfer + placed.power)
    assert sum(part.answered_share for part in placed.parts) == pytest.approx(1)
    for part, stop in zip(placed.parts, choice.outcome.option, strict=True):
        assert part.machines <= stop.place.max_machines * stop.place.num_groups
    if len(placed.parts) > 1:
        assert placed.parts[1].reached_share <= limits.max_leaving_share + 1e-9


@few
@given(cases(), st.integers(0, 3), st.floats(0, 1))
def test_a_cheaper_place_never_raises_the_total(case: Case, index: int, factor: float) -> None:
    before = recommend(EVALUATOR, case)
    cheaper = tuple(
        replace(one, price_per_hour=one.price_per_hour * factor) if at == index else one
        for at, one in enumerate(case.places)
    )

    after = recommend(EVALUATOR, replace(case, places=cheaper))

    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert after.cost <= before.cost * (1 + 1e-9)


@few
@given(cases(), st.data())
def test_a_relaxed_limit_never_worsens_the_best(case: Case, data: st.DataObject) -> None:
    before = recommend(EVALUATOR, case)
    knobs = limits_of(case)
    knob = data.draw(st.sampled_from(knobs))
    assert knob.loosest is not None
    part = data.draw(st.floats(0, 1))
    value = knob.value + part * (knob.loosest - knob.value)

    after = recommend(EVALUATOR, knob.put(round(value) if knob.is_whole else value))

    if before is not None:
        assert after is not None
        assert after.cost <= before.cost * (1 + 1e-9)


@settings(max_examples=8, deadline=None)
@given(cases())
def test_each_relaxation_makes_the_case_possible_and_a_little_less_does_not(case: Case) -> None:
    assume(recommend(EVALUATOR, case) is None)

    for one in relaxations(EVALUATOR, case):
        assert recommend(EVALUATOR, one.knob.put(one.value)) is not None
        less = one.value - np.sign(one.value - one.knob.value) * (
            1 if one.knob.is_whole else 3e-4 * max(abs(one.value), abs(one.knob.value))
        )
        if (less - one.knob.value) * (one.value - one.knob.value) >= 0:
            assert recommend(EVALUATOR, one.knob.put(less)) is None


@settings(max_examples=20, deadline=None)
@given(cases())
def test_nothing_on_the_front_beats_another_and_the_cheapest_is_recommended(case: Case) -> None:
    found = front(EVALUATOR, case)
    best = recommend(EVALUATOR, case)

    assert (best is None) == (not found)
    figures = [
        (one.cost, float(p95_ms(one.outcome)[one.point]), -float(one.outcome.accuracy[one.point]))
        for one in found
    ]
    if best is not None:
        assert figures[0][0] == pytest.approx(best.cost)
    for one, other in itertools.permutations(figures, 2):
        assert not all(a <= b for a, b in zip(one, other, strict=True))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12
    )
)
def test_what_is_pruned_is_beaten_by_something_that_is_kept(
    points: list[tuple[int, int, int]],
) -> None:
    table = np.asarray(points, np.float64)
    curve = Curve(table[:, :1], table[:, 1], table[:, 1:], np.zeros((len(points), 0)))

    kept = pruned(curve)

    rows = [(-r, *c) for r, c in zip(kept.reach[:, 0], kept.cut.tolist(), strict=True)]
    assert len(set(rows)) == len(rows)
    for reach, *cut in points:
        assert any(
            all(k >= own for k, own in zip(row, (-reach, *cut), strict=True)) for row in rows
        )
