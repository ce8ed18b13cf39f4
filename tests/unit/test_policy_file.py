"""The policy file: the same bytes for the same policy, and no contradictions in it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import PolicyError
from runtime.messages import Guarantee
from runtime.policy import (
    MAX_POLICY_BYTES,
    Choice,
    DecisionTable,
    Gear,
    Interval,
    Policy,
    Promise,
    SplitFacts,
    Targets,
    decode_policy,
    digest_of,
    encode_policy,
)

# Three labels share two rows; two tiers agree or not; the last row is for batches.
WIDTHS = (2, 1, 3, 1, 2)
EDGES = tuple(tuple(0.1 * (edge + 1) for edge in range(width - 1)) for width in WIDTHS)


def cells(value: float) -> tuple[tuple[float, ...], ...]:
    return tuple((value,) * width for width in WIDTHS)


AT_REGIONAL = DecisionTable(
    tiers=("edge", "regional"),
    rows=(0, 1, 0),
    edges=EDGES,
    choices=(
        Choice(gain=cells(0.1), cost=cells(1.0), to=("cloud",), chance=0.98),
        Choice(gain=cells(-0.2), cost=cells(0.0), answer="edge"),
    ),
    score="margin",
)
AT_EDGE = DecisionTable(
    tiers=("edge",),
    rows=(0, 0, 0),
    edges=((0.5,), ()),
    choices=(
        Choice(gain=((0.2, 0.0), (0.3,)), cost=((0.4, 0.4), (0.5,)), to=("regional",)),
        Choice(gain=((0.2, 0.0), (0.3,)), cost=((1.3, 1.3), (1.3,)), to=("regional", "cloud")),
    ),
)
PROMISE = Promise(
    answered_by={"edge": 0.7, "regional": 0.2, "cloud": 0.1},
    cost=Interval(0.3, 0.28, 0.32),
    loss=Interval(0.002, -0.001, 0.005),
    accuracy=Interval(0.93, 0.92, 0.94),
    late=0.01,
    savings_captured=0.8,
    p_value=0.01,
)
GEAR = Gear(
    name="100ms-x1",
    guarantee=Guarantee.CERTIFIED,
    penalty=0.1,
    tables=(AT_EDGE, AT_REGIONAL),
    promise=PROMISE,
    budget_ms=100.0,
    load=1.0,
    placement="edge > regional > cloud",
)
POLICY = Policy(
    name="fashion",
    tiers=("edge", "regional", "cloud"),
    prices=(0.02, 0.3, 1.0),
    labels=("shirt", "coat", "bag"),
    targets=Targets(max_loss=0.01, delta=0.1, max_late=0.02),
    train=SplitFacts("ab" * 32, 2000, "train.npz"),
    calibration=SplitFacts("cd" * 32, 1000),
    gears=(GEAR,),
    models={"edge": "ef" * 32},
)


def with_gears(*gears: Gear) -> Policy:
    return msgspec.structs.replace(POLICY, gears=gears)


def with_table(table: DecisionTable = AT_REGIONAL, **changed: Any) -> Policy:
    """The policy whose gear has one table, changed."""
    tables = (msgspec.structs.replace(table, **changed),)
    return with_gears(msgspec.structs.replace(GEAR, tables=tables))


def with_choice(**changed: Any) -> Policy:
    """The policy whose table at the edge has one choice, changed."""
    choice = msgspec.structs.replace(AT_EDGE.choices[0], **changed)
    return with_table(AT_EDGE, choices=(choice,))


def test_a_policy_is_read_back_as_it_was_written() -> None:
    contents = encode_policy(POLICY)

    assert decode_policy(contents, "policy.json") == POLICY
    assert encode_policy(decode_policy(contents, "policy.json")) == contents


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.floats(-5, 5), min_size=1, max_size=20, unique=True).map(sorted),
)
def test_numbers_are_read_back_to_the_last_digit(penalty: float, edges: list[float]) -> None:
    table = msgspec.structs.replace(AT_EDGE, edges=(tuple(edges), ()), choices=())
    gear = msgspec.structs.replace(GEAR, penalty=penalty, tables=(table,))

    contents = encode_policy(with_gears(gear))

    read = decode_policy(contents, "policy.json")
    assert read.gears[0] == gear
    assert encode_policy(read) == contents


def test_the_order_in_which_things_were_said_does_not_change_the_bytes() -> None:
    text = json.loads(encode_policy(POLICY))
    shuffled = json.dumps({key: text[key] for key in reversed(text)}, indent=4).encode()
    promise = msgspec.structs.replace(
        PROMISE, answered_by=dict(reversed(PROMISE.answered_by.items()))
    )
    other = with_gears(msgspec.structs.replace(GEAR, promise=promise))

    assert encode_policy(decode_policy(shuffled, "policy.json")) == encode_policy(POLICY)
    assert encode_policy(other) == encode_policy(POLICY)


def test_a_policy_is_a_line_of_text_named_by_its_digest() -> None:
    contents = encode_policy(POLICY)

    assert contents.count(b"\n") == 1
    assert contents.endswith(b"}\n")
    assert digest_of(contents) == hashlib.sha256(contents).hexdigest()


def test_fields_of_a_later_version_are_skipped() -> None:
    text = json.loads(encode_policy(POLICY))
    text["new"] = {"deep": [1, 2]}
    text["gears"][0]["new"] = 1
    text["gears"][0]["tables"][0]["choices"][0]["new"] = None

    assert decode_policy(json.dumps(text).encode(), "policy.json") == POLICY


def test_what_was_left_out_has_a_default() -> None:
    text = json.loads(encode_policy(POLICY))
    for name in ("models", "method", "software"):
        text.pop(name, None)
    for name in ("budget_ms", "load", "placement"):
        text["gears"][0].pop(name, None)

    policy = decode_policy(json.dumps(text).encode(), "policy.json")

    assert (policy.models, policy.method, policy.software) == ({}, "", "")
    assert (policy.gears[0].budget_ms, policy.gears[0].load) == (0.0, 1.0)


def test_patterns_are_the_ways_in_which_tiers_below_agree() -> None:
    assert AT_EDGE.num_patterns == 1
    assert AT_REGIONAL.num_patterns == 2


def test_a_table_is_found_by_who_has_answered() -> None:
    assert GEAR.table_at(("edge", "regional")) is AT_REGIONAL
    assert GEAR.table_at(("regional",)) is None


def with_conditions(*conditions: tuple[float, float]) -> Policy:
    """Gears for pairs of budget and load."""
    return with_gears(
        *(
            msgspec.structs.replace(GEAR, name=f"{budget:g}-{load:g}", budget_ms=budget, load=load)
            for budget, load in conditions
        )
    )


@pytest.mark.parametrize(
    ("budget_ms", "load", "name"),
    [
        (50, 1, "50-1"),
        (99.9, 1, "50-1"),
        (100, 1, "100-1"),
        (1e9, 1, "100-1"),
        (math.inf, 0.5, "100-1"),
        (100, 1.01, "100-2"),
        (100, 2, "100-2"),
        (100, 3, "100-4"),
        # No gear covers it: that of the highest load.
        (100, 5, "100-4"),
        (100, math.inf, "100-4"),
        (100, math.nan, "100-4"),
        (60, 4, "50-1"),
        (49, 1, None),
        (math.nan, 1, None),
    ],
)
def test_a_request_gets_the_gear_of_the_largest_budget_it_has_and_the_least_load_that_covers_it(
    budget_ms: float, load: float, name: str | None
) -> None:
    policy = with_conditions((100, 2), (50, 1), (100, 1), (100, 4))

    gear = policy.gear_for(budget_ms, load)

    assert (None if gear is None else gear.name) == name


def test_a_gear_without_a_budget_is_for_every_request() -> None:
    policy = with_conditions((0, 1))

    assert policy.gear_for(0) is policy.gear_for(1e6, 9) is policy.gears[0]
    assert policy.gear_for(-1) is None


def of_policy(**changed: Any) -> Callable[[], Policy]:
    return lambda: msgspec.structs.replace(POLICY, **changed)


def of_gear(**changed: Any) -> Callable[[], Policy]:
    return lambda: with_gears(msgspec.structs.replace(GEAR, **changed))


def of_promise(**changed: Any) -> Callable[[], Policy]:
    return of_gear(promise=msgspec.structs.replace(PROMISE, **changed))


def of_table(**changed: Any) -> Callable[[], Policy]:
    return lambda: with_table(**changed)


def of_choice(**changed: Any) -> Callable[[], Policy]:
    return lambda: with_choice(**changed)


NAN, INF = math.nan, math.inf
CONTRADICTIONS: list[tuple[str, Callable[[], Policy], str]] = [
    ("a tier twice", of_policy(tiers=("edge", "cloud", "edge")), "a tier is there twice"),
    ("fewer prices", of_policy(prices=(0.1, 1.0)), "2 prices for 3 tiers"),
    ("a price that is none", of_policy(prices=(0.1, NAN, 1.0)), "a price is not finite"),
    ("a target that is none", of_policy(targets=Targets(0.01, NAN)), "a target is not finite"),
    ("a gear twice", of_policy(gears=(GEAR, GEAR)), "a gear is there twice"),
    ("a penalty that is none", of_gear(penalty=NAN), "a gear's number is not finite"),
    ("an endless budget", of_gear(budget_ms=INF), "a gear's number is not finite"),
    ("an endless load", of_gear(load=INF), "a gear's number is not finite"),
    ("a promise of nothing", of_promise(p_value=NAN), "a promise is not finite"),
    ("an endless interval", of_promise(cost=Interval(1, 0, INF)), "a promise is not finite"),
    ("shares of nobody", of_promise(answered_by={"edge": NAN}), "a promise is not finite"),
    ("two tables for a stop", of_gear(tables=(AT_EDGE, AT_EDGE)), "two tables for the same tiers"),
    ("a strange tier", of_table(tiers=("edge", "metro")), "a table of .* in a policy of"),
    ("tiers upside down", of_table(tiers=("regional", "edge")), "a table of .* in a policy of"),
    ("a tier that answers twice", of_table(tiers=("edge", "edge")), "a table of"),
    ("fewer labels", of_table(rows=(0, 1)), "2 rows for 3 labels"),
    ("rows beyond the edges", of_table(rows=(0, 1, 2)), "5 rows of edges where 7 are needed"),
    ("rows short of the edges", of_table(rows=(0, 0, 0)), "5 rows of edges where 3 are needed"),
    ("no row for batches", of_table(edges=EDGES[:-1]), "4 rows of edges where 5 are needed"),
    ("an edge that is none", of_table(edges=((NAN,), *EDGES[1:])), "an edge is not finite"),
    ("edges that fall", of_table(edges=((0.2, 0.1), *EDGES[1:])), "do not rise"),
    ("edges that are equal", of_table(edges=((0.1, 0.1), *EDGES[1:])), "do not rise"),
    ("edges of other bins", of_table(edges=((), *EDGES[1:])), "not one number for every bin"),
    ("a choice of nothing", of_choice(to=()), "either asks tiers or gives an earlier answer"),
    ("a choice of both", of_choice(answer="edge"), "either asks tiers or gives an earlier"),
    ("asking oneself", of_choice(to=("edge",)), "edge cannot ask"),
    ("asking a stranger", of_choice(to=("metro",)), "edge cannot ask"),
    ("asking twice", of_choice(to=("cloud", "cloud")), "edge cannot ask"),
    ("asking upside down", of_choice(to=("cloud", "regional")), "edge cannot ask"),
    ("the own answer", of_choice(to=(), answer="edge"), "no earlier answer of 'edge'"),
    ("an answer from above", of_choice(to=(), answer="cloud"), "no earlier answer of 'cloud'"),
    ("a bin more", of_choice(gain=((0.0, 0.0), (0.0, 0.0))), "not one number for every bin"),
    ("a row more", of_choice(cost=((0.0, 0.0), (0.0,), (0.0,))), "not one number for every bin"),
    ("a gain that is none", of_choice(gain=((NAN, 0.0), (0.0,))), "of a table is not finite"),
    ("an endless cost", of_choice(cost=((0.0, INF), (0.0,))), "of a table is not finite"),
]


@pytest.mark.parametrize(
    ("make", "why"),
    [case[1:] for case in CONTRADICTIONS],
    ids=[case[0] for case in CONTRADICTIONS],
)
def test_a_policy_that_contradicts_itself_is_never_made(
    make: Callable[[], Policy], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def text_with(value: object, *where: str | int) -> bytes:
    """The policy's text with one value changed."""
    text = json.loads(encode_policy(POLICY))
    place = text
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    return json.dumps(text).encode()


