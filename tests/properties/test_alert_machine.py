"""Alerts as a machine: told once, repeated in time, ended once, quiet while silenced."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.core.alerts import (
    Alert,
    AlertRules,
    Condition,
    Notice,
    Phase,
    Silence,
    What,
    step,
)
from runtime.topics import check_name

RULES = AlertRules(pending_for_s=10, repeat_s=100, clear_for_s=20, memory_s=500)
KINDS = ("breaker_open", "outbox_full")


def condition(kind: str = KINDS[0], **fields: str) -> Condition:
    return Condition(kind, "plant", "camera-1", "something is wrong", **fields)  # type: ignore[arg-type]


@dataclass
class Driven:
    """One alert over time."""

    alerts: dict[str, Alert]
    now_s: float = 1000.0

    def after(
        self, seconds: float, *, holds: bool, silences: tuple[Silence, ...] = ()
    ) -> list[What]:
        self.now_s += seconds
        seen = [condition()] if holds else []
        self.alerts, notices = step(self.alerts, seen, self.now_s, RULES, silences)
        return [one.what for one in notices]

    @property
    def phase(self) -> Phase:
        return self.alerts[condition().key].phase


@pytest.fixture
def driven() -> Driven:
    return Driven({})


def test_a_life_of_an_alert(driven: Driven) -> None:
    assert driven.after(0, holds=True) == []
    assert driven.after(9, holds=True) == []
    assert driven.after(1, holds=True) == [What.FIRING]
    assert driven.after(99, holds=True) == []
    assert driven.after(1, holds=True) == [What.REPEAT]
    assert driven.after(1, holds=False) == []
    assert driven.phase is Phase.RECOVERING
    assert driven.after(20, holds=False) == [What.RECOVERED]
    assert driven.after(499, holds=False) == []
    assert driven.after(500, holds=False) == []
    assert driven.alerts == {}


def test_a_moment_is_no_alert(driven: Driven) -> None:
    driven.after(0, holds=True)

    assert driven.after(9, holds=False) == []
    assert driven.alerts == {}


def test_one_that_comes_and_goes_is_one_long_alert(driven: Driven) -> None:
    driven.after(0, holds=True)
    told = driven.after(10, holds=True)
    for _ in range(4):
        told += driven.after(1, holds=False)
        told += driven.after(15, holds=True)
    told += driven.after(1, holds=False)
    told += driven.after(319, holds=False)
    assert told == [What.FIRING]
    assert driven.after(1, holds=False) == [What.RECOVERED]


def test_one_that_comes_back_after_its_end_recovers_more_slowly(driven: Driven) -> None:
    driven.after(0, holds=True)
    driven.after(10, holds=True)
    driven.after(1, holds=False)
    driven.after(20, holds=False)
    driven.after(5, holds=True)
    assert driven.after(10, holds=True) == [What.FIRING]
    driven.after(1, holds=False)
    assert driven.after(39, holds=False) == []
    assert driven.after(1, holds=False) == [What.RECOVERED]


def test_a_moment_of_one_that_is_remembered_tells_nobody(driven: Driven) -> None:
    driven.after(0, holds=True)
    driven.after(10, holds=True)
    driven.after(1, holds=False)
    driven.after(20, holds=False)
    assert driven.after(5, holds=True) == []
    assert driven.after(1, holds=False) == []
    assert driven.phase is Phase.RECOVERED


def test_what_is_silenced_is_told_when_the_silence_ends(driven: Driven) -> None:
    quiet = (Silence("breaker_open*", 1050.0, "somebody"), Silence("other", 9999.0, "somebody"))
    driven.after(0, holds=True, silences=quiet)
    assert driven.after(10, holds=True, silences=quiet) == []
    assert driven.after(40, holds=True, silences=quiet) == [What.FIRING]


def test_an_end_is_told_to_those_who_were_told_of_the_beginning(driven: Driven) -> None:
    quiet = (Silence(condition().key, 9999.0, "somebody"),)
    driven.after(0, holds=True)
    driven.after(10, holds=True)
    driven.after(1, holds=False, silences=quiet)
    assert driven.after(20, holds=False, silences=quiet) == [What.RECOVERED]

    driven.after(600, holds=False)
    driven.after(1, holds=True, silences=quiet)
    driven.after(10, holds=True, silences=quiet)
    driven.after(1, holds=False, silences=quiet)
    assert driven.after(20, holds=False, silences=quiet) == []


def test_a_clock_that_is_set_back_makes_nothing_older(driven: Driven) -> None:
    driven.after(0, holds=True)
    driven.after(10, holds=True)
    driven.after(-900, holds=True)

    assert driven.after(99, holds=True) == []
    assert driven.after(1, holds=True) == [What.REPEAT]


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_keys_are_names_that_a_topic_takes(region: str, site: str, detail: str) -> None:
    one = Condition("breaker_open", region, site, "", detail=detail)

    assert check_name(one.key) == one.key
    assert one.key == Condition("breaker_open", region, site, "other", detail=detail).key


def test_different_places_have_different_keys() -> None:
    long = "x" * 64
    places = [("a", "b"), ("a.b", "c" * 64), ("a", long), (long, "a"), (long + "a", "")]

    assert len({Condition("k", region, site, "").key for region, site in places}) == len(places)


class Machine(RuleBasedStateMachine):
    """Two conditions and a silence over time, against what a listener may ever see."""

    def __init__(self) -> None:
        super().__init__()
        self.alerts: dict[str, Alert] = {}
        self.now_s = 10_000.0
        self.silences: list[Silence] = []
        self.holds: set[str] = set()
        self.known: set[str] = set()
        self.last: dict[str, Notice] = {}
        self.began: dict[str, float] = {}

    @rule(seconds=st.floats(0, 200), holds=st.sets(st.sampled_from(KINDS)))
    def go_on(self, seconds: float, holds: set[str]) -> None:
        self.now_s += seconds
        for kind in holds - self.holds:
            self.began[kind] = self.now_s
        self.holds = holds
        seen = [condition(kind) for kind in sorted(holds)]
        self.alerts, notices = step(self.alerts, seen, self.now_s, RULES, self.silences)
        assert len({one.key for one in notices}) == len(notices)
        for one in notices:
            self.hear(one)
        # The same moment again, as after a restart: nobody is told again.
        again, more = step(self.alerts, seen, self.now_s, RULES, self.silences)
        assert (again, more) == (self.alerts, [])

    def hear(self, notice: Notice) -> None:
        kind, last = notice.condition.kind, self.last.get(notice.key)
        silenced = any(one.covers(notice.key, self.now_s) for one in self.silences)
        if notice.what is What.RECOVERED:
            assert notice.key in self.known
            assert kind not in self.holds
            self.known.discard(notice.key)
        else:
            assert not silenced
            assert kind in self.holds
            assert (notice.what is What.REPEAT) == (notice.key in self.known)
            self.known.add(notice.key)
        if notice.what is What.REPEAT:
            assert last is not None
            assert notice.at_s - last.at_s >= RULES.repeat_s
        self.last[notice.key] = notice

    @rule(kind=st.sampled_from(KINDS), seconds=st.floats(0, 300))
    def silence(self, kind: str, seconds: float) -> None:
        self.silences.append(Silence(condition(kind).key, self.now_s + seconds, "somebody"))

    @invariant()
    def who_was_told_has_an_alert_that_is_not_over(self) -> None:
        told = {key for key, one in self.alerts.items() if one.told_s is not None}
        assert told == self.known
        over = {key for key, one in self.alerts.items() if one.phase is Phase.RECOVERED}
        assert not over & self.known


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
