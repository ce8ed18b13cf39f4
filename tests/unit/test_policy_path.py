"""The path: what lies on it, and in which order."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.policies.path import (
    COST_HEADROOM,
    LATE_HEADROOM,
    LOSS_SLACK,
    MIN_SAVING,
    Estimate,
    front,
)
from model_zoo.policies.placements import Placement
from runtime.policy import Targets

TARGETS = Targets(max_loss=0.01, delta=0.1)
MIDDLING = Estimate(Placement((0, 1, 2)), 0.1, loss=0.005, cost=0.5, late=0.01, accuracy=0.9)
shares = st.floats(0, 1)
estimates = st.lists(
    st.builds(
        Estimate,
        placement=st.just(Placement((0, 1))),
        penalty=shares,
        loss=st.floats(-0.05, 0.05),
        cost=shares,
        late=shares,
        accuracy=shares,
    ),
    max_size=12,
)


@given(estimates)
def test_along_the_path_cost_falls_and_loss_grows(found: list[Estimate]) -> None:
    path = front(found, TARGETS)

    for one, following in itertools.pairwise(path):
        assert one.cost - following.cost >= MIN_SAVING
        assert one.loss < following.loss


@given(estimates)
def test_nothing_beats_a_step_in_both_cost_and_loss(found: list[Estimate]) -> None:
    path = front(found, TARGETS)

    for step in path:
        assert not any(other.cost < step.cost and other.loss < step.loss - 1e-12 for other in found)


@given(estimates)
def test_the_path_does_not_depend_on_the_order_of_the_estimates(found: list[Estimate]) -> None:
    path = front(found, TARGETS)

    again = front(found[::-1], TARGETS)

    assert [(one.cost, one.loss) for one in path] == [(one.cost, one.loss) for one in again]


@pytest.mark.parametrize(
    "targets",
    [
        Targets(max_loss=0.004 - LOSS_SLACK, delta=0.1),
        Targets(max_loss=0.01, delta=0.1, min_accuracy=0.91),
        Targets(max_loss=0.01, delta=0.1, max_late=0.0099 / LATE_HEADROOM),
        Targets(max_loss=0.01, delta=0.1, max_cost=0.499 / COST_HEADROOM),
    ],
    ids=["loss", "accuracy", "late", "cost"],
)
def test_what_would_end_the_walk_for_nothing_is_left_out(targets: Targets) -> None:
    assert front([MIDDLING], targets) == []


def test_what_has_room_to_spare_stays() -> None:
    targets = Targets(max_loss=0.01, delta=0.1, min_accuracy=0.9, max_late=0.02, max_cost=0.55)

    assert front([MIDDLING, replace(MIDDLING, cost=0.6)], targets) == [MIDDLING]
