"""Tables of expectations: where an example falls, and what is expected there."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_zoo.policies.tables import (
    MAX_BINS,
    MIN_PER_BIN,
    MIN_PER_LABEL,
    Floats,
    Grid,
    Ints,
    Placed,
    falling,
    label_rows,
)

weighted = st.lists(st.tuples(st.floats(-5, 5), st.floats(1e-6, 100)), min_size=1, max_size=12)


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[Ints, Floats, int]:
    """Rows and scores; some rows empty, few scores different or many."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    num_rows = draw(st.integers(1, 5))
    num = draw(st.integers(1, 600))
    digits = draw(st.sampled_from([0, 1, 2, 9]))
    share = random.dirichlet(np.full(num_rows, 0.5))
    rows = random.choice(num_rows, num, p=share)
    scores = np.round(
        random.beta(*draw(st.sampled_from([(1, 1), (8, 1), (0.3, 0.3)])), num), digits
    )
    return rows, scores, num_rows


def nearest_falling(values: Floats, weights: Floats) -> Floats:
    """The same from the minimax formula of isotonic regression, in cubic time."""

    def mean(first: int, last: int) -> float:
        one = slice(first, last + 1)
        return float(np.average(values[one], weights=weights[one]))

    num = len(values)
    return np.array(
        [
            min(max(mean(first, last) for last in range(at, num)) for first in range(at + 1))
            for at in range(num)
        ]
    )


@given(weighted)
def test_the_nearest_falling_sequence_is_found(pairs: list[tuple[float, float]]) -> None:
    values, weights = np.array(pairs).T

    found = falling(values, weights)

    assert (np.diff(found) <= 0).all()
    np.testing.assert_allclose(found, nearest_falling(values, weights), atol=1e-9)


@given(weighted)
def test_what_falls_already_stays_as_it_is(pairs: list[tuple[float, float]]) -> None:
    values, weights = np.array(pairs).T
    values = np.sort(values)[::-1]

    np.testing.assert_array_equal(falling(values, weights), values)


@given(weighted)
def test_falling_keeps_the_weighted_mean(pairs: list[tuple[float, float]]) -> None:
    values, weights = np.array(pairs).T

    found = falling(values, weights)

    assert np.average(found, weights=weights) == pytest.approx(
        np.average(values, weights=weights), abs=1e-9
    )


def test_rare_labels_share_the_last_row() -> None:
    predicted = np.repeat([0, 1, 2, 3], [MIN_PER_LABEL, 5, MIN_PER_LABEL + 1, 0])

    np.testing.assert_array_equal(label_rows(predicted, 5), [0, 2, 1, 2, 2])


def test_common_labels_have_rows_of_their_own() -> None:
    predicted = np.repeat([0, 1], MIN_PER_LABEL)

    np.testing.assert_array_equal(label_rows(predicted, 2), [0, 1])


def test_labels_that_are_all_rare_share_one_row() -> None:
    np.testing.assert_array_equal(label_rows(np.array([1]), 3), [0, 0, 0])


@given(data_sets(), data_sets())
def test_every_example_falls_into_a_bin_of_its_own_row(
    seen: tuple[Ints, Floats, int], other: tuple[Ints, Floats, int]
) -> None:
    rows, scores, num_rows = seen
    grid = Grid.fit(rows, scores, num_rows)
    # Of another data set: rows without examples, scores never seen.
    other_rows, other_scores = other[0] % num_rows, other[1] * 2 - 0.5

    cells = grid.cells(other_rows, other_scores)

    assert (grid.starts[other_rows] <= cells).all()
    assert (cells < grid.starts[other_rows + 1]).all()
    assert grid.num_cells == grid.starts[-1] == sum(len(edges) + 1 for edges in grid.edges)


@given(data_sets())
def test_a_device_finds_the_same_bin(seen: tuple[Ints, Floats, int]) -> None:
    rows, scores, num_rows = seen
    grid = Grid.fit(rows, scores, num_rows)
    # Scores on the edges themselves, in every row.
    on_edges = np.concatenate([*grid.edges, scores[:20]])
    some_rows = np.resize(rows, len(on_edges))

    cells, pooled = grid.cells(some_rows, on_edges), grid.pooled_cells(on_edges)

    for row, score, cell, of_all in zip(some_rows, on_edges, cells, pooled, strict=True):
        assert cell == grid.starts[row] + bisect_right(grid.edges[row].tolist(), score)
        assert of_all == grid.starts[num_rows] + bisect_right(grid.edges[-1].tolist(), score)


@given(data_sets())
def test_edges_rise_and_no_bin_is_too_many(seen: tuple[Ints, Floats, int]) -> None:
    grid = Grid.fit(*seen)

    assert len(grid.edges) == seen[2] + 1
    for edges in grid.edges:
        assert (np.diff(edges) > 0).all()
        assert len(edges) < MAX_BINS


