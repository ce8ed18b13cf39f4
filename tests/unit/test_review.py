"""When a person is asked: what is weighed, what a policy may say of it, and how it is fitted."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.gears import gear, table
from fakes.labelled import sampled
from fakes.reviews import ASKED_BELOW, REVIEW, reviewed
from model_zoo.policies.fit import Conditions, Splits, fit_policy
from model_zoo.policies.review import ReviewTerms, reviewed_share, with_review
from model_zoo.policies.stages import Stage
from runtime.core.explain import Facts, explain
from runtime.core.explain import with_review as facts_with_review
from runtime.core.review import Weighed, stands_from, weigh_review
from runtime.errors import PolicyError
from runtime.policy import Gear, Policy, Targets, decode_policy, encode_policy

CHEAP = ReviewTerms(price=2.0)


def of(**changes: Any) -> Gear:
    return gear(
        table("edge", to=("cloud",)), review=msgspec.structs.replace(REVIEW, **changes), penalty=0.1
    )


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.2, Weighed(0.5, 0.45, 2.0, 0.25)),
        (float("nan"), Weighed(0.5, 0.45, 2.0, 0.25)),
        (ASKED_BELOW, Weighed(0.9, 0.05, 2.0, -0.15)),
    ],
)
def test_people_are_asked_where_they_win_more_than_they_cost(
    score: float, expected: Weighed
) -> None:
    found = weigh_review(of(), 1, score)

    assert found is not None
    assert [found.chance, found.gain, found.cost, found.value] == pytest.approx(
        [expected.chance, expected.gain, expected.cost, expected.value]
    )
    assert found.is_worth_it == (expected.value > 0)


@pytest.mark.parametrize("label", [None, -1, 3])
def test_without_a_label_or_a_review_nothing_is_weighed(label: int | None) -> None:
    assert weigh_review(of(), label, 0.2) is None
    assert stands_from(of(), label) is None
    assert weigh_review(gear(), 1, 0.2) is None
    assert stands_from(gear(), 1) is None


@pytest.mark.parametrize(
    ("chance", "expected"),
    [((0.5, 0.9), ASKED_BELOW), ((0.5, 0.5), None), ((0.9, 0.9), None)],
)
def test_the_score_from_which_an_answer_stands_is_known(
    chance: tuple[float, ...], expected: float | None
) -> None:
    assert stands_from(of(chance=(chance,) * 2), 0) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"price": float("inf")},
        {"latency_ms": float("inf")},
        {"rows": (0, 0)},
        {"rows": (0, 0, 1)},
        {"edges": ((0.5, 0.5),) * 2},
        {"chance": ((0.5,),) * 2},
        {"chance": ((0.5, float("nan")),) * 2},
        {"chance": ((0.5, 1.5),) * 2},
    ],
)
def test_a_review_that_cannot_be_looked_up_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        reviewed(review=msgspec.structs.replace(REVIEW, **changes))


def test_a_policy_keeps_its_reviews() -> None:
    followed = reviewed()

    assert decode_policy(encode_policy(followed), "x") == followed


class TestWords:
    FACTS = Facts(
        tier="cloud", label=1, probability=0.6, action="answer", reason="review", gear="g",
        gain=0.45, cost=2.0,
    )  # fmt: skip

    def test_a_review_is_told_with_what_it_wins_and_what_would_have_saved_it(self) -> None:
        told = explain(facts_with_review(self.FACTS, of()))

        assert told.words[1:] == (
            (
                "A person was expected to win 0.45 in accuracy for 2 of cost at a price of 0.1 per "
                "unit (value +0.25)."
            ),
            "Its answer goes out as the best so far; a person is to look at it.",
        )
        assert told.otherwise == (
            "Its answer would have stood without a review from probability 0.900 on.",
        )

    @pytest.mark.parametrize("followed", [None, gear()])
    def test_without_the_policy_nothing_is_made_up(self, followed: Gear | None) -> None:
        assert facts_with_review(self.FACTS, followed) is self.FACTS
        assert explain(self.FACTS).otherwise == ()


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(sampled(1, 1500), sampled(2, 1500))


def fitted(splits: Splits, terms: ReviewTerms | None, max_loss: float = 0.03) -> Policy:
    conditions = Conditions(review=terms)
    return fit_policy(splits, Targets(max_loss, 0.1), conditions, name="p")


@pytest.fixture(scope="module")
def with_people(splits: Splits) -> Gear:
    return fitted(splits, CHEAP).gears[0]


def test_a_fit_with_reviews_is_the_same_but_for_them(splits: Splits, with_people: Gear) -> None:
    plain = fitted(splits, None).gears[0]

    promise = msgspec.structs.replace(with_people.promise, reviewed=0.0)
    assert msgspec.structs.replace(with_people, review=None, promise=promise) == plain
    assert plain.review is None


def test_the_share_that_is_promised_is_that_of_the_rule(splits: Splits, with_people: Gear) -> None:
    review = with_people.review
    assert review is not None
    held, stage = splits.calibration, Stage(splits.calibration)
    top = held.predicted[-1], held.score[-1]

    worth = [
        found is not None and found.is_worth_it
        for found in (
            weigh_review(with_people, int(label), float(score))
            for label, score in zip(*top, strict=True)
        )
    ]

    assert 0 < with_people.promise.reviewed < with_people.promise.answered_by["cloud"]
    assert review.latency_ms == 3_600_000
    everything = gear(review=review, penalty=with_people.penalty)
    ends = stage.stays((len(held.tiers) - 1,))
    assert reviewed_share(everything, stage, ends) == pytest.approx(np.mean(worth))
    assert reviewed_share(gear(), stage, ends) == 0


def test_the_price_is_in_prices_of_the_top_tier(splits: Splits) -> None:
    train, calibration = (
        dataclasses.replace(one, price=2 * one.price) for one in (splits.train, splits.calibration)
    )
    doubled = Splits(train, calibration)

    review = fitted(doubled, CHEAP).gears[0].review

    assert review is not None
    assert review.price == 1.0


def test_people_who_cost_too_much_are_never_asked(splits: Splits) -> None:
    assert fitted(splits, ReviewTerms(price=1e6)).gears[0].promise.reviewed == 0


def test_without_a_price_of_accuracy_there_are_no_reviews(splits: Splits) -> None:
    stage = Stage(splits.train)

    assert with_review(gear(penalty=0.0), CHEAP, stage, stage).review is None


def test_few_that_reach_the_top_leave_the_table_to_all(splits: Splits, with_people: Gear) -> None:
    train = Stage(splits.train.take(np.arange(150)))
    bare = msgspec.structs.replace(with_people, review=None)

    review = with_review(bare, CHEAP, train, train).review

    assert review is not None
    assert review.edges != (with_people.review and with_people.review.edges)


def test_scores_of_the_top_that_are_no_numbers_are_refused(
    splits: Splits, with_people: Gear
) -> None:
    score = splits.train.score.copy()
    score[-1, 0] = np.nan
    train = Stage(dataclasses.replace(splits.train, score=score))

    with pytest.raises(PolicyError, match="scores of cloud are not finite"):
        with_review(with_people, CHEAP, train, train)
