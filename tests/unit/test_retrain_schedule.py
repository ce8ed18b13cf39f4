"""Turns of retraining: everybody has one in a period, and no two are too near."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.retrain_schedule import Schedule
from runtime.errors import StartError

DAY_S = 86_400.0
names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)


@given(models=names, regions=names, now_s=st.floats(0, 4e9))
def test_everybody_has_one_turn_in_a_period_and_no_two_are_too_near(
    models: list[str], regions: list[str], now_s: float
) -> None:
    num = len(models) * len(regions)
    schedule = Schedule(models, regions, every_s=num * DAY_S, apart_s=DAY_S)

    turns = list(itertools.islice(schedule.after(now_s), 2 * num))

    first = {(one.model, one.region) for one in turns[:num]}
    assert first == set(itertools.product(models, regions))
    assert all(later.at_s - one.at_s >= DAY_S * 0.999 for one, later in itertools.pairwise(turns))
    assert all(now_s <= one.at_s <= now_s + 2 * num * DAY_S for one in turns)


def test_a_turn_is_at_the_same_place_of_every_period_whenever_it_is_asked_for() -> None:
    schedule = Schedule(["m", "n"], ["r"], every_s=10.0, apart_s=5.0)

    early = list(itertools.islice(schedule.after(0.0), 4))
    late = list(itertools.islice(schedule.after(early[1].at_s), 3))

    assert late == early[1:]
    assert early[2].at_s - early[0].at_s == 10.0


def test_what_does_not_fit_says_what_would() -> None:
    with pytest.raises(StartError, match=r"4 turns do not fit.*400 s would do"):
        Schedule(["m", "n"], ["r", "s"], every_s=300.0, apart_s=100.0)


@pytest.mark.parametrize(
    ("models", "regions", "every_s", "apart_s"),
    [
        ([], ["r"], 1.0, 1.0),
        (["m"], [], 1.0, 1.0),
        (["m"], ["r"], 0.0, 1.0),
        (["m"], ["r"], 1.0, 0.0),
    ],
)
def test_nothing_to_schedule_is_refused(
    models: list[str], regions: list[str], every_s: float, apart_s: float
) -> None:
    with pytest.raises(StartError):
        Schedule(models, regions, every_s=every_s, apart_s=apart_s)
