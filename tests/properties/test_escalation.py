"""The escalation decision: never confident without reason, never past a promise."""

import math

from hypothesis import given
from hypothesis import strategies as st

from runtime.core.confidence import INVALID, Confidence
from runtime.core.escalation import (
    Action,
    EscalationPolicy,
    Situation,
    decide,
    keep,
    settle,
)
from runtime.messages import Outcome, Reason, Residency, Tier

shares = st.floats(0, 1)
anything = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def confidences(draw: st.DrawFn) -> Confidence | None:
    kind = draw(st.sampled_from(("none", "invalid", "valid")))
    if kind == "none":
        return None
    if kind == "invalid":
        return INVALID
    return Confidence(draw(st.integers(0, 9)), draw(shares), 0.1, 0.5, is_valid=True)


policies = st.builds(
    EscalationPolicy,
    accept_at=shares,
    min_chance=shares,
    margin_ms=st.floats(0, 100),
    abstain_below=shares,
)
situations = st.builds(
    Situation,
    confidence=confidences(),
    tier_above=st.sampled_from((None, Tier.REGIONAL, Tier.CLOUD)),
    residency=st.sampled_from(Residency),
    remaining_ms=anything,
    upstream_is_reachable=st.booleans(),
    chance_in_time=anything,
    probe_is_due=st.booleans(),
)


def _is_sure(policy: EscalationPolicy, confidence: Confidence | None) -> bool:
    return (
        confidence is not None
        and confidence.is_valid
        and confidence.probability >= policy.accept_at
    )


@given(policies, situations)
def test_a_decision_to_answer_names_its_outcome_and_a_climb_does_not(
    policy: EscalationPolicy, situation: Situation
) -> None:
    decision = decide(policy, situation)

    assert (decision.action is Action.ANSWER) == (decision.outcome is not None)


@given(policies, situations)
def test_only_a_valid_confidence_is_ever_answered_as_confident(
    policy: EscalationPolicy, situation: Situation
) -> None:
    decision = decide(policy, situation)

    is_sure = _is_sure(policy, situation.confidence)
    assert (decision.reason is Reason.CONFIDENT) == is_sure


@given(policies, situations)
def test_a_payload_never_climbs_past_its_residency(
    policy: EscalationPolicy, situation: Situation
) -> None:
    decision = decide(policy, situation)

    climbs = decision.action is Action.ESCALATE
    above = situation.tier_above
    assert not climbs or (above is not None and situation.residency.allows(above))


@given(policies, situations)
def test_nothing_climbs_without_time_link_or_chance(
    policy: EscalationPolicy, situation: Situation
) -> None:
    decision = decide(policy, situation)

    if decision.action is Action.ESCALATE:
        assert situation.remaining_ms > policy.margin_ms
        assert situation.upstream_is_reachable
        assert situation.probe_is_due or situation.chance_in_time >= policy.min_chance


@given(policies, situations)
def test_an_unsure_answer_is_never_given_out_as_answered_below_the_top(
    policy: EscalationPolicy, situation: Situation
) -> None:
    decision = decide(policy, situation)

    if situation.tier_above is not None and not _is_sure(policy, situation.confidence):
        assert decision.outcome is not Outcome.ANSWERED


@given(policies, situations, shares)
def test_a_higher_threshold_never_turns_a_climb_into_an_answer(
    policy: EscalationPolicy, situation: Situation, raised_by: float
) -> None:
    stricter = EscalationPolicy(
        accept_at=min(1.0, policy.accept_at + raised_by),
        min_chance=policy.min_chance,
        margin_ms=policy.margin_ms,
        abstain_below=policy.abstain_below,
    )

    before, after = decide(policy, situation), decide(stricter, situation)

    assert before.action is Action.ANSWER or after.action is Action.ESCALATE