TABLE = ("gears", 0, "tables", 0)
WRONG: list[tuple[bytes, str]] = [
    (b"", "truncated"),
    (b"null", "Expected `object`"),
    (b"[]", "Expected `object`"),
    (b"{}", "missing required field"),
    (b"\xff\xfe", "malformed"),
    (b"[" * 100_000, "policy.json is not a policy"),
    (b'{"new":' + b"[" * 100_000, "policy.json is not a policy"),
    (encode_policy(POLICY)[:-10], "truncated"),
    (encode_policy(POLICY) + b"{}", "trailing"),
    (text_with("a name", "name"), "matching regex"),
    (text_with("x" * 129, "name"), "length <= 128"),
    (text_with("../up", "tiers", 0), "matching regex"),
    (text_with(["edge"], "tiers"), "length >= 2"),
    (text_with([f"t{index}" for index in range(7)], "tiers"), "length <= 6"),
    (text_with([], "gears"), "length >= 1"),
    (text_with(["one"], "labels"), "length >= 2"),
    (text_with("0.1", "prices", 0), "Expected `float`"),
    (text_with(10**400, "prices", 0), "out of range"),
    (text_with(None, "targets", "delta"), "Expected `float`"),
    (text_with(-1, "train", "num_examples"), ">= 0"),
    (text_with("hopeful", "gears", 0, "guarantee"), "Invalid enum value"),
    (text_with(1.5, "gears", 0, "promise", "late"), "<= 1"),
    (text_with("vibes", *TABLE, "score"), "Invalid enum value"),
    (text_with(-1, *TABLE, "rows", 0), ">= 0"),
    (text_with(10**18, *TABLE, "rows", 0), "rows of edges where"),
    (text_with([], *TABLE, "tiers"), "length >= 1"),
    (text_with(2, *TABLE, "choices", 0, "chance"), "<= 1"),
    (text_with(["metro"], *TABLE, "choices", 0, "to"), "edge cannot ask"),
    (text_with([0.1], "prices"), "1 prices for 3 tiers"),
]


