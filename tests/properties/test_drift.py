"""The test of the lowest tier's scores: when it speaks, and how it calms down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.drift import DriftSettings, ScoreDrift, distance, p_value
from runtime.policy import ScoreReference

anything = st.floats(allow_nan=True, allow_infinity=True)
SMALL = DriftSettings(window=50, every=10)
NUM_QUANTILES = 200


def reference_of(
    scores: Sequence[float] | npt.NDArray[np.float64], num_quantiles: int = NUM_QUANTILES
) -> ScoreReference:
    grid = np.linspace(0, 1, num_quantiles + 1)
    quantiles = np.quantile(scores, grid, method="inverted_cdf")
    return ScoreReference("edge", "probability", len(scores), tuple(quantiles.tolist()))


UNIFORM = reference_of(np.linspace(0, 1, 5000))


def exact_distance(sample: Sequence[float], other: Sequence[float]) -> float:
    """The definition: the largest gap between two shares, over all scores."""
    everywhere = np.unique(np.concatenate([sample, other]))
    shares = [
        np.searchsorted(np.sort(one), everywhere, side="right") / len(one)
        for one in (sample, other)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def alarms(watched: ScoreDrift, scores: Sequence[float]) -> list[int]:
    return [number for number, score in enumerate(scores) if watched.note(score) and watched.depth]


@given(st.lists(anything, max_size=200))
def test_any_scores_give_a_probability_and_a_depth(scores: list[float]) -> None:
    watched = ScoreDrift(UNIFORM, SMALL)

    alarms(watched, scores)

    assert watched.depth >= 0
    assert watched.p_value is None or 0 <= watched.p_value <= 1


# Few digits, so that many are equal.
tied = st.lists(st.integers(0, 20).map(lambda whole: whole / 20), min_size=1, max_size=80)


@given(tied, tied, st.integers(1, 50))
def test_quantiles_only_make_the_distance_smaller_and_by_little(
    sample: list[float], other: list[float], num_quantiles: int
) -> None:
    found = distance(sample, reference_of(other, num_quantiles).quantiles)

    exact = exact_distance(sample, other)
    assert found <= exact + 1e-12
    assert found >= exact - 1 / num_quantiles - 1e-12


@given(tied, st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter(scores: list[float], random: object) -> None:
    shuffled = list(scores)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert distance(shuffled, UNIFORM.quantiles) == distance(scores, UNIFORM.quantiles)


def test_no_scores_are_no_distance() -> None:
    assert distance([], UNIFORM.quantiles) == 0


def test_the_tail_is_that_of_kolmogorov() -> None:
    # Critical values of the limit distribution (Smirnov, 1948).
    for scaled, chance in ((1.2238, 0.1), (1.3581, 0.05), (1.6276, 0.01), (1.9495, 0.001)):
        assert p_value(scaled / math.sqrt(500), 1000, 1000) == pytest.approx(chance, rel=1e-3)
    assert p_value(0.0, 500, 5000) == 1
    assert p_value(1.0, 500, 5000) == pytest.approx(0, abs=1e-100)


def test_p_values_without_a_shift_are_as_rare_as_they_say() -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(2000):
        reference, sample = generator.random(2000), generator.random(500)
        found.append(p_value(exact_distance(sample.tolist(), reference.tolist()), 500, 2000))

    for level in (0.01, 0.05, 0.2):
        share = float((np.asarray(found) <= level).mean())
        # Conservative, as the limit is for finite samples.
        assert 0.5 * level <= share <= 1.15 * level


def test_without_a_shift_alarms_are_rare() -> None:
    generator = np.random.default_rng(2)
    num_alarms = 0
    for _ in range(10):
        # Half of all scores are exactly 1.
        reference = np.minimum(1.0, 2 * generator.random(5000))
        watched = ScoreDrift(reference_of(reference))
        scores = np.minimum(1.0, 2 * generator.random(50_000))
        num_alarms += len(alarms(watched, scores.tolist()))

    # A test a hundred scores, each wrong once in ten thousand times at most: 0.5 are expected.
    assert num_alarms <= 2


def test_a_shift_is_found_within_a_window() -> None:
    generator = np.random.default_rng(3)
    watched = ScoreDrift(UNIFORM)

    before = alarms(watched, generator.random(5000).tolist())
    after = alarms(watched, (generator.random(500) ** 2).tolist())

    assert before == []
    assert after
    assert watched.depth == 1


def test_answers_that_are_no_longer_numbers_are_a_shift() -> None:
    watched = ScoreDrift(UNIFORM, SMALL)

    assert alarms(watched, [math.nan] * 50)


def test_it_goes_deeper_only_for_a_full_window_that_is_further_away() -> None:
    watched = ScoreDrift(UNIFORM, SMALL)
    grid = np.linspace(0, 1, 50)

    found = [alarms(watched, (grid * span).tolist()) for span in (0.6, 0.6, 0.1, 0.1)]

    assert found == [[49], [], [49], []]
    assert watched.depth == 2


def test_it_ends_with_two_calm_windows_in_a_row() -> None:
    watched = ScoreDrift(UNIFORM, SMALL)
    calm, strange = np.linspace(0, 1, 50).tolist(), [0.1] * 50

    depths = []
    for window in (strange, calm, strange, calm, calm):
        alarms(watched, window)
        depths.append(watched.depth)

    assert depths == [1, 1, 1, 1, 0]


def test_a_reference_of_one_score_only_knows_that_score() -> None:
    constant = reference_of([1.0] * 1000).quantiles

    assert distance([1.0] * 50, constant) == 0
    assert distance([0.9] * 50, constant) == pytest.approx(1)
