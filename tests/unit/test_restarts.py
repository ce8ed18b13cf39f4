from __future__ import annotations

import pytest

from runtime.core.restarts import Restarts


def test_each_end_doubles_the_wait_up_to_the_limit() -> None:
    restarts = Restarts(min_s=1, max_s=10)

    assert [restarts.wait_s(0.5) for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_a_process_that_ran_well_starts_over_with_a_short_wait() -> None:
    restarts = Restarts(min_s=1, max_s=10, healthy_after_s=60)
    restarts.wait_s(0)
    restarts.wait_s(0)

    assert restarts.wait_s(59.9) == 4
    assert restarts.wait_s(60) == 1
    assert restarts.wait_s(0) == 2


@pytest.mark.parametrize(("min_s", "max_s"), [(0, 1), (2, 1), (float("nan"), 1)])
def test_waits_that_cannot_be_are_refused(min_s: float, max_s: float) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        Restarts(min_s=min_s, max_s=max_s)
