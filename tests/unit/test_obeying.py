"""Withdrawn, told to go back, taken back by hand: transitions of the record."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fakes.releases import release
from runtime.core.activation import (
    Refusal,
    assign,
    confirm,
    fail,
    set_factory,
    stage,
    with_slot,
)
from runtime.core.obeying import (
    Standing,
    answering,
    give_up,
    go_back,
    is_new,
    standing,
    take_back,
    withdraw,
)
from runtime.core.releases import Fault, Record, Release, Slot
from runtime.errors import ReleaseError

ONE, TWO, THREE = release(1), release(2), release(3)
FACTORY = release(0)


def packaged() -> Record:
    return set_factory(Record(), "m", FACTORY)


def confirmed(record: Record, new: Release, seq: int) -> Record:
    record = stage(record, "m", new, seq=seq)
    return confirm(record, "m", record.slot("m").generation)


def refused(because: Refusal) -> pytest.RaisesExc[ReleaseError]:
    return pytest.RaisesExc(ReleaseError, check=lambda error: error.because == because)


def name_of(found: Release | None) -> str:
    assert found is not None
    return found.name


def test_a_higher_number_is_new_the_same_is_a_repetition_and_a_lower_one_a_replay() -> None:
    slot = Slot(seq=4)

    assert is_new(slot, seq=5, heard_seq=0)
    assert not is_new(slot, seq=4, heard_seq=0)
    assert not is_new(slot, seq=6, heard_seq=6)
    for seq, heard_seq in ((3, 0), (5, 6)):
        with refused(Refusal.REPLAYED):
            is_new(slot, seq=seq, heard_seq=heard_seq)


def test_what_answers_is_current_then_previous_then_factory() -> None:
    assert answering(Slot()) is None
    assert answering(Slot(factory=FACTORY)) == FACTORY
    assert answering(Slot(factory=FACTORY, previous=ONE)) == ONE
    assert answering(Slot(factory=FACTORY, previous=ONE, current=TWO)) == TWO


def test_the_record_says_how_far_the_latest_assignment_came() -> None:
    record = packaged()
    assert standing(record.slot("m")) is Standing.NOTHING
    record = assign(record, "m", ONE, seq=1)
    assert standing(record.slot("m")) is Standing.WANTED
    tried = stage(record, "m", ONE, seq=1)
    assert standing(tried.slot("m")) is Standing.TRIAL
    assert standing(confirm(tried, "m", 1).slot("m")) is Standing.CURRENT
    assert standing(fail(tried, "m", 1, Fault.ERRORS).slot("m")) is Standing.GIVEN_UP
    assert standing(withdraw(record, "m", 2).slot("m")) is Standing.NOTHING


def test_withdrawing_forgets_what_does_not_answer_and_leaves_a_trial() -> None:
    record = stage(packaged(), "m", ONE, seq=1)
    record = withdraw(assign(record, "m", TWO, seq=2), "m", 3)

    slot = record.slot("m")
    assert (slot.wanted, slot.seq) == (None, 3)
    assert slot.trial is not None
    with refused(Refusal.REPLAYED):
        withdraw(record, "m", 3)


def test_told_to_go_back_a_trial_ends_at_once() -> None:
    record = confirmed(packaged(), ONE, 1)
    record = go_back(stage(record, "m", TWO, seq=2), "m", seq=3, to=ONE.name)

    slot = record.slot("m")
    assert (slot.trial, slot.seq, name_of(answering(slot))) == (None, 3, ONE.name)
    assert slot.is_bad(TWO)


@pytest.mark.parametrize("to", ["", ONE.name])
def test_what_was_confirmed_goes_back_one_step(to: str) -> None:
    record = confirmed(confirmed(packaged(), ONE, 1), TWO, 2)
    record = go_back(record, "m", seq=3, to=to)

    assert name_of(answering(record.slot("m"))) == ONE.name
    assert record.slot("m").is_bad(TWO)


@pytest.mark.parametrize("to", ["", ONE.name])
def test_who_never_let_it_answer_only_forgets_it(to: str) -> None:
    record = assign(confirmed(packaged(), ONE, 1), "m", TWO, seq=2)
    record = go_back(record, "m", seq=3, to=to)

    slot = record.slot("m")
    assert (slot.wanted, name_of(answering(slot)), slot.bad) == (None, ONE.name, ())


def test_who_has_gone_back_by_itself_goes_no_further() -> None:
    record = stage(confirmed(packaged(), ONE, 1), "m", TWO, seq=2)
    record = go_back(give_up(record, "m", TWO, Fault.LATENCY), "m", seq=3)

    assert name_of(answering(record.slot("m"))) == ONE.name


def test_who_has_withdrawn_goes_no_further_either() -> None:
    record = assign(confirmed(packaged(), ONE, 1), "m", TWO, seq=2)
    record = go_back(withdraw(record, "m", 3), "m", seq=4)

    assert name_of(answering(record.slot("m"))) == ONE.name


def test_without_the_one_that_is_named_nothing_changes() -> None:
    record = confirmed(confirmed(packaged(), ONE, 1), TWO, 2)

    with refused(Refusal.NO_WAY_BACK):
        go_back(record, "m", seq=3, to=THREE.name)


def test_an_empty_slot_and_the_factory_alone_have_no_way_back() -> None:
    for record in (Record(), packaged()):
        with refused(Refusal.NO_WAY_BACK):
            go_back(record, "m", seq=1)
        with refused(Refusal.NO_WAY_BACK):
            take_back(record, "m")


def test_a_slot_whose_last_model_is_gone_refuses_a_name() -> None:
    only = with_slot(Record(), "m", Slot(current=ONE, previous=TWO))
    lost = with_slot(only, "m", replace(only.slot("m"), previous=None, factory=ONE))

    with refused(Refusal.NO_WAY_BACK):
        go_back(lost, "m", seq=1, to=TWO.name)


def test_by_hand_what_is_wanted_goes_first_then_a_trial_then_what_serves() -> None:
    record = confirmed(confirmed(packaged(), ONE, 1), TWO, 2)
    wanted = take_back(assign(record, "m", THREE, seq=3), "m")
    assert wanted.slot("m").is_bad(THREE)
    assert name_of(answering(wanted.slot("m"))) == TWO.name

    tried = take_back(stage(record, "m", THREE, seq=3), "m")
    assert (tried.slot("m").trial, name_of(answering(tried.slot("m")))) == (None, TWO.name)

    both = assign(stage(record, "m", THREE, seq=3), "m", release(4), seq=4)
    slot = take_back(both, "m").slot("m")
    assert (slot.trial, slot.wanted, len(slot.bad)) == (None, None, 2)

    assert name_of(answering(take_back(record, "m").slot("m"))) == ONE.name


def test_given_up_is_given_up_in_every_place_but_the_last_resort() -> None:
    record = assign(confirmed(packaged(), ONE, 1), "m", TWO, seq=2)
    kept = give_up(record, "m", FACTORY, Fault.LOAD_FAILED)

    assert give_up(record, "m", TWO, Fault.LATENCY).slot("m").wanted is None
    assert answering(give_up(record, "m", ONE, Fault.LATENCY).slot("m")) == FACTORY
    assert kept.slot("m").factory == FACTORY
    assert kept.slot("m").wanted == TWO
