import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.hedging import MAX_SAVED, HedgeBudget, hedge_delay_ms


@given(st.lists(st.booleans(), max_size=500), st.floats(0, 0.5))
def test_hedges_stay_a_share_of_requests(events: list[bool], share: float) -> None:
    budget = HedgeBudget(share)
    num_requests = num_hedges = 0
    for is_request in events:
        if is_request:
            budget.note_request()
            num_requests += 1
        else:
            num_hedges += budget.take()

    assert num_hedges <= share * num_requests + 1e-9


def test_only_a_few_hedges_are_kept_for_later() -> None:
    budget = HedgeBudget(0.5)
    for _ in range(1000):
        budget.note_request()

    taken = sum(budget.take() for _ in range(1000))

    assert taken == MAX_SAVED


@pytest.mark.parametrize(
    ("slow_ms", "usual_ms", "waits_ms", "expected"),
    [
        (50.0, 20.0, 100.0, 50.0),
        (50.0, 20.0, 60.0, None),
        (None, 20.0, 100.0, None),
        (50.0, None, 100.0, None),
    ],
)
def test_a_hedge_is_for_the_slowest_and_only_where_it_can_return(
    slow_ms: float | None, usual_ms: float | None, waits_ms: float, expected: float | None
) -> None:
    assert hedge_delay_ms(slow_ms, usual_ms, waits_ms) == expected
