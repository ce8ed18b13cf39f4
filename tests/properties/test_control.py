from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.stops import state, stop
from runtime.core.control import (
    Known,
    Subject,
    apply,
    is_usable,
    next_sequence,
    stops_asker,
    supersedes,
    told,
    verdict,
    with_stop,
    without_stops,
)
from runtime.messages import ControlState, Stop, StopMode, StopScope

SUBJECT = Subject("r", "agent-1", "animals", "edge-1")
NAMES = st.sampled_from(["", "r", "s", "agent-1", "r/agent-1", "animals", "animals@edge-1", "x"])
STOPS = st.builds(
    stop,
    scope=st.sampled_from([scope.value for scope in StopScope]),
    target=NAMES,
    mode=st.sampled_from([mode.value for mode in StopMode]),
    why=st.sampled_from(["a", "b"]),
)
STATES = st.builds(
    lambda sequence, stops, region: state(sequence, *stops, region=region),
    st.integers(1, 4),
    st.lists(STOPS, max_size=3),
    st.sampled_from(["r", "cloud"]),
)


def _after(states: Sequence[ControlState]) -> Known:
    known: Known = {}
    for one in states:
        known = apply(known, one)
    return known


@given(st.lists(STATES, max_size=5), st.randoms(use_true_random=False))
def test_states_come_to_the_same_in_any_order_and_however_often(
    states: list[ControlState], random: object
) -> None:
    shuffled = [*states, *states]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert _after(shuffled) == _after(states)


@given(st.lists(STATES, max_size=6))
def test_a_sequence_never_goes_back(states: list[ControlState]) -> None:
    known: Known = {}
    for one in states:
        before = {region: held.sequence for region, held in known.items()}
        known = apply(known, one)
        assert all(known[region].sequence >= last for region, last in before.items())


@given(STATES, STATES)
def test_one_of_two_states_counts_unless_they_are_the_same(
    one: ControlState, other: ControlState
) -> None:
    assert supersedes(one, other) + supersedes(other, one) == (one != other)
    assert apply({one.region: one}, one) == {one.region: one}


@given(st.lists(STATES, max_size=4), STATES)
def test_more_stops_never_stop_less(states: list[ControlState], more: ControlState) -> None:
    weights = {StopMode.FALLBACK: 1, StopMode.STOP: 2}
    known = {f"{number}": one for number, one in enumerate(states)}

    found = verdict(known, SUBJECT), verdict({**known, "more": more}, SUBJECT)
    before, after = (weights[one.mode] if one else 0 for one in found)

    assert after >= before


@pytest.mark.parametrize(
    ("scope", "target", "concerns"),
    [
        ("all", "", True),
        ("region", "r", True),
        ("region", "s", False),
        ("model", "animals", True),
        ("model", "animals@edge-1", True),
        ("model", "animals@edge-2", False),
        ("device", "agent-1", True),
        ("device", "r/agent-1", True),
        ("device", "s/agent-1", False),
        ("device", "agent-2", False),
    ],
)
def test_a_stop_concerns_whom_it_names(scope: str, target: str, concerns: bool) -> None:
    known = {"cloud": state(1, stop(scope, target), region="cloud")}

    assert (verdict(known, SUBJECT) is not None) == concerns


def test_a_stop_counts_before_a_fallback_and_the_wider_one_is_named() -> None:
    stops = [
        stop("all", "", "fallback"),
        stop("device", "agent-1", "stop"),
        stop("region", "r", "stop"),
    ]

    named = [verdict({"r": state(1, *order)}, SUBJECT) for order in permutations(stops)]

    assert all(one is not None and one.scope is StopScope.REGION for one in named)


def test_only_a_stop_of_the_very_device_is_about_whoever_asks() -> None:
    known = {"r": state(1, stop(), stop("device", "a", "fallback"), stop("device", "r/b"))}

    assert stops_asker(known, "r", "a") is None
    assert stops_asker(known, "s", "b") is None
    assert stops_asker(known, "r", "b") == stop("device", "r/b")


@given(STATES, STOPS, st.floats(0, 4e9))
def test_a_stop_that_is_made_and_taken_back_leaves_the_others(
    before: ControlState, one: Stop, wall_s: float
) -> None:
    made = with_stop(before, before.region, one, sequence=next_sequence(before, wall_s))
    gone = without_stops(
        made, [one], sequence=next_sequence(made, wall_s), by="kim", why="it was nothing"
    )

    assert one in made.stops
    assert before.sequence < made.sequence < gone.sequence
    kept = [held for held in before.stops if (held.scope, held.target) != (one.scope, one.target)]
    assert list(gone.stops) == kept
    assert (gone.by, gone.why) == ("kim", "it was nothing")


def test_the_first_state_begins_at_the_wall_clock() -> None:
    assert next_sequence(None, 12.5) == 12_500
    assert next_sequence(None, 0) == 1
    assert with_stop(None, "r", stop(), sequence=7) == msgspec.structs.replace(
        state(7, stop()), by="kim@desk", why="it is wrong"
    )


@pytest.mark.parametrize(
    "odd",
    [
        stop("all", "r"),
        stop("device", ""),
        msgspec.structs.replace(stop(), wall_s=-1.0),
        msgspec.structs.replace(stop(), wall_s=float("nan")),
        msgspec.structs.replace(stop(), wall_s=1e30),
    ],
)
def test_a_stop_that_does_not_say_what_it_is_about_is_unusable(odd: Stop) -> None:
    assert not is_usable(state(1, odd))
    assert is_usable(state(1, stop(), stop("device", "a")))


def test_a_stop_is_told_in_one_printable_line() -> None:
    text = told(stop("model", "animals", "fallback", "two\nlines"))

    assert text == (
        "fallback of model animals by kim@desk since 2026-09-21 14:13:20 UTC: two?lines"
    )
    assert told(stop()).startswith("stop of all by kim@desk since ")
