"""Tables of expectations over (row, bin of the score): fitted, shrunk, made monotone.

A row is a predicted label and which tiers below agree with it. Every row has bins of its own, at
quantiles of its scores; its means are shrunk towards the mean of all rows at the same score, so
that a rare label leans on the others. What should fall with the score is made to, by pooling
adjacent violators (Ayer et al., 1955).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MAX_BINS = 24
MIN_PER_BIN = 25
SHRINKAGE = 30.0
ROW_SHRINKAGE = 10.0
# A label with fewer examples shares the row of all such labels.
MIN_PER_LABEL = 40


def falling(values: Floats, weights: Floats) -> Floats:
    """The nearest falling sequence in weighted squares."""
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        masses.append(weight)
        lengths.append(1)
        while len(means) > 1 and means[-2] < means[-1]:
            mass = masses[-2] + masses[-1]
            means[-2] = (means[-2] * masses[-2] + means[-1] * masses[-1]) / mass
            masses[-2], lengths[-2] = mass, lengths[-2] + lengths[-1]
            del means[-1], masses[-1], lengths[-1]
    return np.repeat(means, lengths)


def label_rows(predicted: Ints, num_labels: int) -> Ints:
    """(num_labels,) row of each label; rare labels share the last row."""
    counts = np.bincount(predicted, minlength=num_labels)
    is_common = counts >= MIN_PER_LABEL
    rows = np.where(is_common, np.cumsum(is_common) - 1, is_common.sum())
    return rows.astype(np.int64)


# Equal only to itself, so that what was placed in it can be remembered.
@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Rows with their bins: where each example of a data set falls.

    The last row is that of all examples together, for answers without a label.
    """

    edges: tuple[Floats, ...]
    starts: Ints

    @classmethod
    def fit(cls, rows: Ints, scores: Floats, num_rows: int) -> Grid:
        """Bins at the quantiles of each row's scores."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], np.arange(num_rows + 1))
        edges = [
            _quantile_edges(scores[order[bounds[row] : bounds[row + 1]]]) for row in range(num_rows)
        ]
        edges.append(_quantile_edges(scores))
        sizes = [len(one) + 1 for one in edges]
        return cls(tuple(edges), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    @property
    def num_cells(self) -> int:
        """Bins of all rows."""
        return int(self.starts[-1])

    def cells(self, rows: Ints, scores: Floats) -> Ints:
        """(n,) flat cell of each example in its own row."""
        found = np.empty(len(rows), np.int64)
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], np.arange(len(self.edges) + 1))
        for row, edges in enumerate(self.edges):
            chosen = order[bounds[row] : bounds[row + 1]]
            if len(chosen):
                found[chosen] = self.starts[row] + np.searchsorted(
                    edges, scores[chosen], side="right"
                )
        return found

    def pooled_cells(self, scores: Floats) -> Ints:
        """(n,) flat cell of each example in the row of all."""
        found: Ints = self.starts[-2] + np.searchsorted(self.edges[-1], scores, side="right")
        return found


def _quantile_edges(scores: Floats) -> Floats:
    num_bins = min(MAX_BINS, len(scores) // MIN_PER_BIN)
    if num_bins < 2:  # noqa: PLR2004 one bin has no edge
        return np.empty(0)
    cuts: Floats = np.unique(np.quantile(scores, np.linspace(0, 1, num_bins + 1)[1:-1]))
    # A cut at the lowest score would leave the bin below it empty.
    above: Floats = cuts[cuts > scores.min()]
    return above


@dataclass(frozen=True, slots=True)
class Placed:
    """Examples in a grid: their cells, and how many there are in each."""

    grid: Grid
    cells: Ints
    pooled: Ints
    counts: Floats

    @classmethod
    def of(cls, grid: Grid, rows: Ints, scores: Floats) -> Placed:
        """Places the examples that tables will be fitted on."""
        cells, pooled = grid.cells(rows, scores), grid.pooled_cells(scores)
        counts = np.bincount(cells, minlength=grid.num_cells).astype(np.float64)
        return cls(grid, cells, pooled, counts)

    def expectation(self, outcomes: Floats, *, falls: bool) -> Floats:
        """(num_cells,) mean outcome of each cell, shrunk; ``falls`` with the score if so wanted."""
        grid, size = self.grid, self.grid.num_cells
        of_all = np.bincount(self.pooled, weights=outcomes, minlength=size)
        num_all = np.bincount(self.pooled, minlength=size).astype(np.float64)
        pooled = np.divide(of_all, num_all, out=np.zeros(size), where=num_all > 0)
        last = slice(int(grid.starts[-2]), size)
        # A bin without examples expects what the one below it does; the lowest is never empty.
        seen = np.where(num_all[last] > 0, np.arange(size - last.start), 0)
        pooled[last] = pooled[last][np.maximum.accumulate(seen)]
        if falls:
            pooled[last] = falling(pooled[last], np.maximum(num_all[last], 1e-9))
        sums = np.bincount(self.cells, weights=outcomes, minlength=size)
        expected = np.bincount(self.cells, weights=pooled[self.pooled], minlength=size)
        of_rows = np.add.reduceat(sums - expected, grid.starts[:-1])
        in_rows = np.add.reduceat(self.counts, grid.starts[:-1])
        offsets = np.repeat(of_rows / (in_rows + ROW_SHRINKAGE), np.diff(grid.starts))
        prior = np.divide(expected, self.counts, out=np.zeros(size), where=self.counts > 0)
        prior += offsets
        values = (sums + SHRINKAGE * prior) / (self.counts + SHRINKAGE)
        self._fill_empty(values, pooled)
        if falls:
            for row in range(len(grid.edges) - 1):
                one = slice(int(grid.starts[row]), int(grid.starts[row + 1]))
                values[one] = falling(values[one], self.counts[one] + 1e-9)
        values[last] = pooled[last]
        return values

    def _fill_empty(self, values: Floats, pooled: Floats) -> None:
        """A cell without examples expects what all rows together do, least sure first."""
        starts = self.grid.starts
        last = pooled[int(starts[-2]) :]
        for cell in np.flatnonzero(self.counts == 0):
            row = int(np.searchsorted(starts, cell, side="right")) - 1
            size = int(starts[row + 1] - starts[row])
            values[cell] = last[
                (int(cell) - int(starts[row])) * (len(last) - 1) // max(1, size - 1)
            ]
