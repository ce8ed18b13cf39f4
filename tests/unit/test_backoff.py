from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.adapters.backoff import Backoff

pytestmark = pytest.mark.unit


@given(st.integers(), st.floats(0.001, 10), st.floats(1, 100))
def test_waits_stay_in_range_and_grow_threefold_at_most(
    seed: int, min_s: float, times: float
) -> None:
    max_s = min_s * times
    backoff = Backoff(min_s=min_s, max_s=max_s, random=random.Random(seed))

    waits = [backoff.next_s() for _ in range(30)]

    assert all(min_s <= wait <= max_s * (1 + 1e-9) for wait in waits)
    for before, after in zip([min_s, *waits], waits, strict=False):
        assert after <= 3 * before * (1 + 1e-9)


def test_the_first_waits_of_many_clients_are_spread() -> None:
    """A broker that restarts must not see all its agents in the same instant."""
    firsts = [Backoff(min_s=1, max_s=60, random=random.Random(n)).next_s() for n in range(100)]

    assert max(firsts) - min(firsts) > 1.5


def test_waits_start_over_after_a_reset() -> None:
    backoff = Backoff(min_s=1, max_s=1000, random=random.Random(1))
    for _ in range(30):
        backoff.next_s()

    backoff.reset()

    assert backoff.next_s() <= 3


@pytest.mark.parametrize(("min_s", "max_s"), [(0, 1), (-1, 1), (2, 1)])
def test_a_range_that_cannot_be_is_refused(min_s: float, max_s: float) -> None:
    with pytest.raises(ValueError, match="min_s"):
        Backoff(min_s=min_s, max_s=max_s, random=random.Random(1))
