import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.core.ensemble import MemberVote, combine, is_decided, is_usable

raw_votes = hnp.arrays(np.float64, (2, 4), elements=st.floats(0.01, 1))


def _vote(name: str, raw: npt.NDArray[np.float64], weight: float = 1.0) -> MemberVote:
    return MemberVote(name, raw / raw.sum(axis=1, keepdims=True), weight)


@given(st.lists(raw_votes, min_size=1, max_size=4), st.floats(0.1, 5))
def test_the_combination_is_a_probability_between_its_members(
    raws: list[npt.NDArray[np.float64]], weight: float
) -> None:
    votes = [_vote(str(number), raw, weight) for number, raw in enumerate(raws)]

    combined = combine(votes)

    assert combined is not None
    stack = np.stack([vote.probabilities for vote in votes])
    assert np.allclose(combined.probabilities.sum(axis=1), 1)
    assert (combined.probabilities <= stack.max(axis=0) + 1e-9).all()
    assert (combined.probabilities >= stack.min(axis=0) - 1e-9).all()
    assert 0 <= combined.agreement <= 1


@given(raw_votes, st.integers(0, 3))
def test_a_broken_member_changes_nothing_but_the_list_of_who_is_missing(
    raw: npt.NDArray[np.float64], kind: int
) -> None:
    broken = [
        np.full((2, 4), np.nan),
        np.zeros((2, 4)),
        np.full((2, 4), -0.25),
        np.zeros((0, 4)),
    ][kind]

    alone = combine([_vote("good", raw)])
    together = combine([MemberVote("bad", broken), _vote("good", raw)])

    assert alone is not None
    assert together is not None
    assert np.array_equal(alone.probabilities, together.probabilities)
    assert together.left_out == ("bad",)


def test_no_usable_vote_is_no_answer() -> None:
    assert combine([]) is None
    assert combine([MemberVote("bad", np.full((1, 2), np.nan))]) is None


def test_a_vote_of_another_shape_is_left_out() -> None:
    combined = combine([_vote("a", np.ones((2, 4))), _vote("b", np.ones((2, 3)))])

    assert combined is not None
    assert combined.members == ("a",)
    assert combined.left_out == ("b",)


def test_agreement_is_the_share_of_members_with_the_combined_label() -> None:
    votes = [
        MemberVote("a", np.array([[0.9, 0.1]])),
        MemberVote("b", np.array([[0.8, 0.2]])),
        MemberVote("c", np.array([[0.4, 0.6]])),
    ]

    combined = combine(votes)

    assert combined is not None
    assert combined.agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_that_is_not_above_zero_is_not_usable(weight: float) -> None:
    assert not is_usable(MemberVote("a", np.array([[0.5, 0.5]]), weight))


def test_a_vote_without_a_batch_axis_is_not_usable() -> None:
    assert not is_usable(MemberVote("a", np.array([0.5, 0.5])))


@given(st.lists(raw_votes, min_size=1, max_size=3), raw_votes, st.floats(0.1, 3))
def test_a_decided_vote_is_not_changed_by_who_is_missing(
    raws: list[npt.NDArray[np.float64]], last: npt.NDArray[np.float64], weight: float
) -> None:
    votes = [_vote(str(number), raw) for number, raw in enumerate(raws)]
    before = combine(votes)
    after = combine([*votes, _vote("last", last, weight)])
    assert before is not None
    assert after is not None

    changed = before.probabilities.argmax(axis=1) != after.probabilities.argmax(axis=1)

    assert not (is_decided(votes, weight) and changed.any())


def test_a_clear_lead_is_decided_and_a_narrow_one_is_not() -> None:
    sure = _vote("sure", np.array([[0.9, 0.05, 0.05]]))
    unsure = _vote("unsure", np.array([[0.4, 0.35, 0.25]]))

    assert is_decided([sure], 0.8)
    assert not is_decided([sure], 0.9)
    assert not is_decided([unsure], 0.1)
    assert is_decided([sure, unsure], 0.8)


@pytest.mark.parametrize(
    "votes",
    [
        [],
        [MemberVote("broken", np.full((1, 3), np.nan))],
        [MemberVote("one class", np.ones((1, 1)))],
        [MemberVote("a", np.array([[1.0, 0.0]])), MemberVote("b", np.array([[1.0, 0.0, 0.0]]))],
    ],
    ids=["nobody", "broken", "one class", "other shapes"],
)
def test_without_votes_that_can_be_added_nothing_is_decided(votes: list[MemberVote]) -> None:
    assert not is_decided(votes, 0.0)
