"""The escalation decision with a gear's advice: residency first, nothing invalid is confident."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gears import CHAIN, LOWER, RACE, SKIP, STRAIGHT, choice, gear, gearbox, policy, table
from runtime.core.confidence import INVALID, Confidence
from runtime.core.escalation import Action, EscalationPolicy, Situation, decide, pass_on, settle
from runtime.core.gearbox import Climb, Engaged, guarantee_of
from runtime.core.gears import Advice, weigh
from runtime.messages import Guarantee, Outcome, Reason, Residency, Tier
from runtime.policy import Choice

shares = st.floats(0, 1)
anything = st.floats(allow_nan=True, allow_infinity=True)
ASKS = [
    Choice(gain=(), cost=(), to=to) for to in (("regional",), ("cloud",), ("regional", "cloud"))
]
CHOICES = [None, *ASKS, Choice(gain=(), cost=(), answer="edge")]
escalation_policies = st.builds(
    EscalationPolicy,
    accept_at=shares,
    min_chance=shares,
    margin_ms=st.floats(0, 100),
    abstain_below=shares,
)
valid = st.builds(
    Confidence,
    st.none() | st.integers(0, 9),
    shares,
    shares,
    shares,
    is_valid=st.just(value=True),
)
invalid = st.sampled_from((None, INVALID))
situations = st.builds(
    Situation,
    confidence=valid | invalid,
    tier_above=st.sampled_from((None, Tier.REGIONAL, Tier.CLOUD)),
    residency=st.sampled_from(Residency),
    remaining_ms=anything,
    upstream_is_reachable=st.booleans(),
    chance_in_time=anything,
    probe_is_due=st.booleans(),
)


@st.composite
def any_advice(draw: st.DrawFn) -> Advice:
    """Any advice, also such as no table gives."""
    fitted, best = draw(st.sampled_from(CHOICES)), draw(st.sampled_from(CHOICES))
    return Advice(best, fitted, 0.0, 0.0, 0.0, best is fitted, 0, 0)


@given(escalation_policies, situations, any_advice())
def test_no_advice_sends_a_payload_past_its_residency(
    numbers: EscalationPolicy, situation: Situation, advice: Advice
) -> None:
    decision = decide(numbers, situation, advice)

    if decision.action is Action.ESCALATE:
        assert situation.tier_above is not None
        reached = (situation.tier_above, *decision.route)
        assert all(situation.residency.allows(tier) for tier in reached)


@given(escalation_policies, situations, any_advice())
def test_no_advice_climbs_without_time_link_or_chance(
    numbers: EscalationPolicy, situation: Situation, advice: Advice
) -> None:
    decision = decide(numbers, situation, advice)

    if decision.action is Action.ESCALATE:
        assert situation.remaining_ms > numbers.margin_ms
        assert situation.upstream_is_reachable
        assert situation.probe_is_due or situation.chance_in_time >= numbers.min_chance


@given(escalation_policies, situations, invalid, any_advice())
def test_what_is_invalid_is_decided_as_without_advice_and_never_confident(
    numbers: EscalationPolicy, situation: Situation, nothing: Confidence | None, advice: Advice
) -> None:
    situation = replace(situation, confidence=nothing)

    decision = decide(numbers, situation, advice)

    assert decision == decide(numbers, situation)
    assert decision.outcome is not Outcome.ANSWERED
    assert not decision.is_as_fitted


@given(escalation_policies, situations, valid, any_advice())
def test_what_is_said_to_be_as_fitted_is_what_the_fit_would_have_done(
    numbers: EscalationPolicy, situation: Situation, own: Confidence, advice: Advice
) -> None:
    decision = decide(numbers, replace(situation, confidence=own), advice)

    fitted = advice.fitted
    does_the_same = {
        Action.ESCALATE: fitted is not None and fitted.to == decision.route,
        Action.ANSWER: (
            decision.reason is Reason.CONFIDENT
            if fitted is None
            else decision.reason is Reason.LOWER_STANDS and fitted.answer == "edge"
        ),
    }
    assert not decision.is_as_fitted or does_the_same[decision.action]
    assert not decision.is_as_fitted or advice.as_fitted


@given(escalation_policies, situations, valid, any_advice())
def test_only_what_the_fit_lets_stand_is_answered_below_the_top(
    numbers: EscalationPolicy, situation: Situation, own: Confidence, advice: Advice
) -> None:
    situation = replace(situation, confidence=own, tier_above=Tier.REGIONAL)

    decision = decide(numbers, situation, advice)

    stands = advice.choice is None and advice.fitted is None
    assert (decision.outcome is Outcome.ANSWERED) == stands


@pytest.mark.parametrize(
    ("is_reachable", "reason"), [(False, Reason.NO_UPSTREAM), (True, Reason.UNLIKELY_IN_TIME)]
)
def test_an_answer_from_below_is_the_one_to_keep_where_the_fit_would_have_asked(
    is_reachable: bool,
    reason: Reason,
) -> None:
    situation = Situation(
        confidence=Confidence(1, 0.5, 0.1, 0.5, is_valid=True),
        tier_above=Tier.CLOUD,
        residency=Residency.CLOUD,
        remaining_ms=100,
        upstream_is_reachable=is_reachable,
        chance_in_time=0.9,
        probe_is_due=False,
    )
    advice = Advice(CHOICES[-1], ASKS[1], 0.0, 0.0, 0.0, False, 0, 0)

    decision = decide(EscalationPolicy(accept_at=0.9), situation, advice)

    assert (decision.outcome, decision.reason) == (Outcome.ABSTAINED, reason)


@given(escalation_policies, situations, st.sampled_from(ASKS))
def test_a_route_is_passed_on_or_there_is_a_reason_why_not(
    numbers: EscalationPolicy, situation: Situation, asks: Choice
) -> None:
    route = tuple(map(Tier, asks.to))

    decision = pass_on(numbers, situation, route)

    if decision.action is Action.ESCALATE:
        assert situation.tier_above is not None
        assert all(map(situation.residency.allows, (situation.tier_above, *route)))
        assert decision.reason in (Reason.ROUTED, Reason.PROBE)
    else:
        assert decision.outcome is Outcome.DEGRADED
        assert decision.reason in (
            Reason.RESIDENCY,
            Reason.NO_TIME,
            Reason.NO_UPSTREAM,
            Reason.UNLIKELY_IN_TIME,
        )


@given(
    st.sampled_from((CHAIN, SKIP, RACE, LOWER, STRAIGHT)),
    valid,
    st.sampled_from(Residency),
    anything,
    st.booleans(),
)
def test_advice_of_a_tables_own_never_asks_past_residency_and_knows_what_was_fitted(
    followed: object, own: Confidence, residency: Residency, chance: float, is_regional: bool
) -> None:
    tier = Tier.REGIONAL if is_regional else Tier.EDGE
    box = gearbox(tier, followed)  # type: ignore[arg-type]
    earlier = ((Tier.EDGE, 1),) if is_regional else ()
    engaged = box.engage(f"{box.digest}/g", remaining_ms=100, num_examples=1)

    def advise(where: Residency, now: float) -> Advice | None:
        found = box.advise(engaged, own, earlier, residency=where, chance=now)
        return found[0] if found else None

    advice, free = advise(residency, chance), advise(Residency.CLOUD, 1.0)

    assert (advice is None) == (free is None)
    if advice is not None and free is not None:
        asked = advice.choice.to if advice.choice else ()
        assert all(residency.allows(Tier(name)) for name in asked)
        assert advice.fitted is free.choice
        assert advice.as_fitted == (advice.choice is advice.fitted)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=2), shares, shares)
def test_a_worse_link_never_makes_asking_more_attractive(
    gains: list[float], better: float, worse: float
) -> None:
    better, worse = max(better, worse), min(better, worse)
    one = table("edge", to=("regional",))
    asks = replace_gain(one.choices[0], gains[0])
    fitted = gear(table("edge", choices=[asks]))

    values = [
        weigh(fitted, fitted.tables[0], label=0, score=0.1, chance=chance).value
        for chance in (better, worse)
    ]

    assert values[0] >= values[1]


def replace_gain(one: Choice, gain: float) -> Choice:
    return Choice(gain=((gain, gain),) * 2, cost=one.cost, to=one.to)


climbs = st.none() | st.builds(
    Climb,
    st.sampled_from(Outcome),
    st.sampled_from(Reason),
    st.none() | st.sampled_from(Guarantee),
    is_taken=st.booleans(),
)


@given(climbs, st.booleans(), st.booleans(), st.sampled_from(Guarantee))
def test_a_promise_needs_that_everything_went_as_fitted(
    climb: Climb | None, is_as_fitted: bool, expects_late: bool, promised: Guarantee
) -> None:
    engaged = Engaged(CHAIN.gears[0], "d/g", promised, expects_late=expects_late)

    found = guarantee_of(engaged, is_as_fitted=is_as_fitted, climb=climb)

    kept = (Guarantee.CERTIFIED, Guarantee.EXPECTATION)
    if found in kept and promised in kept:
        assert is_as_fitted
        assert found is promised
        if climb is not None and climb.outcome is not Outcome.FAILED:
            assert climb.guarantee in kept
            assert climb.is_taken or climb.reason is Reason.LOWER_STANDS
        elif climb is not None:
            assert expects_late
            assert climb.reason is Reason.UPSTREAM_TIMEOUT


@given(climbs, st.booleans())
def test_without_a_gear_nothing_is_promised(climb: Climb | None, is_as_fitted: bool) -> None:
    assert guarantee_of(Engaged(), is_as_fitted=is_as_fitted, climb=climb) is Guarantee.NONE


@given(escalation_policies, valid, st.none() | shares)
def test_a_lower_answer_that_stands_is_our_own_and_never_one_below_the_floor(
    numbers: EscalationPolicy, own: Confidence, theirs: float | None
) -> None:
    settlement = settle(
        numbers,
        own,
        upstream_outcome=Outcome.ABSTAINED,
        upstream_reason=Reason.LOWER_STANDS,
        upstream_confidence=theirs,
    )

    assert not settlement.takes_upstream
    is_withheld = own.probability < numbers.abstain_below
    assert settlement.outcome is (Outcome.ABSTAINED if is_withheld else Outcome.ANSWERED)


def test_a_failed_tier_has_no_answer_that_could_stand() -> None:
    settlement = settle(
        EscalationPolicy(accept_at=0.9),
        None,
        upstream_outcome=Outcome.ABSTAINED,
        upstream_reason=Reason.LOWER_STANDS,
        upstream_confidence=None,
    )

    assert (settlement.outcome, settlement.reason) == (Outcome.FAILED, Reason.LOCAL_FAILED)


def test_a_degraded_answer_wins_where_the_fit_had_it_win() -> None:
    own = Confidence(3, 0.6, 0.1, 0.5, is_valid=True)

    settlements = [
        settle(
            EscalationPolicy(accept_at=0.9),
            own,
            upstream_outcome=Outcome.DEGRADED,
            upstream_reason=Reason.UPSTREAM_TIMEOUT,
            upstream_confidence=0.2,
            is_as_fitted=is_as_fitted,
        )
        for is_as_fitted in (True, False)
    ]

    assert [one.takes_upstream for one in settlements] == [True, False]


def test_an_answer_below_that_is_only_the_second_choice_is_told_with_the_obstacle() -> None:
    asks, gives = Choice(gain=(), cost=(), to=("cloud",)), Choice(gain=(), cost=(), answer="edge")
    advice = Advice(gives, asks, 0.1, 0.0, 0.1, as_fitted=False, row=0, cell=0)
    situation = Situation(
        confidence=Confidence(1, 0.5, 0.1, 0.5, is_valid=True),
        tier_above=Tier.CLOUD,
        residency=Residency.CLOUD,
        remaining_ms=100,
        upstream_is_reachable=False,
        chance_in_time=0.0,
        probe_is_due=False,
    )

    decision = decide(EscalationPolicy(accept_at=0.9), situation, advice)

    assert (decision.outcome, decision.reason) == (Outcome.ABSTAINED, Reason.NO_UPSTREAM)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=5, unique=True), st.floats(0, 1500))
def test_the_gear_is_that_of_the_largest_budget_that_the_request_has(
    budgets: list[float], remaining_ms: float
) -> None:
    gears = [gear(*CHAIN.gears[0].tables, name=f"g{n}", budget_ms=b) for n, b in enumerate(budgets)]
    heavy = [gear(*one.tables, name=f"{one.name}-x2", budget_ms=one.budget_ms, load=2.0)
             for one in gears]  # fmt: skip
    followed = policy(*itertools.chain(*zip(gears, heavy, strict=True)))

    found = gearbox(Tier.EDGE, followed).engage("", remaining_ms=remaining_ms, num_examples=1)

    assert found.gear == followed.gear_for(remaining_ms)


@pytest.mark.parametrize("fitted_chance", [0.0, 0.5, 1.0])
def test_advice_on_a_link_of_unknown_chance_asks_nobody(fitted_chance: float) -> None:
    one = table("edge", choices=[choice(2, to=("regional",), chance=fitted_chance)])

    advice = weigh(gear(one), one, label=0, score=0.1, chance=math.nan)

    assert advice.choice is None
    assert not advice.as_fitted