@given(
    policies,
    confidences(),
    st.sampled_from(Outcome),
    st.sampled_from(Reason),
    st.none() | shares,
)
def test_a_climb_never_costs_the_answer_in_hand(
    policy: EscalationPolicy,
    own: Confidence | None,
    outcome: Outcome,
    reason: Reason,
    theirs: float | None,
) -> None:
    settlement = settle(
        policy, own, upstream_outcome=outcome, upstream_reason=reason, upstream_confidence=theirs
    )

    had = keep(policy, own, reason).outcome is Outcome.DEGRADED
    has = settlement.outcome in (Outcome.ANSWERED, Outcome.DEGRADED)
    assert has or not had


@given(policies, confidences(), st.sampled_from(Reason), st.none() | shares)
def test_a_failed_climb_is_never_an_upper_tier_answer(
    policy: EscalationPolicy, own: Confidence | None, reason: Reason, theirs: float | None
) -> None:
    settlement = settle(
        policy,
        own,
        upstream_outcome=Outcome.FAILED,
        upstream_reason=reason,
        upstream_confidence=theirs,
    )

    assert not settlement.takes_upstream
    assert settlement.outcome is not Outcome.ANSWERED


def test_a_degraded_answer_from_above_wins_only_when_it_is_at_least_as_confident() -> None:
    policy = EscalationPolicy(accept_at=0.9)
    own = Confidence(3, 0.6, 0.1, 0.5, is_valid=True)

    stronger, weaker = (
        settle(
            policy,
            own,
            upstream_outcome=Outcome.DEGRADED,
            upstream_reason=Reason.UPSTREAM_TIMEOUT,
            upstream_confidence=theirs,
        )
        for theirs in (0.7, 0.5)
    )

    assert stronger.takes_upstream
    assert not weaker.takes_upstream
    assert stronger.outcome is weaker.outcome is Outcome.DEGRADED


def test_an_abstention_from_above_is_better_than_a_failure_here() -> None:
    settlement = settle(
        EscalationPolicy(accept_at=0.9),
        None,
        upstream_outcome=Outcome.ABSTAINED,
        upstream_reason=Reason.NO_CONFIDENCE,
        upstream_confidence=None,
    )

    assert settlement.outcome is Outcome.ABSTAINED


def test_a_tier_that_failed_differs_from_one_that_found_nothing() -> None:
    policy = EscalationPolicy(accept_at=0.9)

    failed = keep(policy, None, Reason.NO_UPSTREAM)
    found_nothing = keep(policy, INVALID, Reason.NO_UPSTREAM)

    assert failed.outcome is Outcome.FAILED
    assert found_nothing.outcome is Outcome.ABSTAINED


def test_an_answer_below_the_floor_is_withheld() -> None:
    policy = EscalationPolicy(accept_at=0.9, abstain_below=0.4)
    unsure = Confidence(3, 0.3, 0.1, 0.5, is_valid=True)

    decision = keep(policy, unsure, Reason.NO_UPSTREAM)

    assert decision.outcome is Outcome.ABSTAINED
    assert decision.reason is Reason.BELOW_FLOOR


def test_a_probe_climbs_through_a_closed_gate_and_only_then() -> None:
    policy = EscalationPolicy(accept_at=0.9)
    unsure = Confidence(3, 0.3, 0.1, 0.5, is_valid=True)

    decisions = [
        decide(
            policy,
            Situation(
                confidence=unsure,
                tier_above=Tier.REGIONAL,
                residency=Residency.CLOUD,
                remaining_ms=100,
                upstream_is_reachable=True,
                chance_in_time=math.nan,
                probe_is_due=is_due,
            ),
        )
        for is_due in (True, False)
    ]

    assert [decision.reason for decision in decisions] == [Reason.PROBE, Reason.UNLIKELY_IN_TIME]


def test_at_the_top_what_is_valid_is_answered_and_what_is_not_abstains() -> None:
    policy = EscalationPolicy(accept_at=0.9)
    outcomes = [
        decide(
            policy,
            Situation(
                confidence=confidence,
                tier_above=None,
                residency=Residency.DEVICE,
                remaining_ms=0,
                upstream_is_reachable=False,
                chance_in_time=0,
                probe_is_due=False,
            ),
        ).outcome
        for confidence in (Confidence(1, 0.2, 0, 1, is_valid=True), INVALID)
    ]

    assert outcomes == [Outcome.ANSWERED, Outcome.ABSTAINED]
