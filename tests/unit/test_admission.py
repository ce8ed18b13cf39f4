import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.admission import Admission, Urgency
from runtime.errors import OverloadedError


@given(st.lists(st.integers(0, 60), max_size=40))
def test_what_is_in_never_exceeds_either_limit(sizes: list[int]) -> None:
    admission = Admission(max_count=5, max_bytes=100)
    entered: list[int] = []

    for size in sizes:
        has_room = len(entered) < 5 and sum(entered) + size <= 100
        if has_room:
            admission.enter(size)
            entered.append(size)
        else:
            with pytest.raises(OverloadedError) as refused:
                admission.enter(size)
            assert refused.value.retry_after_ms > 0
            admission.leave(entered.pop(0), 3.0)
        assert admission.count == len(entered) <= 5
        assert admission.num_bytes == sum(entered) <= 100


def test_slow_work_makes_the_hint_longer() -> None:
    admission = Admission(max_count=1, max_bytes=100)
    for _ in range(30):
        admission.enter(1)
        admission.leave(1, 200.0)
    admission.enter(1)

    with pytest.raises(OverloadedError) as refused:
        admission.enter(1)

    assert refused.value.retry_after_ms > 100


def test_leaving_without_having_entered_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="entered"):
        Admission(1, 1).leave(0, 1.0)


def refused(admission: Admission, urgency: Urgency) -> bool:
    try:
        admission.enter(1, urgency)
    except OverloadedError:
        return True
    return False


@pytest.mark.parametrize(
    ("urgency", "places"), [(Urgency.CAN_WAIT, 4), (Urgency.NORMAL, 8), (Urgency.URGENT, 9)]
)
def test_the_more_urgent_the_more_places(urgency: Urgency, places: int) -> None:
    admission = Admission(max_count=8, max_bytes=1000)

    assert [refused(admission, urgency) for _ in range(10)].index(True) == places


def test_urgent_work_has_bytes_of_its_own() -> None:
    admission = Admission(max_count=8, max_bytes=80)
    admission.enter(80)

    assert refused(admission, Urgency.NORMAL)
    assert not refused(admission, Urgency.URGENT)


def test_a_single_place_is_for_whatever_comes_first() -> None:
    admission = Admission(max_count=1, max_bytes=10)

    assert not refused(admission, Urgency.CAN_WAIT)
    assert refused(admission, Urgency.URGENT)


@pytest.mark.parametrize(
    ("priority", "urgency"),
    [
        (0, Urgency.NORMAL),
        (1, Urgency.URGENT),
        (2, Urgency.NORMAL),
        (3, Urgency.CAN_WAIT),
        (999, Urgency.CAN_WAIT),
    ],
)
def test_priorities_are_read_as_the_protocol_has_them(priority: int, urgency: Urgency) -> None:
    assert Urgency.of(priority) is urgency
