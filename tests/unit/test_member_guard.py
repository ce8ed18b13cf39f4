"""Who of several members may run."""

from __future__ import annotations

import numpy as np

from runtime.core.breaker import Change, State
from runtime.member_guard import STUCK_S, SUSPECT_S, SUSPECT_TIMES, MemberGuard, mark_of

USUAL_MS = 5.0
DUE_S = SUSPECT_TIMES * USUAL_MS / 1000


def test_a_member_that_is_late_gets_no_other_request_while_there_are_others() -> None:
    guard = MemberGuard(("a", "b"))
    guard.begin("a", 0.0, USUAL_MS)

    assert set(guard.enter(DUE_S + SUSPECT_S - 0.01)) == {"a", "b"}
    assert set(guard.enter(DUE_S + SUSPECT_S + 0.01)) == {"b"}
    guard.end("a")
    assert set(guard.enter(DUE_S + SUSPECT_S + 0.02)) == {"a", "b"}


def test_where_all_are_late_it_is_the_machine() -> None:
    guard = MemberGuard(("a", "b"))
    guard.begin("a", 0.0, USUAL_MS)
    guard.begin("b", 0.0, USUAL_MS)

    assert set(guard.enter(DUE_S + SUSPECT_S + 0.01)) == {"a", "b"}


def test_a_member_that_is_stuck_opens_its_breaker_and_is_probed_when_it_is_done() -> None:
    changes: list[Change] = []
    guard = MemberGuard(("a",), changes.append)
    guard.begin("a", 0.0, USUAL_MS)
    late_s = DUE_S + STUCK_S + 0.01

    assert not guard.enter(late_s)
    assert not guard.enter(late_s + 5)
    guard.end("a")
    assert set(guard.enter(late_s + 6)) == {"a"}
    assert [change.state for change in changes] == [State.OPEN, State.HALF_OPEN]


def test_inputs_are_told_apart_by_a_few_of_their_numbers() -> None:
    picture = np.zeros((1, 100, 100), np.float32)
    other = picture.copy()
    other[0, 50:] = 1

    assert mark_of({"x": picture}) == mark_of({"x": picture.copy()})
    assert mark_of({"x": picture}) != mark_of({"x": other})
    assert len(mark_of({"x": picture})) < 1000
