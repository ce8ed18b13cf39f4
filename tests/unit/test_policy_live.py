"""What a policy file holds for live control: kept as it is, and refused where it makes no sense."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fakes.gears import CHAIN, STRAIGHT, gear, policy, table, watched
from runtime.policy import (
    Gear,
    Interval,
    Policy,
    SaferStep,
    ScoreReference,
    TraceFacts,
    decode_policy,
    encode_policy,
    step_names,
)

AT_EDGE = table("edge", to=("cloud",))
GEAR = gear(AT_EDGE)
STEP = SaferStep(penalty=0.05, tables=(AT_EDGE,), cost=0.5, loss=0.001)
SCORES = ScoreReference("edge", "probability", 1000, (0.2, 0.9, 1.0, 1.0))
NAN, INF = math.nan, math.inf


def with_gear(**changed: Any) -> Gear:
    return msgspec.structs.replace(GEAR, **changed)


def test_it_is_kept_in_the_file() -> None:
    known = watched()

    assert decode_policy(encode_policy(known), "policy.json") == known


def test_a_policy_of_before_is_the_same_policy_still() -> None:
    text = encode_policy(CHAIN)

    assert not any(field in text for field in (b"safer", b"scores", b"trace", b"disagreement"))
    assert decode_policy(text, "policy.json") == CHAIN


def test_steps_are_named_after_their_gear_and_end_at_the_top_tier() -> None:
    assert step_names(with_gear(safer=(STEP, STEP))) == ["g.safer-1", "g.safer-2", "g.safer-3"]
    assert step_names(GEAR) == ["g.safer-1"]
    assert step_names(STRAIGHT.gears[0]) == []


def of_gears(*gears: Gear) -> Callable[[], Policy]:
    return lambda: policy(*gears)


def of_step(**changed: Any) -> Callable[[], Policy]:
    return lambda: policy(with_gear(safer=(msgspec.structs.replace(STEP, **changed),)))


def of_trace(ms: float) -> Callable[[], Policy]:
    return lambda: policy(GEAR, trace=TraceFacts("t", 1, {"cloud": ms}))


def of_scores(**changed: Any) -> Callable[[], Policy]:
    return lambda: policy(GEAR, scores=msgspec.structs.replace(SCORES, **changed))


SHORT = msgspec.structs.replace(AT_EDGE, rows=(0, 0))
UNKNOWN = msgspec.structs.replace(GEAR.promise, disagreement=Interval(NAN, 0, 1))
CONTRADICTIONS: list[tuple[str, Callable[[], Policy], str]] = [
    ("a gear called as a step", of_gears(GEAR, with_gear(name="g.safer-1")), "as a safer step of"),
    ("a step's price that is none", of_step(penalty=NAN), "a safer step's number is not finite"),
    ("a step that loses for ever", of_step(loss=INF), "a safer step's number is not finite"),
    ("two tables of a step", of_step(tables=(AT_EDGE, AT_EDGE)), "two tables for the same tiers"),
    ("a step of other labels", of_step(tables=(SHORT,)), "2 rows for 3 labels"),
    ("an unknown disagreement", of_gears(with_gear(promise=UNKNOWN)), "a promise is not finite"),
    ("an endless round trip", of_trace(INF), "a median of the trace is not finite"),
    ("a reply before its request", of_trace(-1.0), "a median of the trace is below 0"),
    ("scores that fall", of_scores(quantiles=(0.2, 0.1)), "the quantiles of the scores fall"),
    ("scores that are none", of_scores(quantiles=(0.2, NAN)), "of the scores is not finite"),
    ("scores of another tier", of_scores(tier="cloud"), "not those of the lowest tier"),
]


@pytest.mark.parametrize(
    ("make", "why"),
    [case[1:] for case in CONTRADICTIONS],
    ids=[case[0] for case in CONTRADICTIONS],
)
def test_what_contradicts_itself_is_never_made(make: Callable[[], Policy], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()
