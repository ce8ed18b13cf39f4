"""The record through assignments, restarts, verdicts and lost files, in any order.

What must hold however it came about: what was given up is not loaded again before somebody clears
it; numbers and floors only rise; no trial is loaded more than three times; while the files of
anything installed are there, something is loaded; and the record is the same once it was read back.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.releases import digests, everything, release
from runtime.core.activation import (
    MAX_ATTEMPTS,
    assign,
    begin_attempt,
    confirm,
    fail,
    ran_well,
    roll_back,
    set_factory,
    stage,
    stopped_cleanly,
)
from runtime.core.floors import raise_floor, raise_metadata_floors
from runtime.core.obeying import answering, withdraw
from runtime.core.releases import (
    Fault,
    Record,
    Release,
    Split,
    Trial,
    decode_record,
    encode_record,
)
from runtime.core.selection import Origin, select_at_start
from runtime.core.splitting import divide, unite
from runtime.errors import ReleaseError

RELEASES = [release(1), release(2), release(3)]
FACTORY = release(0, edition="factory")
releases = st.sampled_from(RELEASES)
losses = st.lists(st.sampled_from([*RELEASES, FACTORY]), max_size=2)
steps_s = st.sampled_from([-1e9, 0.0, 1.0, 100.0, 700.0, 1e9])
faults = st.sampled_from(Fault)
verdicts = st.sampled_from([None, None, None, Fault.ERRORS, Fault.LATENCY])

# Many steps of many histories: long on a busy machine.
pytestmark = pytest.mark.timeout(120)


class ActivationMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.record = Record()
        self.bad: set[str] = set()
        self.loads: dict[int, int] = {}
        self.now_s = 0.0
        self.seq = 0
        self.floor = 0

    @initialize(
        has_factory=st.booleans(), first=st.permutations(RELEASES), number=st.integers(0, 2)
    )
    def served(self, first: list[Release], number: int, *, has_factory: bool) -> None:
        """What the device has been through: without it most runs never come to a way back."""
        if has_factory:
            self.record = set_factory(self.record, "a", FACTORY)
        for what in first[:number]:
            self.updated(what)

    @rule(what=releases)
    def updated(self, what: Release) -> None:
        """Everything goes well."""
        if what.version < self.floor:
            return
        self.assigned(what, 1, clears=True, is_staged=True)
        trial = self.record.slot("a").trial
        if trial is not None and trial.attempts < MAX_ATTEMPTS:
            self.started(0.0, [])
            self.judged(0, None)

    def note_bad(self) -> None:
        self.bad |= {one.manifest_sha256 for one in self.record.slot("a").bad}

    @rule(
        what=releases,
        seq=st.sampled_from([1, 1, 1, 0, 0, -1, 3]),
        clears=st.sampled_from([True, True, False]),
        is_staged=st.sampled_from([True, True, False]),
    )
    def assigned(self, what: Release, seq: int, *, clears: bool, is_staged: bool) -> None:
        number, before = self.seq + seq, self.record.slot("a")
        is_same = number == before.seq and before.assigned == what.name
        may = (number > before.seq or is_same) and what.version >= self.floor
        may = may and (what.name not in self.bad or (clears and not is_same))
        change = stage if is_staged else assign

        try:
            self.record = change(self.record, "a", what, seq=number, clears_bad=clears)
        except ReleaseError:
            assert not may
        else:
            assert may
            self.seq = number
            self.bad.discard(what.name)

    @rule(step_s=steps_s, lost=st.just([]) | losses)
    def started(self, step_s: float, lost: list[Release]) -> None:
        self.now_s += step_s
        before, slot = self.record, self.record.slot("a")
        whole = everything(before) - digests(*lost)

        selection = select_at_start(before, "a", whole, self.now_s)

        self.record = selection.record
        self.note_bad()
        loadable = [one for one in slot.installed if digests(one) <= whole]
        confirmed = [one for one in (slot.current, slot.previous, slot.factory) if one in loadable]
        if confirmed:
            assert selection.release is not None
        if selection.release is not None:
            assert selection.release in loadable
            assert selection.release.name not in self.bad or selection.origin is Origin.FACTORY
        if selection.generation is not None:
            self.loads[selection.generation] = self.loads.get(selection.generation, 0) + 1
        assert selection.split == selection.record.slot("a").split
        if selection.split is not None:
            assert selection.split.release in loadable
            assert selection.split.trial.attempts <= MAX_ATTEMPTS

    @rule(what=releases, seq=st.sampled_from([1, 1, 0]), share=st.sampled_from([0.1, 0.9]))
    def divided(self, what: Release, seq: int, share: float) -> None:
        number, before = self.seq + seq, self.record.slot("a")
        is_same = number == before.seq and before.assigned == what.name
        may = (number > before.seq or is_same) and what.version >= self.floor
        may = may and what.name not in self.bad and before.trial is None
        may = may and answering(before) != what
        split = Split(Trial(0, what), share, "e", "user")

        try:
            self.record = divide(self.record, "a", split, seq=number)
        except ReleaseError:
            assert not may
        else:
            assert may
            self.seq = number
            after = self.record.slot("a")
            assert (after.current, after.previous) == (before.current, before.previous)
            assert after.split is not None

    @rule(is_withdrawn=st.booleans())
    def united(self, *, is_withdrawn: bool) -> None:
        if is_withdrawn:
            self.seq += 1
            self.record = withdraw(self.record, "a", self.seq)
        else:
            self.record = unite(self.record, "a")
        assert self.record.slot("a").split is None

    @precondition(lambda self: self.record.slot("a").trial)
    @rule()
    def attempted(self) -> None:
        self.record = begin_attempt(self.record, "a")
        self.note_bad()
        trial = self.record.slot("a").trial
        if trial is not None:
            self.loads[trial.generation] = self.loads.get(trial.generation, 0) + 1

    @precondition(lambda self: self.record.slot("a").trial or self.record.slot("a").bad)
    @rule(
        generation_off=st.sampled_from([0] * 6 + [-1, 1]),
        fault=st.sampled_from([None, None, *Fault]),
    )
    def judged(self, generation_off: int, fault: Fault | None) -> None:
        before = self.record.slot("a")
        generation = before.generation + generation_off
        try:
            if fault is None:
                self.record = confirm(self.record, "a", generation)
            else:
                self.record = fail(self.record, "a", generation, fault)
        except ReleaseError:
            assert before.trial is None or before.trial.generation != generation
            return
        self.note_bad()
        assert before.trial is not None
        after = self.record.slot("a")
        if fault is None:
            assert after.current == before.trial.release
        else:
            assert after.current == before.current

    @rule(fault=faults)
    def rolled_back(self, fault: Fault) -> None:
        before = self.record.slot("a")
        try:
            self.record = roll_back(self.record, "a", fault)
        except ReleaseError:
            assert before.trial is None
            assert before.split is None
            assert before.previous is None or before.current is None
        else:
            after = self.record.slot("a")
            assert before.trial or before.split or after.current == before.previous
        self.note_bad()

    # Seldom high: above all releases nothing more happens.
    @rule(version=st.sampled_from([0, 1, 1, 1, 1, 1, 2, 4]))
    def floor_raised(self, version: int) -> None:
        self.record = raise_floor(self.record, "m", version)
        self.floor = max(self.floor, version)

    @rule(version=st.integers(0, 4))
    def metadata_verified(self, version: int) -> None:
        floor = self.record.metadata_floors.get("timestamp", 0)
        try:
            self.record = raise_metadata_floors(self.record, {"timestamp": version})
        except ReleaseError:
            assert version < floor
        assert self.record.metadata_floors.get("timestamp", 0) == max(floor, version)

    @rule(is_clean=st.booleans())
    def settled(self, *, is_clean: bool) -> None:
        trial = self.record.slot("a").trial
        self.record = (stopped_cleanly if is_clean else ran_well)(self.record, "a")
        if is_clean and trial and self.loads.get(trial.generation):
            self.loads[trial.generation] -= 1

    @invariant()
    def what_is_bad_is_in_no_place(self) -> None:
        slot = self.record.slot("a")
        trial = slot.trial.release if slot.trial else None
        split = slot.split.release if slot.split else None
        places = [one for one in (slot.current, slot.previous, trial, split, slot.wanted) if one]
        assert not {one.name for one in places} & self.bad
        assert {one.manifest_sha256 for one in slot.bad} == self.bad
        assert slot.current is None or slot.current != slot.previous

    @invariant()
    def a_trial_is_loaded_three_times_at_most(self) -> None:
        assert max(self.loads.values(), default=0) <= MAX_ATTEMPTS

    @invariant()
    def a_split_and_a_trial_are_never_at_once(self) -> None:
        slot = self.record.slot("a")
        assert slot.trial is None or slot.split is None
        assert slot.split is None or slot.split.release != slot.current

    @invariant()
    def numbers_and_floors_only_rise(self) -> None:
        assert self.record.slot("a").seq == self.seq
        assert self.record.floors.get("m", 0) == self.floor
        trial = self.record.slot("a").trial
        assert trial is None or trial.release.version >= self.floor

    @invariant()
    def it_can_be_read_back(self) -> None:
        assert decode_record(encode_record(self.record), "state.json") == self.record


ActivationMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=60)
TestActivation = ActivationMachine.TestCase
