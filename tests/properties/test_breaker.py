"""A breaker against what it promises: never too many probes, and only sick streams open it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.core.breaker import TRANSITIONS, Breaker, BreakerSettings, Change, Event, Pass, State

SETTINGS = BreakerSettings()


def run(breaker: Breaker, outcomes: list[bool], now_s: float = 0.0, step_s: float = 0.01) -> float:
    """Outcomes one after the other, as far as they pass; returns the time after them."""
    for succeeded in outcomes:
        passed = breaker.enter(now_s)
        if passed is not None:
            breaker.leave(passed, now_s, succeeded=succeeded)
        now_s += step_s
    return now_s


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.trip(now_s, "told to")
    return breaker


def test_the_table_names_every_event_and_no_change_into_the_same_state() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert all(before is not after for (before, _), after in TRANSITIONS.items())


def test_failures_that_take_turns_with_successes_open_it() -> None:
    breaker = Breaker()

    run(breaker, [True, False] * SETTINGS.min_outcomes)

    assert breaker.state is State.OPEN


def test_too_few_outcomes_decide_nothing() -> None:
    breaker = Breaker()

    run(breaker, [False] * (SETTINGS.min_outcomes - 1))

    assert breaker.state is State.CLOSED


def test_old_failures_are_forgotten() -> None:
    breaker = Breaker()

    run(breaker, [False] * 30, step_s=SETTINGS.span_s / 8)

    assert breaker.state is State.CLOSED


def test_what_says_nothing_decides_nothing() -> None:
    breaker = Breaker()
    for _ in range(100):
        passed = breaker.enter(0)
        assert passed is not None
        breaker.leave(passed, 0, succeeded=None)

    assert breaker.state is State.CLOSED


def test_an_open_breaker_lets_nothing_pass_until_its_cool_down_is_over() -> None:
    breaker = opened()

    assert not breaker.lets_pass(0.99)
    assert breaker.enter(0.5) is None
    assert breaker.lets_pass(1.0)


def test_probes_that_succeed_close_it() -> None:
    breaker = opened()

    run(breaker, [True] * SETTINGS.probes, now_s=1.0)

    assert breaker.state is State.CLOSED


def test_one_probe_that_fails_opens_it_for_twice_as_long() -> None:
    breaker = opened()
    run(breaker, [True, False], now_s=1.0)

    assert breaker.state is State.OPEN
    assert not breaker.lets_pass(2.9)
    assert breaker.lets_pass(3.1)


def test_the_cool_down_has_a_limit_and_is_short_again_after_a_healthy_time() -> None:
    changes: list[Change] = []
    breaker = Breaker("one", on_change=changes.append)
    breaker.trip(0, "told to")
    now_s = 0.0
    for _ in range(8):
        now_s += SETTINGS.max_cool_down_s
        run(breaker, [False], now_s=now_s)
    cool_downs_s = [change.cool_down_s for change in changes if change.state is State.OPEN]
    now_s = run(breaker, [True] * 2, now_s=now_s + SETTINGS.max_cool_down_s)
    breaker.trip(now_s + SETTINGS.max_cool_down_s, "told to")

    assert cool_downs_s == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert changes[-1] == Change("one", State.OPEN, "told to", 1.0)


def test_what_passed_before_it_opened_decides_nothing_any_more() -> None:
    breaker = Breaker()
    early = [breaker.enter(0) for _ in range(5)]
    breaker.trip(0, "told to")
    probe = breaker.enter(1.0)
    assert probe is not None

    for passed in early:
        assert passed is not None
        breaker.leave(passed, 1.0, succeeded=False)
    breaker.leave(probe, 1.0, succeeded=True)
    breaker.leave(probe, 1.0, succeeded=False)

    assert breaker.state is State.HALF_OPEN


def test_a_probe_of_which_nothing_is_heard_gives_its_place_back() -> None:
    breaker = opened()
    probes = [breaker.enter(1.0) for _ in range(3)]
    assert probes[0] is not None

    breaker.leave(probes[0], 1.0, succeeded=None)

    assert probes[2] is None
    assert breaker.enter(1.0) is not None


def test_what_is_open_is_not_tripped_again() -> None:
    changes: list[Change] = []
    breaker = Breaker("one", on_change=changes.append)

    breaker.trip(0, "first")
    breaker.trip(0, "second")

    assert [change.why for change in changes] == ["first"]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_stream_with_few_failures_never_opens_it(flags: list[bool]) -> None:
    """Between two failures there are always two successes."""
    outcomes = [outcome for flag in flags for outcome in ([False] if flag else []) + [True, True]]
    breaker = Breaker()

    run(breaker, [True] * SETTINGS.min_outcomes + outcomes)

    assert breaker.state is State.CLOSED


@given(st.integers(1, 10), st.floats(0.001, 1))
def test_any_stream_that_fails_half_of_the_time_opens_it(run_length: int, step_s: float) -> None:
    changes: list[Change] = []
    breaker = Breaker(on_change=changes.append)
    outcomes = ([True] * run_length + [False] * run_length) * 10

    run(breaker, outcomes, step_s=step_s)

    assert State.OPEN in {change.state for change in changes}


class Breakers(RuleBasedStateMachine):
    """Any order of requests, outcomes and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.breaker = Breaker(on_change=self._note)
        self.out: list[tuple[Pass, State]] = []
        self.probes: set[Pass] = set()
        self.opened_s = 0.0
        self.least_s = 0.0

    def _note(self, change: Change) -> None:
        self.probes.clear()
        if change.state is State.OPEN:
            self.opened_s, self.least_s = self.now_s, change.cool_down_s

    @rule(num=st.integers(1, 12))
    def enter(self, num: int) -> None:
        for _ in range(num):
            was_ready = self.breaker.lets_pass(self.now_s)
            passed = self.breaker.enter(self.now_s)
            assert (passed is not None) == was_ready
            if passed is not None:
                self.out.append((passed, self.breaker.state))
                if self.breaker.state is State.HALF_OPEN:
                    self.probes.add(passed)

    @rule(data=st.data(), succeeded=st.sampled_from([True, False, None]))
    def leave(self, data: st.DataObject, succeeded: bool | None) -> None:
        if not self.out:
            return
        passed, _ = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.probes.discard(passed)
        self.breaker.leave(passed, self.now_s, succeeded=succeeded)

    @rule(step_s=st.sampled_from([0.01, 0.5, 1.0, 7.0, 31.0]))
    def wait(self, step_s: float) -> None:
        self.now_s += step_s

    @invariant()
    def never_more_than_the_probes_allowed(self) -> None:
        if self.breaker.state is State.HALF_OPEN:
            assert len(self.probes) <= SETTINGS.probes

    @invariant()
    def nothing_passes_while_it_cools_down(self) -> None:
        if self.breaker.state is State.OPEN and self.now_s - self.opened_s < self.least_s:
            assert not self.breaker.lets_pass(self.now_s)


TestBreakers = Breakers.TestCase


def test_there_is_no_transition_that_the_table_does_not_have() -> None:
    with pytest.raises(KeyError):
        Breaker()._change(Event.RECOVERED, 0, "")
