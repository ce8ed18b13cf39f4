"""The pending table beside a model that is trivially right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from runtime.core.pending import CORRELATION_BYTES, Pending, PendingTable, correlation_ids
from runtime.errors import OverloadedError

CAPACITY = 5


class PendingMachine(RuleBasedStateMachine):
    """Adds, resolves and drains in any order."""

    correlations = Bundle("correlations")

    def __init__(self) -> None:
        super().__init__()
        self.table: PendingTable[int] = PendingTable(CAPACITY)
        self.model: dict[bytes, int] = {}
        self.ids = correlation_ids(7)
        self.next_value = 0

    @rule(target=correlations)
    def new_correlation(self) -> bytes:
        return next(self.ids)

    @rule(correlation=correlations)
    def add(self, correlation: bytes) -> None:
        entry = Pending(sent_at_s=1.0, value=self.next_value)
        if correlation in self.model:
            with pytest.raises(ValueError, match="twice"):
                self.table.add(correlation, entry)
        elif len(self.model) >= CAPACITY:
            with pytest.raises(OverloadedError):
                self.table.add(correlation, entry)
        else:
            self.table.add(correlation, entry)
            self.model[correlation] = self.next_value
        self.next_value += 1

    @rule(correlation=correlations)
    def resolve(self, correlation: bytes) -> None:
        entry = self.table.resolve(correlation)

        expected = self.model.pop(correlation, None)
        assert (entry.value if entry else None) == expected

    @rule()
    def drain(self) -> None:
        ended = self.table.drain()

        assert sorted(entry.value for entry in ended) == sorted(self.model.values())
        self.model.clear()

    @invariant()
    def counts_what_waits(self) -> None:
        assert len(self.table) == len(self.model)


TestPendingTable = PendingMachine.TestCase


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_correlations_of_two_lives_never_meet(first: int, second: int) -> None:
    ours = [correlation for correlation, _ in zip(correlation_ids(first), range(4), strict=False)]
    theirs = [c for c, _ in zip(correlation_ids(second), range(4), strict=False)]

    assert all(len(correlation) == CORRELATION_BYTES for correlation in ours)
    assert len(set(ours)) == 4
    assert first == second or not set(ours) & set(theirs)
