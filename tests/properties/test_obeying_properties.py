"""Whatever a device is told, in whatever order: the record stays one that can be obeyed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from fakes.releases import release
from runtime.core.activation import assign, confirm, fail, set_factory, stage
from runtime.core.obeying import answering, give_up, go_back, take_back, withdraw
from runtime.core.releases import Fault, Record, Release, Slot, decode_record, encode_record
from runtime.errors import ReleaseError

NAME = "m"
FACTORY, *RELEASES = [release(number) for number in range(5)]
TAKES_BACK = ("withdraw", "go_back", "take_back")
numbers = st.integers(1, 12)
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["assign", "stage", "confirm", "fail", "withdraw", "go_back", "take_back", "give_up"]
        ),
        st.sampled_from(RELEASES),
        numbers,
        st.booleans(),
    ),
    max_size=30,
)


def places(slot: Slot) -> list[str]:
    """Names of what may come to answer, the last resort aside."""
    found = [slot.current, slot.previous, slot.wanted, slot.trial.release if slot.trial else None]
    return [one.name for one in found if one is not None]


def told_to(record: Record, what: str, one: Release, seq: int, *, flag: bool) -> Record:
    """The record after one step; the errors of each."""
    generation = record.slot(NAME).generation
    to = one.name if flag else ""
    ways: dict[str, Callable[[], Record]] = {
        "assign": lambda: assign(record, NAME, one, seq=seq, clears_bad=flag),
        "stage": lambda: stage(record, NAME, one, seq=seq, clears_bad=flag),
        "confirm": lambda: confirm(record, NAME, generation),
        "fail": lambda: fail(record, NAME, generation, Fault.LATENCY),
        "withdraw": lambda: withdraw(record, NAME, seq),
        "go_back": lambda: go_back(record, NAME, seq=seq, to=to),
        "take_back": lambda: take_back(record, NAME),
        "give_up": lambda: give_up(record, NAME, one, Fault.ERRORS),
    }
    return ways[what]()


@given(steps)
def test_nothing_that_was_given_up_answers_and_there_is_always_a_way_back(
    told: list[tuple[str, Release, int, bool]],
) -> None:
    record = set_factory(Record(), NAME, FACTORY)
    for what, one, seq, flag in told:
        before = record.slot(NAME)
        # Refused: nothing of it has happened.
        with suppress(ReleaseError):
            record = told_to(record, what, one, seq, flag=flag)
        slot = record.slot(NAME)

        assert slot.seq >= before.seq
        assert not {bad.manifest_sha256 for bad in slot.bad} & set(places(slot))
        assert answering(slot) is not None
        assert what not in TAKES_BACK or slot == before or slot.wanted is None
        # Nobody but ``confirm`` brings anything forward.
        assert what == "confirm" or slot.current in (before.current, None, before.previous)
        assert decode_record(encode_record(record), "test") == record
