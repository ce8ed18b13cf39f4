"""The averages of a policy file: read back as they were, and never in contradiction to the rest."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from fakes.gears import choice, gear, policy, table
from runtime.averages import MAX_CLASSES, Average
from runtime.errors import PolicyError
from runtime.policy import Policy, decode_policy, encode_policy

BOTH = ("edge", "regional")
AT_BOTH = table(*BOTH, to=("cloud",))
NAN, INF = math.nan, math.inf


def averaging(*averages: Average, tables: Any = (AT_BOTH,), **fields: Any) -> Policy:
    return policy(gear(*tables, averages=averages), **fields)


def at(*stop: str, weights: tuple[float, ...] = (0.25, 0.75)) -> Average:
    return Average(stop, weights)


def test_a_gear_knows_at_which_stops_it_averages() -> None:
    made = averaging(at(*BOTH), at("edge", "cloud"))

    (again,) = decode_policy(encode_policy(made), "policy.json").gears

    assert again.average_at(BOTH) == Average(BOTH, (0.25, 0.75))
    assert again.average_at(("edge", "regional", "cloud")) is None
    assert again == made.gears[0]


def test_a_policy_that_averages_nothing_does_not_speak_of_it() -> None:
    assert b"averages" not in encode_policy(averaging())


@pytest.mark.parametrize(
    ("averages", "why"),
    [
        ((at(*BOTH), at(*BOTH)), "two averages for the same tiers"),
        ((at("edge", "metro"),), "an average of .* in a policy of"),
        ((at("regional", "edge"),), "an average of .* in a policy of"),
        ((at("edge", "edge"),), "an average of .* in a policy of"),
        ((at("regional", "cloud"),), "every request begins at edge"),
        ((at(*BOTH, weights=(0.2, 0.3, 0.5)),), "3 weights for 2 tiers"),
        ((at(*BOTH, weights=(-0.5, 1.5)),), "negative or do not sum to 1"),
        ((at(*BOTH, weights=(0.5, 0.4)),), "negative or do not sum to 1"),
        ((at(*BOTH, weights=(NAN, 1.0)),), "negative or do not sum to 1"),
        ((at(*BOTH, weights=(1.0, NAN)),), "negative or do not sum to 1"),
        ((at(*BOTH, weights=(INF, 0.0)),), "negative or do not sum to 1"),
        ((at(*BOTH, weights=(1e308, 1e308)),), "negative or do not sum to 1"),
    ],
)
def test_averages_that_contradict_their_policy_are_refused(
    averages: tuple[Average, ...], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        averaging(*averages)


def test_whoever_races_averages_nothing() -> None:
    race = table("edge", to=("regional", "cloud"))

    with pytest.raises(ValueError, match="averages and asks two tiers at once"):
        averaging(at(*BOTH), tables=(race,))


@pytest.mark.parametrize("kind", ["energy", "agreement"])
def test_what_only_a_single_model_has_is_not_looked_up_of_an_average(kind: str) -> None:
    strange = msgspec.structs.replace(AT_BOTH, score=kind)

    with pytest.raises(ValueError, match=f"looks up the {kind} of an average"):
        averaging(at(*BOTH), tables=(strange,))
    # At a stop that does not average it is.
    assert averaging(at("edge", "cloud"), tables=(strange,))


def test_averages_of_many_classes_are_refused() -> None:
    labels = tuple(f"class{index}" for index in range(MAX_CLASSES + 1))
    made = table("edge", choices=[choice(2, "regional")])
    wide = msgspec.structs.replace(made, rows=(0,) * len(labels))

    with pytest.raises(ValueError, match="averages of 65 classes"):
        averaging(at(*BOTH), tables=(wide,), labels=labels)


@pytest.mark.parametrize("tiers", [[], ["edge"], ["edge"] * 7, "edge", None, [1, 2]])
def test_a_file_with_an_average_of_nothing_is_refused(tiers: object) -> None:
    text = encode_policy(averaging(at(*BOTH)))
    plain = msgspec.json.decode(text)
    plain["gears"][0]["averages"][0]["tiers"] = tiers

    with pytest.raises(PolicyError, match="is not a policy"):
        decode_policy(msgspec.json.encode(plain), "policy.json")
