"""Agreement of people, against the formula written another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.agreement import PairAgreement, agreements, kappa_of, overall_kappa


def reference(pairs: list[tuple[int, int]], num_labels: int) -> float:
    """By the confusion matrix."""
    matrix = np.zeros((num_labels, num_labels))
    for one, other in pairs:
        matrix[one, other] += 1
    share = matrix / matrix.sum()
    expected = np.outer(share.sum(1), share.sum(0))
    weights = 1 - np.eye(num_labels)
    return float(1 - (weights * share).sum() / (weights * expected).sum())


def test_the_example_of_textbooks() -> None:
    # Two readers of 50 proposals: both yes 20, both no 15, one yes 5, the other yes 10.
    pairs = [(1, 1)] * 20 + [(0, 0)] * 15 + [(1, 0)] * 5 + [(0, 1)] * 10

    assert kappa_of(pairs) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_it_is_what_the_confusion_matrix_says(pairs: list[tuple[int, int]]) -> None:
    kappa = kappa_of(pairs)

    if not pairs or len({one for pair in pairs for one in pair}) == 1:
        assert kappa is None
    else:
        assert kappa is not None
        assert kappa == pytest.approx(reference(pairs, 4))
        assert kappa <= 1


def test_pairs_are_of_items_that_both_have_labelled() -> None:
    said = [
        ("i1", "ann", 0),
        ("i1", "bob", 0),
        ("i2", "ann", 1),
        ("i2", "bob", 2),
        ("i3", "eve", 1),
    ]

    (pair,) = agreements(said)

    assert (pair.first, pair.second, pair.num_items, pair.num_agreed) == ("ann", "bob", 2, 1)
    assert pair.kappa == pytest.approx(1 / 3)


def test_all_pairs_together_weigh_by_what_they_have_in_common() -> None:
    pairs = [
        PairAgreement("ann", "bob", 30, 30, 1.0),
        PairAgreement("ann", "eve", 10, 5, 0.0),
        PairAgreement("bob", "eve", 99, 99, None),
    ]

    assert overall_kappa(pairs) == pytest.approx(0.75)
    assert overall_kappa(pairs[2:]) is None
    assert overall_kappa([]) is None
