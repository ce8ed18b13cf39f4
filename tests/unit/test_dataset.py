from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.dataset import Candidate, Chosen, Feedback, LeftOut, Why, choose, choose_all
from runtime.messages import Residency


def candidate(item: str = "i", **fields: Any) -> Candidate:
    known: dict[str, Any] = {"wall_s": 1.0, "residency": "cloud", "label": 1, "chance": 0.6}
    return Candidate(item, **(known | fields))


@pytest.mark.parametrize(
    ("fields", "label", "weight", "why"),
    [
        ({}, 1, 0.6, Why.HARD),
        ({"answers": (1, 1)}, 1, 0.6, Why.HARD),
        ({"answers": (0, 1)}, 1, 0.6, Why.DISAGREEMENT),
        ({"agrees": False}, 1, 0.6, Why.DISAGREEMENT),
        ({"agrees": True}, 1, 0.6, Why.HARD),
        ({"chance": 7.0}, 1, 1.0, Why.HARD),
        ({"chance": -1.0}, 1, 0.0, Why.HARD),
        ({"feedback": Feedback(3)}, 3, 1.0, Why.LABELLED),
        ({"feedback": Feedback(3, is_correct=False)}, 3, 1.0, Why.LABELLED),
        ({"feedback": Feedback(None, is_correct=True)}, 1, 1.0, Why.LABELLED),
        ({"feedback": Feedback()}, 1, 0.6, Why.HARD),
        ({"feedback": Feedback(3), "label": -1}, 3, 1.0, Why.LABELLED),
    ],
)
def test_the_label_and_its_weight_follow_from_who_has_said_it(
    fields: dict[str, Any], label: int, weight: float, why: Why
) -> None:
    one = candidate(**fields)

    assert choose(one, Residency.CLOUD) == Chosen(one, label, weight, why)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"label": -1}, LeftOut.NO_LABEL),
        ({"chance": float("nan")}, LeftOut.NO_LABEL),
        ({"label": -1, "feedback": Feedback(None, is_correct=True)}, LeftOut.NO_LABEL),
        ({"feedback": Feedback(None, is_correct=False)}, LeftOut.CALLED_WRONG),
        ({"residency": "region", "feedback": Feedback(3)}, LeftOut.RESIDENCY),
        ({"residency": "moon"}, LeftOut.RESIDENCY),
        ({"residency": ""}, LeftOut.RESIDENCY),
    ],
)
def test_what_teaches_nothing_or_may_not_leave_is_left_out(
    fields: dict[str, Any], why: LeftOut
) -> None:
    assert choose(candidate(**fields), Residency.CLOUD) is why


@pytest.mark.parametrize("reach", Residency)
def test_a_payload_goes_no_further_than_it_may(reach: Residency) -> None:
    order = list(Residency)
    for residency in order:
        outcome = choose(candidate(residency=residency.value), reach)
        assert isinstance(outcome, Chosen) == (order.index(residency) >= order.index(reach))


def test_over_the_limit_people_s_labels_stay_and_then_the_newest() -> None:
    old = candidate("old", wall_s=1.0, feedback=Feedback(2))
    rest = [candidate(f"{n}", wall_s=float(n)) for n in range(5)]

    chosen, left = choose_all([*rest, old], Residency.CLOUD, 3)

    assert [one.candidate.item for one in chosen] == ["old", "3", "4"]
    assert left == {LeftOut.OVER_LIMIT: 3}


candidates = st.builds(
    candidate,
    st.text("ab", max_size=3),
    wall_s=st.integers(0, 3).map(float),
    residency=st.sampled_from(["device", "region", "cloud", "x"]),
    label=st.integers(-1, 2),
    chance=st.floats(),
    answers=st.lists(st.integers(0, 2), max_size=2).map(tuple),
    agrees=st.none() | st.booleans(),
    feedback=st.none()
    | st.builds(Feedback, st.none() | st.integers(0, 2), st.none() | st.booleans()),
)


@given(
    st.lists(candidates, max_size=8, unique_by=lambda one: one.item),
    st.sampled_from(Residency),
    st.integers(1, 5),
    st.randoms(),
)
def test_all_are_counted_once_in_whatever_order_they_come(
    found: list[Candidate], reach: Residency, limit: int, random: Any
) -> None:
    chosen, left = choose_all(found, reach, limit)
    shuffled = random.sample(found, len(found))

    assert len(chosen) + sum(left.values()) == len(found)
    assert len(chosen) <= limit
    assert all(0 <= one.weight <= 1 and one.label >= 0 for one in chosen)
    again, left_again = choose_all(shuffled, reach, limit)
    assert [one.candidate.item for one in again] == [one.candidate.item for one in chosen]
    assert left_again == left
