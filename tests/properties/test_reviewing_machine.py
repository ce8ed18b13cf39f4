"""People and an item: whatever they do, nobody labels twice and nothing is lost on a restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from runtime.core.reviewing import (
    LEASE_S,
    MAX_LABELS,
    UNDO_S,
    Age,
    Case,
    Move,
    State,
    age_of,
    expire,
    give,
    order_of,
    take,
    undo,
    value_of,
)

PEOPLE = st.sampled_from(["ann", "bob", "cid", "dee", "eve", "fay"])
LABELS = st.integers(0, 3)


class Reviewing(RuleBasedStateMachine):
    """Beside the case, a plain list of what has counted."""

    @initialize(wanted=st.integers(1, 2))
    def begin(self, wanted: int) -> None:
        self.case, self.now_s = Case(wanted), 1000.0
        self.said: dict[str, int | None] = {}
        self.settled: int | None = None

    @rule(who=PEOPLE)
    def somebody_takes(self, who: str) -> None:
        before = self.case
        self.case, move = take(self.case, who, self.now_s)
        if before.is_over():
            assert move is Move.LATE
        elif who in self.said:
            assert move is Move.HELD
        if move is Move.TAKEN:
            live = [one for one in self.case.leases if one.until_s > self.now_s]
            assert len(live) <= self.case.num_places()
            assert sum(one.who == who for one in live) == 1
        else:
            assert self.case == before

    @rule(who=PEOPLE, label=st.one_of(st.none(), LABELS))
    def somebody_labels(self, who: str, label: int | None) -> None:
        before = self.case
        self.case, move = give(self.case, who, label, self.now_s)
        if move is Move.COUNTED:
            assert who not in self.said
            assert not before.is_over()
            self.said[who] = label
        else:
            assert self.case == before
            if who in self.said:
                assert move is (Move.KNOWN if self.said[who] == label else Move.TWICE)
            else:
                assert move is Move.LATE

    @rule(who=PEOPLE)
    def somebody_undoes(self, who: str) -> None:
        before = self.case
        self.case, move = undo(self.case, who, self.now_s)
        if move is Move.UNDONE:
            del self.said[who]
            self.settled = None
        else:
            assert self.case == before
            assert (move is Move.NOTHING) == (who not in self.said)

    @rule(after_s=st.sampled_from([1.0, UNDO_S + 1, LEASE_S + 1]))
    def time_passes(self, after_s: float) -> None:
        self.now_s += after_s

    @rule()
    def it_expires(self) -> None:
        was_over = self.case.is_over()
        self.case, move = expire(self.case)
        assert move is (Move.NOTHING if was_over else Move.COUNTED)

    @rule()
    def the_process_starts_again(self) -> None:
        case = self.case
        self.case = Case(case.wanted, tuple(case.given), tuple(case.leases), case.is_expired)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert {one.who: one.label for one in self.case.given} == self.said
        assert len(self.case.given) == len(self.said)
        assert len(self.case.labels) <= MAX_LABELS

    @invariant()
    def the_state_says_what_people_said(self) -> None:
        labels = [one.label for one in self.case.labels]
        most = max((labels.count(one) for one in labels), default=0)
        state = self.case.state(self.now_s)
        assert (state in (State.LABELLED, State.AGREED)) == (most >= self.case.wanted)
        assert (state is State.AGREED) == (most >= self.case.wanted and len(labels) > 1)
        if state is State.DISPUTED:
            assert len(set(labels)) > 1
        winner = self.case.winner()
        if self.settled is not None:
            assert winner == self.settled
        self.settled = winner
        assert self.case.num_places() >= 0


TestReviewing = Reviewing.TestCase


def test_two_people_are_not_given_the_same_item() -> None:
    case, first = take(Case(1), "ann", 0.0)
    case, second = take(case, "bob", 1.0)
    later, third = take(case, "bob", LEASE_S + 1)

    assert (first, second, third) == (Move.TAKEN, Move.HELD, Move.TAKEN)
    assert case.state(1.0) is State.ASSIGNED
    assert [one.who for one in later.leases] == ["bob"]


def test_a_third_person_settles_a_dispute() -> None:
    case = Case(2)
    for who, label in (("ann", 0), ("bob", 1)):
        case, _ = give(case, who, label, 0.0)
    assert case.state(0.0) is State.DISPUTED
    assert case.num_places() == 1

    case, _ = give(case, "eve", 1, 0.0)

    assert (case.state(0.0), case.winner()) == (State.AGREED, 1)


def test_after_five_who_differ_nobody_is_asked() -> None:
    case = Case(2)
    for label, who in enumerate(["ann", "bob", "cid", "dee", "eve"]):
        case, _ = give(case, who, label, 0.0)

    assert case.state(0.0) is State.DISPUTED
    assert take(case, "fay", 0.0)[1] is Move.LATE


def test_undone_is_only_what_was_just_said() -> None:
    case, _ = give(Case(1), "ann", 2, 100.0)

    assert undo(case, "ann", 100.0 + UNDO_S)[1] is Move.UNDONE
    assert undo(case, "ann", 100.1 + UNDO_S)[1] is Move.LATE
    assert undo(case, "bob", 100.0)[1] is Move.NOTHING


@given(st.floats(1, 1e6), st.floats(0, 2))
def test_half_and_all_of_the_promised_time(span_s: float, share: float) -> None:
    age = age_of(0.0, span_s, share * span_s)

    if share * span_s >= span_s:
        assert age is Age.OVERDUE
    else:
        assert age is (Age.HALF if share * span_s >= span_s / 2 else Age.FRESH)


def test_what_is_due_comes_first_and_then_what_is_worth_most() -> None:
    items = [("late", 50, 0.1), ("later", 60, 0.9), ("cheap", 200, 0.2), ("dear", 300, 0.8)]

    ordered = sorted(items, key=lambda one: order_of(one[1], one[2], one[0], 100.0))

    assert [one[0] for one in ordered] == ["late", "later", "dear", "cheap"]


@pytest.mark.parametrize(
    ("chance", "label", "value"),
    [(0.25, 1, 0.75), (0.9, -1, 1.0), (float("nan"), 1, 1.0), (1.5, 1, 1.0)],
)
def test_the_value_of_an_item(chance: float, label: int, value: float) -> None:
    assert value_of(chance, label) == value
