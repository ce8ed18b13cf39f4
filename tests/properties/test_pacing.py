from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.pacing import (
    BURST_S,
    MAX_CHUNK_BYTES,
    MAX_RETRY_S,
    MIN_CHUNK_BYTES,
    MIN_RETRY_S,
    Places,
    RateFloor,
    TokenBucket,
)
from runtime.errors import OverloadedError

rates = st.floats(min_value=1_000, max_value=1e9)
# When somebody asks, and for how much.
asked = st.lists(
    st.tuples(st.floats(min_value=0, max_value=5), st.integers(min_value=1, max_value=70_000)),
    min_size=1,
    max_size=50,
)


class TestTokenBucket:
    @given(rates, asked)
    def test_no_span_of_time_sees_more_than_its_share_and_one_chunk(
        self, rate: float, taken: list[tuple[float, int]]
    ) -> None:
        bucket, now_s, sent = TokenBucket(rate), 0.0, list[tuple[float, int]]()
        for passed_s, num_bytes in taken:
            now_s += passed_s
            sent.append((now_s + bucket.take(num_bytes, now_s), num_bytes))

        largest = max(num_bytes for _, num_bytes in sent)
        for first, (began_s, _) in enumerate(sent):
            total = 0
            for at_s, num_bytes in sent[first:]:
                total += num_bytes
                assert total <= (at_s - began_s) * rate * (1 + 1e-9) + largest + 1

    @given(rates, asked)
    def test_it_wastes_no_time(self, rate: float, taken: list[tuple[float, int]]) -> None:
        """All bytes together wait no longer than they take, from the first one on."""
        bucket = TokenBucket(rate)

        waits_s = [bucket.take(num_bytes, 0.0) for _, num_bytes in taken]

        before = sum(num_bytes for _, num_bytes in taken[:-1])
        assert waits_s == sorted(waits_s)
        assert waits_s[-1] == pytest.approx(before / rate)

    @given(rates, st.floats(min_value=0, max_value=1e6))
    def test_idle_time_is_not_saved_up(self, rate: float, idle_s: float) -> None:
        bucket = TokenBucket(rate)
        bucket.take(1000, 0.0)

        now_s = idle_s + 1000 / rate
        assert bucket.take(1000, now_s) <= 1e-6
        assert bucket.take(1000, now_s) == pytest.approx(1000 / rate, rel=1e-3, abs=1e-6)

    @given(rates)
    def test_a_chunk_is_short_in_time_and_bounded_in_size(self, rate: float) -> None:
        chunk = TokenBucket(rate).chunk_bytes

        assert MIN_CHUNK_BYTES <= chunk <= MAX_CHUNK_BYTES
        assert chunk / rate <= BURST_S or chunk == MIN_CHUNK_BYTES

    def test_without_a_rate_nothing_waits(self) -> None:
        bucket = TokenBucket(None)

        assert bucket.chunk_bytes == MAX_CHUNK_BYTES
        assert [bucket.take(10**9, 0.0) for _ in range(3)] == [0.0] * 3

    @pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
    def test_a_rate_that_moves_nothing_is_refused(self, rate: float) -> None:
        with pytest.raises(ValueError, match="moves nothing"):
            TokenBucket(rate)


class TestPlaces:
    @given(
        st.integers(min_value=1, max_value=5),
        st.one_of(st.none(), rates),
        st.lists(st.integers(min_value=0, max_value=10**9), max_size=20),
        st.data(),
    )
    def test_never_more_than_there_are_and_the_hint_is_bounded(
        self, most: int, rate: float | None, sizes: list[int], data: st.DataObject
    ) -> None:
        places, hints_ms = Places(most, rate), list[float]()
        held: list[int] = []
        for size in sizes:
            leaves = data.draw(st.booleans())
            if held and leaves:
                places.leave(held.pop())
            try:
                held.append(places.enter(size))
            except OverloadedError as error:
                hints_ms.append(error.retry_after_ms)
            else:
                places.moved(held[-1], data.draw(st.integers(min_value=0, max_value=size + 1)))
            assert places.num_transfers == len(held) <= most
        assert all(MIN_RETRY_S <= hint_ms / 1000 <= MAX_RETRY_S for hint_ms in hints_ms)

    def test_the_hint_is_when_the_first_one_will_have_finished(self) -> None:
        places = Places(2, 1000.0)
        first = places.enter(50_000)
        places.enter(10**9)
        places.moved(first, 45_000)

        with pytest.raises(OverloadedError) as refused:
            places.enter(1)

        # 5,000 bytes are left of it, at half of the rate.
        assert refused.value.retry_after_ms == 10_000

    def test_no_place_is_no_server(self) -> None:
        with pytest.raises(ValueError, match="0 places"):
            Places(0, None)


class TestRateFloor:
    @given(
        st.lists(
            st.tuples(
                st.integers(min_value=0, max_value=5000), st.floats(min_value=0, max_value=30)
            ),
            max_size=100,
        )
    )
    def test_nobody_takes_longer_than_patience_and_the_minimum_rate_allow(
        self, pieces: list[tuple[int, float]]
    ) -> None:
        floor, waited_s, heard = RateFloor(patience_s=10, min_bytes_per_s=1000), 0.0, 0
        for num_bytes, wait_s in pieces:
            # No wait takes longer than is left: that is the timeout.
            taken_s = min(wait_s, floor.left_s)
            waited_s, heard = waited_s + taken_s, heard + num_bytes
            is_fast_enough = floor.heard(num_bytes, taken_s)
            assert waited_s <= 10 + heard / 1000 + 1e-6
            assert 0 <= floor.left_s <= 10
            if not is_fast_enough:
                break

    @given(st.integers(min_value=1, max_value=50))
    def test_a_drip_is_given_up_however_it_is_spread(self, size: int) -> None:
        floor = RateFloor(patience_s=10, min_bytes_per_s=1000)

        waits = 0
        while floor.heard(size, 0.5):
            waits += 1

        assert waits <= 22

    def test_who_is_fast_enough_may_go_on_for_ever(self) -> None:
        floor = RateFloor(patience_s=10, min_bytes_per_s=1000)

        assert all(floor.heard(1001, 1.0) for _ in range(1000))

    @pytest.mark.parametrize(("patience_s", "rate"), [(0, 1), (1, 0), (float("nan"), 1)])
    def test_what_can_never_be_met_is_refused(self, patience_s: float, rate: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            RateFloor(patience_s=patience_s, min_bytes_per_s=rate)
