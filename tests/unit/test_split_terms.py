"""A rollout that only divides requests: its settings, and what devices are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from cloud_tier.rollouts.assigning import assignment_of, what_to_do
from fakes.catalogue import entry
from runtime.assignments import Do
from runtime.core.rollout_events import Assign, RollBack, Unassign
from runtime.core.rollout_settings import RolloutSettings, ShadowSettings, SplitTerms
from runtime.core.rollout_states import Phase

TERMS = SplitTerms(0.1, "e1", "user", ("d" * 64,))


@dataclass
class Case:
    action: Any
    do: Do


@pytest.mark.parametrize(
    "change", [{"share": 0.0}, {"share": 1.0}, {"experiment": ""}, {"split_by": ""}]
)
def test_terms_divide_something(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        SplitTerms(**{"share": 0.1, "experiment": "e", "split_by": "user", **change})


@pytest.mark.parametrize(
    "change", [{"shadow": None}, {"shares": (0.1, 1.0), "alpha_shares": (0.5, 0.5)}]
)
def test_a_split_has_no_waves_and_stays_beside_what_serves(change: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"shares": (1.0,), "alpha_shares": (1.0,), "shadow": ShadowSettings()}
    assert RolloutSettings(**usual, split=TERMS).split == TERMS
    with pytest.raises(ValueError, match="all devices at once"):
        RolloutSettings(**{**usual, **change}, split=TERMS)


@pytest.mark.parametrize(
    "case",
    [
        Case(Assign("r/d", "t", Phase.SHADOW.value, 1, 5.0), Do.SPLIT),
        Case(Assign("r/d", "t", Phase.CANARY.value, 1, 5.0), Do.TRIAL),
        Case(Unassign("r/d", 1), Do.WITHDRAW),
        Case(RollBack("r/d", "", 1), Do.ROLL_BACK),
    ],
)
def test_devices_are_told_the_terms_where_they_are_to_split(case: Case) -> None:
    told = assignment_of(case.action, seq=7, rollout="r1", entry=entry(2), now_s=1.0, split=TERMS)

    assert told.do is case.do is what_to_do(case.action, TERMS)
    terms = (told.share, told.experiment, told.split_by)
    assert terms == ((0.1, "e1/r/d", "user") if case.do is Do.SPLIT else (0.0, "", ""))


def test_without_terms_a_shadow_is_a_shadow() -> None:
    assert what_to_do(Assign("r/d", "t", Phase.SHADOW.value, 1, 5.0)) is Do.SHADOW
