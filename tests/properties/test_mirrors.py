from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.eviction import to_evict
from runtime.core.mirrors import (
    MAX_RETRY_AFTER_S,
    PASSING,
    Mirrors,
    Patience,
    Trouble,
    Try,
    retry_after_s,
    trouble_of_status,
)

patiences = st.builds(
    Patience,
    tries=st.integers(min_value=1, max_value=4),
    rounds=st.integers(min_value=1, max_value=3),
    busy_waits=st.integers(min_value=0, max_value=5),
    progress_bytes=st.just(1000),
)
LEAVING = sorted(set(Trouble) - PASSING - {Trouble.BUSY, Trouble.DIGEST_MISMATCH})


@given(st.integers(min_value=1, max_value=4), patiences, st.data())
def test_whatever_goes_wrong_it_ends_and_every_mirror_was_asked(
    num: int, patience: Patience, data: st.DataObject
) -> None:
    mirrors, asked, attempts = Mirrors(num, patience), {0}, 1
    step: Try | None = mirrors.first
    while step is not None:
        asked.add(step.mirror)
        trouble = data.draw(st.sampled_from(Trouble))
        step = mirrors.after(trouble, data.draw(st.integers(min_value=0, max_value=999)))
        attempts += 1
        assert attempts <= num * patience.rounds * (patience.tries + 1) + patience.busy_waits + 2

    assert asked == set(range(num))


@given(st.integers(min_value=1, max_value=4), patiences, st.sampled_from(LEAVING))
def test_who_cannot_have_the_file_is_left_at_once(
    num: int, patience: Patience, trouble: Trouble
) -> None:
    mirrors = Mirrors(num, patience)

    steps = [mirrors.after(trouble, 0) for _ in range(num)]

    assert steps[:-1] == [Try(mirror) for mirror in range(1, num)]
    assert steps[-1] == (Try(0, waits=True) if patience.rounds > 1 else None)


@given(st.sampled_from(sorted(PASSING)), st.integers(min_value=1, max_value=200))
def test_a_download_that_gets_on_uses_up_no_tries(trouble: Trouble, cuts: int) -> None:
    mirrors = Mirrors(2, Patience(tries=2, progress_bytes=1000))

    assert [mirrors.after(trouble, 1000) for _ in range(cuts)] == [Try(0, waits=True)] * cuts


@given(st.sampled_from(sorted(PASSING)))
def test_one_that_only_fails_gets_its_tries(trouble: Trouble) -> None:
    mirrors = Mirrors(2, Patience(tries=3))

    steps = [mirrors.after(trouble, 0) for _ in range(3)]

    assert steps == [Try(0, waits=True), Try(0, waits=True), Try(1)]


def test_another_file_is_fetched_again_once_and_then_elsewhere() -> None:
    mirrors = Mirrors(2, Patience(rounds=1))

    steps = [mirrors.after(Trouble.DIGEST_MISMATCH, 10**9) for _ in range(4)]

    # The first bytes of the second mirror's download may have been the first mirror's.
    assert steps == [Try(0), Try(1), Try(1), None]


def test_busy_is_no_failure_but_has_an_end() -> None:
    mirrors = Mirrors(2, Patience(busy_waits=3))

    steps = [mirrors.after(Trouble.BUSY, 0) for _ in range(4)]

    assert steps == [Try(0, waits=True)] * 3 + [Try(1)]


@pytest.mark.parametrize(
    ("num", "patience"), [(0, Patience()), (1, Patience(tries=0)), (1, Patience(rounds=0))]
)
def test_a_download_without_a_try_is_refused(num: int, patience: Patience) -> None:
    with pytest.raises(ValueError, match="needs a mirror"):
        Mirrors(num, patience)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (200, None),
        (206, None),
        (302, Trouble.REDIRECTED),
        (304, Trouble.REDIRECTED),
        (401, Trouble.FORBIDDEN),
        (403, Trouble.FORBIDDEN),
        (404, Trouble.WITHHELD),
        (412, Trouble.OTHER_FILE),
        (416, Trouble.WRONG_RANGE),
        (418, Trouble.UNEXPECTED),
        (429, Trouble.BUSY),
        (500, Trouble.SERVER_FAILED),
        (503, Trouble.BUSY),
        (507, Trouble.SERVER_FAILED),
        (999, Trouble.UNEXPECTED),
    ],
)
def test_every_status_has_a_name(status: int, trouble: Trouble | None) -> None:
    assert trouble_of_status(status) is trouble


@given(st.integers(min_value=0, max_value=999))
def test_only_what_brings_the_file_is_no_trouble(status: int) -> None:
    assert (trouble_of_status(status) is None) == (status in {200, 206})


names = st.sampled_from("abcdefgh")
files = st.dictionaries(names, st.integers(min_value=0, max_value=100))


@given(files, st.sets(names), st.integers(min_value=-50, max_value=500))
def test_room_is_made_with_the_oldest_that_nobody_needs(
    sizes: dict[str, int], keep: set[str], excess: int
) -> None:
    free = [name for name in sizes if name not in keep]

    gone = to_evict(sizes, keep=keep, excess_bytes=excess)

    if gone is None:
        assert sum(sizes[name] for name in free) < excess
        return
    freed = sum(sizes[name] for name in gone)
    assert list(gone) == free[: len(gone)]
    assert freed >= excess
    # One less would not have been enough.
    assert not gone or freed - sizes[gone[-1]] < excess


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999", MAX_RETRY_AFTER_S),
        ("9999999999", 0.0),
        ("", 0.0),
        ("-1", 0.0),
        ("1.5", 0.0),
        ("²", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
    ],
)
def test_only_bounded_seconds_are_waited_for(text: str, wait_s: float) -> None:
    assert retry_after_s(text) == wait_s
