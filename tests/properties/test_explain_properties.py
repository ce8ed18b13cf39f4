"""Explanations: never an exception, whatever was logged; turns are where the table turns."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fakes.gears import CHAIN, LOWER, RACE, SKIP, gear
from fakes.tiers import LABELS
from runtime.adapters.explain_query import story_of
from runtime.adapters.policy_file import KnownPolicy
from runtime.core.explain import explain, facts_of_hop
from runtime.core.story import Story, height, paragraphs
from runtime.core.turning import Place, chance_to_ask, places_like, turns
from runtime.messages import Guarantee, Hop, Outcome, Reason, Residency, Tier
from runtime.policy import Choice, DecisionTable
from runtime.ports import DecisionRecord

DIGEST = "0123456789ab"
numbers = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(-1, 1)
words = st.text(max_size=8)
tiers = st.sampled_from(Tier).map(str) | words
labels = st.none() | st.integers(-1, 2**40)
records = st.builds(
    DecisionRecord,
    wall_s=numbers,
    request_id=words,
    tier=tiers,
    site=words,
    region=words,
    hop=st.integers(0, 9),
    model=words,
    model_version=words,
    action=st.sampled_from(("answer", "escalate")) | words,
    decided_because=st.sampled_from(Reason).map(str) | words,
    outcome=st.sampled_from(Outcome).map(str) | words,
    reason=st.sampled_from(Reason).map(str) | words,
    answered_by=st.just("") | tiers,
    label=labels,
    confidence=st.none() | numbers,
    remaining_ms=numbers,
    latency_ms=numbers,
    service_us=st.integers(0, 2**40),
    sent_bytes=st.just(0),
    policy=st.sampled_from(("", DIGEST, "other")),
    gear=st.sampled_from(("", "g", "unknown")),
    score=st.none() | numbers,
    route=st.sampled_from(("", "cloud", "regional,cloud")) | words,
    gain=st.none() | st.sampled_from((0.0, 0.5)) | numbers,
    cost=st.none() | st.sampled_from((0.0, 0.1)) | numbers,
    chance=st.none() | numbers,
    guarantee=st.sampled_from(Guarantee).map(str) | words,
    seen=st.sampled_from(("", "edge=1:0.5", "edge=1:0.5;regional=0:0.9")) | words,
    residency=st.sampled_from(("", *Residency)) | words,
)
known_policies = st.none() | st.builds(
    KnownPolicy,
    st.sampled_from((CHAIN, LOWER, RACE, SKIP)),
    st.just(DIGEST + "0" * 52),
    st.just("policy.json"),
)


@st.composite
def places(draw: st.DrawFn) -> Place:
    """Any place in a table of one tier with two choices."""
    edges = tuple(sorted(draw(st.sets(finite, max_size=4))))
    width = len(edges) + 1
    row = st.tuples(*[finite] * width)
    choices = [
        Choice(
            gain=(draw(row), draw(row)),
            cost=(draw(row), draw(row)),
            to=to,
            chance=draw(st.floats(0, 1)),
        )
        for to in (("regional",), ("cloud",))
    ]
    table = DecisionTable(("edge",), (0,) * len(LABELS), (edges, edges), tuple(choices))
    followed = gear(table, penalty=draw(st.floats(0, 2)))
    return Place(
        followed,
        table,
        label=draw(st.none() | st.integers(0, 2)),
        earlier=(),
        score=draw(numbers),
        chance=draw(numbers),
        out_of_reach=draw(st.sampled_from((frozenset(), frozenset({"cloud"})))),
    )


@given(st.lists(records, min_size=1, max_size=4), known_policies)
def test_whatever_was_logged_is_told(
    logged: list[DecisionRecord], known: KnownPolicy | None
) -> None:
    logged.sort(key=lambda one: height(one.tier))

    story = story_of(logged, known=known)

    assert all("\x1b" not in line and "\n" not in line for line in paragraphs(story))
    assert msgspec.json.decode(msgspec.json.encode(story), type=Story).ending == story.ending


@given(
    st.builds(
        Hop,
        st.sampled_from(Tier),
        words,
        words,
        words,
        st.sampled_from(Reason),
        labels,
        st.none() | numbers,
        escalated=st.booleans(),
    )
)
def test_every_hop_is_told(hop: Hop) -> None:
    assert len(explain(facts_of_hop(hop), labels=LABELS).words) >= 2


@given(places())
def test_at_a_turn_the_table_does_what_the_turn_says(place: Place) -> None:
    here = place.advice().choice

    for turn in turns(place):
        score = turn.at if turn.side == "from" else math.nextafter(turn.at, -math.inf)
        there = place.advice(score=score).choice
        assert there is not here
        assert ",".join(there.to if there else ()) == turn.asks


@given(places(), st.floats(-1, 1))
def test_where_there_is_no_turn_the_table_says_the_same(place: Place, score: float) -> None:
    scores = {turn.at for turn in turns(place)}
    here, there = place.advice().choice, place.advice(score=score).choice

    reachable = 0 <= score <= 1
    assert scores or not reachable or here is there


@given(places())
def test_with_the_chance_that_is_named_the_table_asks(place: Place) -> None:
    chance = chance_to_ask(place)

    better = place.advice(chance=(1.0 if chance is None else chance) * (1 + 1e-9)).choice
    assert chance is None or (better is not None and bool(better.to))


@given(places(), st.floats(0, 0.99))
def test_where_no_chance_is_named_none_would_do(place: Place, chance: float) -> None:
    place = replace(place, chance=chance)
    asks = [place.advice(chance=one).choice for one in (chance, 1.0)]

    is_named = chance_to_ask(place) is not None
    now, at_best = (choice is not None and bool(choice.to) for choice in asks)
    assert is_named or now or not at_best


@given(places())
def test_a_decision_is_found_again_by_what_was_weighed(place: Place) -> None:
    advice = place.advice()

    found = places_like(
        place.gear,
        place.table,
        score=place.score,
        chance=place.chance,
        weighed=(advice.gain, advice.cost),
        out_of_reach=place.out_of_reach,
    )

    assert advice.row in {other.advice().row for other in found}
