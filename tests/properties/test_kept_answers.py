"""Answers are given again while they are fresh, never after, and within their bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud_tier.telemetry.kept_answers import Answered, KeptAnswers

MAX_ENTRIES, MAX_BYTES = 3, 20
STEPS = st.lists(
    st.tuples(
        st.floats(0, 0.8),
        st.sampled_from("abcde"),
        st.one_of(st.none(), st.tuples(st.floats(0, 1.5), st.integers(0, 25))),
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from([0.0, 1.0]))
def test_no_answer_is_older_than_it_may_be_and_none_is_invented(
    steps: list[tuple[float, str, tuple[float, int] | None]], fresh_s: float
) -> None:
    kept = KeptAnswers(fresh_s=fresh_s, max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
    began: dict[bytes, float] = {}
    now_s = 100.0

    for number, (later_s, question, put) in enumerate(steps):
        now_s += later_s
        if put is not None:
            took_s, size = put
            body = question.encode() + bytes([number]) + b"x" * size
            began[body] = now_s - took_s
            kept.put(question, Answered(body, "t"), began_s=now_s - took_s, now_s=now_s)
        found = kept.get(question, now_s)

        assert len(kept) <= MAX_ENTRIES
        assert 0 <= kept.num_bytes <= MAX_BYTES
        if found is not None:
            assert found.body[:1] == question.encode()
            assert now_s - began[found.body] < fresh_s


def test_an_answer_is_there_until_it_is_old() -> None:
    kept = KeptAnswers(fresh_s=1.0, max_entries=2, max_bytes=100)
    answered = Answered(b"body", "tag")

    kept.put("q", answered, began_s=10.0, now_s=10.5)

    assert kept.get("q", 10.99) == answered
    assert kept.get("another", 10.99) is None
    assert kept.get("q", 11.0) is None
    assert (len(kept), kept.num_bytes) == (0, 0)


def test_what_was_read_later_stays() -> None:
    kept = KeptAnswers(fresh_s=1.0, max_entries=2, max_bytes=100)

    kept.put("q", Answered(b"new", "n"), began_s=10.2, now_s=10.3)
    kept.put("q", Answered(b"old", "o"), began_s=10.0, now_s=10.4)

    assert kept.get("q", 10.5) == Answered(b"new", "n")


def test_over_the_bounds_the_oldest_goes_and_what_is_too_large_is_not_kept() -> None:
    kept = KeptAnswers(fresh_s=1.0, max_entries=2, max_bytes=10)

    for name in "abc":
        kept.put(name, Answered(b"1234", name), began_s=10.0, now_s=10.0)
    kept.put("d", Answered(b"x" * 11, "d"), began_s=10.0, now_s=10.0)

    assert [kept.get(name, 10.0) is None for name in "abcd"] == [True, False, False, True]
    kept.put("e", Answered(b"x" * 7, "e"), began_s=10.0, now_s=10.0)
    assert [kept.get(name, 10.0) is None for name in "bce"] == [True, True, False]