def test_a_score_on_an_edge_belongs_to_the_bin_above() -> None:
    scores = np.repeat([0.2, 0.8], MIN_PER_BIN)
    grid = Grid.fit(np.zeros(2 * MIN_PER_BIN, np.int64), scores, 1)
    (edge,) = grid.edges[0].tolist()

    below, on = grid.cells(np.zeros(2, np.int64), np.array([np.nextafter(edge, 0), edge]))

    assert (below, on) == (0, 1)


def test_few_examples_or_equal_scores_make_one_bin() -> None:
    few = Grid.fit(np.zeros(5, np.int64), np.linspace(0, 1, 5), 1)
    equal = Grid.fit(np.zeros(500, np.int64), np.full(500, 0.5), 1)

    assert [len(edges) for edges in (*few.edges, *equal.edges)] == [0, 0, 0, 0]


@given(data_sets(), st.booleans(), st.sampled_from([-6.0, -0.5, 0.0, 5.0]))
def test_expectations_are_near_the_outcomes(
    seen: tuple[Ints, Floats, int], falls: bool, lowest: float
) -> None:
    rows, scores, num_rows = seen
    outcomes = lowest + np.random.default_rng(len(rows)).random(len(rows))
    placed = Placed.of(Grid.fit(rows, scores, num_rows), rows, scores)

    found = placed.expectation(outcomes, falls=falls)

    # Shrinking moves a row by the mean of what it differs by, no further than outcomes do.
    spread = np.ptp(outcomes)
    assert (found >= outcomes.min() - spread - 1e-9).all()
    assert (found <= outcomes.max() + spread + 1e-9).all()


@given(data_sets())
def test_what_should_fall_falls_in_every_row(seen: tuple[Ints, Floats, int]) -> None:
    rows, scores, num_rows = seen
    outcomes = np.random.default_rng(len(rows)).random(len(rows)) + scores
    placed = Placed.of(Grid.fit(rows, scores, num_rows), rows, scores)

    found = placed.expectation(outcomes, falls=True)

    for start, end in zip(placed.grid.starts[:-1], placed.grid.starts[1:], strict=True):
        assert (np.diff(found[start:end]) <= 0).all()


@settings(max_examples=30)
@given(data_sets(), st.floats(-3, 3), st.booleans())
def test_the_expectation_of_what_is_always_the_same_is_that(
    seen: tuple[Ints, Floats, int], outcome: float, falls: bool
) -> None:
    rows, scores, num_rows = seen
    placed = Placed.of(Grid.fit(rows, scores, num_rows), rows, scores)

    found = placed.expectation(np.full(len(rows), outcome), falls=falls)

    np.testing.assert_allclose(found, outcome, atol=1e-9)


def test_with_many_examples_the_expectation_is_the_mean_of_the_bin() -> None:
    rows = np.repeat([0, 1], 5000)
    scores = np.tile([0.1, 0.9], 5000)
    outcomes = np.where(rows == 0, 1.0, 0.2) * np.where(scores > 0.5, 0.5, 1)
    placed = Placed.of(Grid.fit(rows, scores, 2), rows, scores)

    found = placed.expectation(outcomes, falls=True)

    at = {(row, score): found[placed.grid.cells(np.array([row]), np.array([score]))[0]]
          for row in (0, 1) for score in (0.1, 0.9)}  # fmt: skip
    assert at[0, 0.1] == pytest.approx(1.0, abs=0.02)
    assert at[0, 0.9] == pytest.approx(0.5, abs=0.02)
    assert at[1, 0.1] == pytest.approx(0.2, abs=0.02)
    assert at[1, 0.9] == pytest.approx(0.1, abs=0.02)


def test_a_row_without_examples_expects_what_all_others_do() -> None:
    rows = np.zeros(1000, np.int64)
    scores = np.linspace(0, 1, 1000)
    placed = Placed.of(Grid.fit(rows, scores, 2), rows, scores)

    found = placed.expectation((scores < 0.5).astype(np.float64), falls=True)

    # One bin only, and that of the least sure.
    (of_empty,) = found[placed.grid.starts[1] : placed.grid.starts[2]]
    assert of_empty == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("falls", [False, True])
def test_a_bin_without_examples_expects_what_the_less_sure_do(falls: bool) -> None:
    # The cut between the 25th and the 26th lies where no score is, the next at 1.
    scores = np.repeat([0.0, 1.0], [25, 50])
    rows = np.zeros(75, np.int64)
    placed = Placed.of(Grid.fit(rows, scores, 1), rows, scores)
    outcomes = np.repeat([6.0, 5.0], [25, 50])

    found = placed.expectation(outcomes, falls=falls)

    np.testing.assert_array_equal(placed.counts, [25, 0, 50, 0, 0, 0])
    np.testing.assert_allclose(found, [6, 6, 5, 6, 6, 5])


def test_a_rare_row_leans_on_the_others() -> None:
    rows = np.repeat([0, 1], [990, 10])
    placed = Placed.of(Grid.fit(rows, np.full(1000, 0.5), 2), rows, np.full(1000, 0.5))

    found = placed.expectation((rows == 1).astype(np.float64), falls=False)

    assert found[0] < 0.01
    assert 0.3 < found[1] < 0.9