@pytest.mark.parametrize(("contents", "why"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_file_that_is_no_policy_is_refused(contents: bytes, why: str) -> None:
    with pytest.raises(PolicyError, match=why) as refusal:
        decode_policy(contents, "policy.json")

    assert "policy.json" in str(refusal.value)


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    contents = encode_policy(POLICY)
    padded = contents + b" " * (MAX_POLICY_BYTES - len(contents))

    assert decode_policy(padded, "policy.json") == POLICY
    with pytest.raises(PolicyError, match=f"policy.json is over {MAX_POLICY_BYTES} bytes"):
        decode_policy(padded + b" ", "policy.json")


INTACT = encode_policy(POLICY)


def is_read_or_refused(contents: bytes) -> bool:
    """Whether it was read; any other error than the refusal goes through."""
    try:
        policy = decode_policy(contents, "policy.json")
    except PolicyError:
        return False
    # What was read can be written, and read again.
    assert decode_policy(encode_policy(policy), "policy.json") == policy
    return True


@given(st.binary(max_size=100))
def test_random_bytes_are_refused(contents: bytes) -> None:
    assert not is_read_or_refused(contents)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(INTACT) - 1),
            st.sampled_from([b"", b"9", b"-", b"e9", b".", b'"', b",", b"[]", b"null", b"\x00"]),
            st.integers(0, 8),
        ),
        max_size=3,
    )
)
def test_damaged_policies_are_read_whole_or_refused(damages: list[tuple[int, bytes, int]]) -> None:
    contents = INTACT
    for place, piece, length in damages:
        contents = contents[:place] + piece + contents[place + length :]

    is_read_or_refused(contents)
