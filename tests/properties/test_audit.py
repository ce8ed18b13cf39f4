"""Drawing audits: what may be drawn, how likely, and what the drawn ones say about all."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.audit import AuditDraws, AuditSettings, Draw, LossEstimate, is_auditable
from runtime.core.escalation import Action, Decision
from runtime.messages import Outcome, Reason, Residency, Tier

anything = st.floats(allow_nan=True, allow_infinity=True)
rates = st.floats(0, 1)
UPWARDS = (Tier.REGIONAL, Tier.CLOUD)
STOOD = Decision(Action.ANSWER, Reason.CONFIDENT, Outcome.ANSWERED)


class Scripted(random.Random):
    """Draws one number for ever."""

    def __init__(self, number: float) -> None:
        super().__init__(0)
        self.number = number

    def random(self) -> float:
        return self.number


def draws(rate: float = 0.01, number: float = 0.5, max_in_progress: int = 2) -> AuditDraws:
    settings = AuditSettings(rate=rate, max_in_progress=max_in_progress)
    return AuditDraws(settings, Scripted(number))


def chances(rate: float, confidences: Sequence[float], seed: int = 1) -> list[float]:
    drawing = AuditDraws(AuditSettings(rate=rate), random.Random(seed))
    return [drawing.draw(one, can_ask=True, num_in_progress=0).chance for one in confidences]


@given(rates, st.lists(anything, max_size=50))
def test_a_chance_is_a_probability_whatever_the_confidence(
    rate: float, confidences: list[float]
) -> None:
    found = chances(rate, confidences)

    assert all(0 <= chance <= 1 for chance in found)
    # So no audit counts for more than twice as many as the rate says.
    assert all(chance >= rate / 2 for chance in found)


@given(rates, st.lists(rates, min_size=1, max_size=50))
def test_the_chance_knows_nothing_of_the_draw_or_of_what_follows(
    rate: float, confidences: list[float]
) -> None:
    whole = chances(rate, confidences, seed=1)

    assert whole == chances(rate, confidences, seed=2)
    half = len(confidences) // 2
    assert chances(rate, confidences[:half]) == whole[:half]


@given(rates, rates, rates)
def test_of_two_answers_the_less_sure_one_is_not_audited_less(
    rate: float, one: float, other: float
) -> None:
    low, high = sorted((one, other))

    assert chances(rate, [low])[0] >= chances(rate, [high])[0]


@pytest.mark.parametrize("spread", [(0.5, 1.0), (0.9, 0.9), (0.99, 1.0), (0.0, 1.0)])
def test_on_steady_traffic_the_mean_chance_is_the_rate(spread: tuple[float, float]) -> None:
    chooser = random.Random(7)

    found = chances(0.01, [chooser.uniform(*spread) for _ in range(20_000)])

    assert math.fsum(found) / len(found) == pytest.approx(0.01, rel=0.03)


def test_as_many_are_drawn_as_the_chances_say() -> None:
    chooser = random.Random(3)
    drawing = AuditDraws(AuditSettings(rate=0.05), random.Random(4))

    drawn = [
        drawing.draw(chooser.uniform(0.6, 1), can_ask=True, num_in_progress=0)
        for _ in range(20_000)
    ]

    assert sum(one.is_drawn for one in drawn) == pytest.approx(1000, rel=0.1)


def test_where_all_were_certain_the_rate_is_halved_and_the_first_unsure_one_is_audited() -> None:
    found = chances(0.01, [*[1.0] * 50_000, 0.75])

    assert found[-2] == pytest.approx(0.005)
    assert found[-1] == pytest.approx(1.0)


@given(rates, anything, st.booleans(), st.integers(0, 5), rates)
def test_what_could_not_be_audited_has_no_chance_and_is_not_drawn(
    rate: float, confidence: float, can_ask: bool, num_in_progress: int, number: float
) -> None:
    draw = draws(rate, number).draw(confidence, can_ask=can_ask, num_in_progress=num_in_progress)

    could = can_ask and num_in_progress < 2 and rate > 0
    assert (draw.chance > 0) == could
    assert not draw.is_drawn or could
    assert not (draw.is_drawn and draw.is_skipped)


def test_without_a_place_a_hit_is_skipped_and_has_no_chance() -> None:
    hit, missed = draws(number=0.0), draws(number=0.99)

    assert hit.draw(0.9, can_ask=True, num_in_progress=2) == Draw(is_skipped=True)
    assert missed.draw(0.9, can_ask=True, num_in_progress=2) == Draw()


def test_a_rate_of_zero_draws_nothing_and_of_one_nearly_all() -> None:
    assert draws(0.0, number=0.0).draw(0.5, can_ask=True, num_in_progress=0) == Draw()
    assert draws(1.0, number=0.49).draw(1.0, can_ask=True, num_in_progress=0).is_drawn


@given(
    st.sampled_from(Residency),
    st.lists(st.sampled_from(UPWARDS), unique=True, max_size=2).map(tuple),
)
def test_residency_is_obeyed(residency: Residency, route: tuple[Tier, ...]) -> None:
    may = is_auditable(STOOD, Outcome.ANSWERED, seen=["edge"], residency=residency, route=route)

    assert may == (bool(route) and all(residency.allows(tier) for tier in route))


@given(
    st.sampled_from(Action),
    st.sampled_from(Reason),
    st.sampled_from(Outcome),
    st.sets(st.sampled_from([tier.value for tier in Tier])),
)
def test_only_an_answer_that_stood_without_all_tiers_is_audited(
    action: Action, reason: Reason, outcome: Outcome, seen: set[str]
) -> None:
    may = is_auditable(
        Decision(action, reason),
        outcome,
        seen=seen,
        residency=Residency.CLOUD,
        route=UPWARDS,
    )

    stood = action == "escalate" or reason == "confident"
    assert may == (stood and outcome == "answered" and not {"regional", "cloud"} <= seen)


def test_without_audits_nothing_is_said_about_the_loss() -> None:
    estimate = LossEstimate()
    estimate.note_request()
    estimate.note_audit(0.01, agrees=None)

    assert estimate.value is None


@given(st.lists(st.tuples(st.floats(0.001, 1), st.sampled_from((True, False, None))), max_size=40))
def test_the_estimate_is_a_share(audits: list[tuple[float, bool | None]]) -> None:
    estimate = LossEstimate(window=10)
    for chance, agrees in audits:
        estimate.note_request()
        estimate.note_audit(chance, agrees=agrees)

    value = estimate.value
    assert value is None or 0 <= value <= 1


def test_the_estimate_is_right_on_average_whatever_the_chances() -> None:
    chooser = random.Random(11)
    values = []
    for _ in range(200):
        estimate = LossEstimate()
        for _ in range(500):
            is_hard = chooser.random() < 0.3
            chance = 0.3 if is_hard else 0.1
            agrees = chooser.random() >= (0.4 if is_hard else 0.02)
            estimate.note_request()
            if chooser.random() < chance:
                # One in five does not come back.
                estimate.note_audit(chance, agrees=agrees if chooser.random() < 0.8 else None)
        values.append(estimate.value or 0.0)

    assert math.fsum(values) / len(values) == pytest.approx(0.3 * 0.4 + 0.7 * 0.02, rel=0.05)


def test_the_estimate_forgets_what_is_long_ago() -> None:
    estimate = LossEstimate(window=100)
    values = []
    for agrees in (False, True):
        for _ in range(101):
            estimate.note_request()
        values.append(estimate.value)
        estimate.note_audit(1.0, agrees=agrees)
        values.append(estimate.value)

    assert values == [None, pytest.approx(0.01 * 1.0), None, 0.0]
