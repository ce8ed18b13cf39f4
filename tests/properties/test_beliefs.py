"""Beliefs: what of a tier's probabilities travels, and what their average is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.averages import MAX_CLASSES, Average
from runtime.core.beliefs import (
    WHOLE,
    average,
    believed,
    is_belief,
    probabilities,
    take_average,
)
from runtime.core.confidence import confidence_of

Floats = npt.NDArray[np.float64]
CLASSES = st.integers(2, MAX_CLASSES)
SHARES = st.floats(0, 1e300) | st.just(0.0)


@st.composite
def distributions(draw: st.DrawFn, num_classes: int | None = None) -> Floats:
    """Probabilities, zeros and certainties among them."""
    size = draw(CLASSES) if num_classes is None else num_classes
    found = draw(arrays.arrays(np.float64, size, elements=SHARES).filter(lambda one: one.any()))
    scaled: Floats = found / found.max()
    shares: Floats = scaled / scaled.sum()
    return shares


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Two tiers' probabilities of the same classes."""
    size = draw(CLASSES)
    return draw(distributions(size)), draw(distributions(size))


@given(distributions())
def test_what_is_told_is_what_was_held_but_for_rounding(shares: Floats) -> None:
    belief = believed(shares)

    assert belief is not None
    assert is_belief(belief)
    again = probabilities(belief)
    assert np.isfinite(again).all()
    assert again.sum() == pytest.approx(1, abs=1e-12)
    # Half a share is rounded away at each class, and what that sums to is parted anew.
    assert np.abs(again - shares).max() <= (len(shares) + 1) / WHOLE


@given(pairs(), st.integers(0, 1))
def test_a_weight_for_one_tier_alone_is_that_tier(pair: tuple[Floats, Floats], only: int) -> None:
    told = [belief for shares in pair if (belief := believed(shares)) is not None]

    mean = average(told, [float(position == only) for position in range(2)])

    np.testing.assert_array_equal(mean, probabilities(told[only]))


@given(pairs(), st.floats(0, 1))
def test_an_average_is_between_the_tiers_and_sums_to_one(
    pair: tuple[Floats, Floats], weight: float
) -> None:
    below, own = (believed(shares) for shares in pair)
    assert below is not None
    assert own is not None
    agreed = Average(("edge", "cloud"), (weight, 1 - weight))

    found = take_average(agreed, [("edge", below.tobytes())], own)

    assert found is not None
    both = np.stack([probabilities(below), probabilities(own)])
    mean = average([below, own], agreed.weights)
    assert mean.sum() == pytest.approx(1, abs=1e-9)
    assert (mean >= both.min(axis=0) - 1e-12).all()
    assert (mean <= both.max(axis=0) + 1e-12).all()
    assert found.confidence == confidence_of(mean)
    assert found.confidence.is_valid
    assert found.logits.shape == (1, len(own))
    assert np.isfinite(found.logits).all()


def test_an_average_of_many_examples_is_that_of_each() -> None:
    random = np.random.default_rng(1)
    told = [believed(random.dirichlet(np.ones(10), 50)) for _ in range(3)]
    beliefs = [belief for belief in told if belief is not None]

    together = average(beliefs, (0.2, 0.3, 0.5))

    for row in range(50):
        alone = average([belief[row] for belief in beliefs], (0.2, 0.3, 0.5))
        np.testing.assert_array_equal(alone, together[row])


@pytest.mark.parametrize(
    "shares",
    [
        np.float64(1.0),
        np.ones(1),
        np.ones(MAX_CLASSES + 1) / (MAX_CLASSES + 1),
        np.array([np.nan, 1.0]),
        np.array([np.inf, 1.0]),
        np.array([-0.1, 1.1]),
        np.zeros(3),
        np.full(3, 1e308),
    ],
)
def test_what_is_no_distribution_of_a_few_classes_is_not_told(shares: Floats) -> None:
    with np.errstate(over="ignore"):
        assert believed(shares) is None


@pytest.mark.parametrize(
    "shares", [[WHOLE], [0, 0], [WHOLE, WHOLE], [WHOLE - 3, 0], [WHOLE] + [0] * MAX_CLASSES]
)
def test_shares_that_are_not_of_a_whole_are_no_belief(shares: list[int]) -> None:
    assert not is_belief(np.asarray(shares, np.uint16))


@pytest.mark.parametrize("tiers", [(), ("regional",), ("edge", "regional"), ("edge", "edge")])
def test_beliefs_of_other_tiers_are_not_averaged(tiers: tuple[str, ...]) -> None:
    own = believed(np.array([0.2, 0.8]))
    assert own is not None

    earlier = [(tier, own.tobytes()) for tier in tiers]

    assert take_average(Average(("edge", "cloud"), (0.5, 0.5)), earlier, own) is None


def test_beliefs_about_other_classes_are_not_averaged() -> None:
    own, other = believed(np.array([0.2, 0.8])), believed(np.array([0.2, 0.7, 0.1]))
    assert own is not None
    assert other is not None

    agreed = Average(("edge", "cloud"), (0.5, 0.5))

    assert take_average(agreed, [("edge", other.tobytes())], own) is None
