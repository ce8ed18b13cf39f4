from __future__ import annotations

import pytest

from runtime.core.relayed import Mark, Place, Relayed

ONE, TWO, THREE = Place("r", "one"), Place("r", "two"), Place("below", "one")


def heard() -> Relayed:
    relayed = Relayed()
    relayed.all_heard()
    return relayed


def publish(relayed: Relayed) -> list[tuple[Place, bytes]]:
    due = relayed.due()
    for place, _ in due:
        relayed.sent(place)
    return due


def test_nothing_is_published_before_all_was_heard() -> None:
    relayed = Relayed()
    relayed.above(ONE, b"x", 1)

    assert relayed.due() == []
    relayed.all_heard()
    assert relayed.due() == [(ONE, b"x")]
    assert relayed.due() == [(ONE, b"x")]


def test_what_is_there_already_is_not_published_again() -> None:
    relayed = Relayed()
    relayed.above(ONE, b"x", 1)
    relayed.here(ONE, Mark.of(1, b"x"))
    relayed.all_heard()

    assert relayed.due() == []
    assert relayed.above(ONE, b"x", 1)
    assert relayed.due() == []


def test_an_older_one_is_not_put_over_a_newer_one() -> None:
    relayed = heard()
    relayed.here(ONE, Mark.of(5, b"new"))

    assert relayed.above(ONE, b"old", 4)
    assert relayed.due() == []
    assert relayed.above(ONE, b"newest", 6)
    assert publish(relayed) == [(ONE, b"newest")]
    assert not relayed.above(ONE, b"old", 4)
    assert publish(relayed) == []


def test_an_older_one_that_somebody_else_has_put_there_is_replaced() -> None:
    relayed = heard()
    relayed.above(ONE, b"new", 5)
    assert publish(relayed) == [(ONE, b"new")]
    relayed.here(ONE, Mark.of(5, b"new"), is_ours=True)

    relayed.here(ONE, Mark.of(4, b"old"))

    assert publish(relayed) == [(ONE, b"new")]


def test_what_is_cleared_above_is_cleared_below() -> None:
    relayed = heard()
    relayed.above(ONE, b"x", 5)
    publish(relayed)

    relayed.cleared_above(ONE)

    assert publish(relayed) == [(ONE, b"")]
    relayed.here(ONE, Mark.of(5, b"x"), is_ours=True)
    relayed.here(ONE, None, is_ours=True)
    assert publish(relayed) == []
    relayed.here(ONE, Mark.of(5, b"x"))
    assert publish(relayed) == [(ONE, b"")]
    relayed.here(ONE, None, is_ours=True)
    relayed.here(ONE, Mark.of(6, b"y"))
    assert publish(relayed) == []
    assert relayed.above(ONE, b"again", 1)
    relayed.here(ONE, None)
    assert publish(relayed) == [(ONE, b"again")]


def test_a_clearing_of_what_was_never_heard_clears_what_is_there_then() -> None:
    relayed = Relayed()
    relayed.here(ONE, Mark.of(5, b"x"))
    relayed.cleared_above(ONE)
    relayed.cleared_above(TWO)
    relayed.all_heard()

    assert publish(relayed) == [(ONE, b"")]
    relayed.here(ONE, None, is_ours=True)
    relayed.here(TWO, Mark.of(1, b"later"))
    relayed.here(ONE, Mark.of(6, b"later"))
    assert publish(relayed) == []


def test_another_gateway_s_clearing_is_not_undone_but_a_loss_is() -> None:
    relayed = heard()
    relayed.above(ONE, b"x", 1)
    publish(relayed)
    relayed.here(ONE, Mark.of(1, b"x"), is_ours=True)
    assert publish(relayed) == []

    relayed.here(ONE, None)
    relayed.above(TWO, b"y", 1)

    assert publish(relayed) == [(TWO, b"y")]
    relayed.lost()
    assert publish(relayed) == []
    relayed.all_heard()
    assert publish(relayed) == [(ONE, b"x"), (TWO, b"y")]
    relayed.all_heard()
    assert publish(relayed) == []


def test_so_many_places_are_remembered() -> None:
    relayed = Relayed(2)
    for place in (ONE, TWO, THREE):
        relayed.above(place, b"x", 1, f"{place.region}/{place.site}")
        relayed.here(place, Mark.of(1, b"x"))
    relayed.all_heard()

    assert relayed.num_places == 2
    assert relayed.num_forgotten == 1
    assert relayed.paths() == {"r/two", "below/one"}
    # What the broker retains is known of two places, too, and the third is published once more.
    assert relayed.due() == []


def test_a_relay_for_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        Relayed(0)


def test_what_came_before_our_own_clearing_arrived_is_published_again() -> None:
    relayed = heard()
    relayed.above(ONE, b"x", 1)
    publish(relayed)
    relayed.cleared_above(ONE)
    publish(relayed)
    relayed.here(ONE, Mark.of(1, b"x"), is_ours=True)
    relayed.here(ONE, Mark.of(2, b"y"))
    relayed.above(ONE, b"y", 2)
    assert publish(relayed) == [(ONE, b"y")]

    relayed.here(ONE, None, is_ours=True)

    assert publish(relayed) == []
    relayed.here(ONE, Mark.of(2, b"y"), is_ours=True)
    assert publish(relayed) == []


def test_an_echo_of_a_place_that_was_forgotten_is_nothing() -> None:
    relayed = Relayed(1)
    relayed.all_heard()
    relayed.here(ONE, Mark.of(1, b"x"))
    relayed.cleared_above(ONE)
    assert publish(relayed) == [(ONE, b"")]
    relayed.above(TWO, b"y", 1)

    relayed.here(ONE, None, is_ours=True)

    assert publish(relayed) == [(TWO, b"y")]


def test_what_can_never_be_sent_is_not_tried_again() -> None:
    relayed = heard()
    relayed.above(ONE, b"x", 1)
    assert relayed.due() == [(ONE, b"x")]

    relayed.given_up(ONE)

    assert relayed.due() == []
