"""Whether the scores of the lowest tier are still those of the calibration split; needs no labels.

A two-sample Kolmogorov-Smirnov test of the latest window of scores. Rules of this file:
  * the reference is known at its quantiles only: a sample is as near to it as they allow, so the
    distance, and with it the alarm, errs on the quiet side by 1/m at most;
  * many equal scores are no shift: both sides of every jump are compared;
  * a score that is not a number is less sure than all others;
  * an alarm goes one step safer at once; while it lasts, only full new windows are tested, and one
    that is further away by ``deepens_by`` goes one more; it ends with ``calm_windows`` windows in a
    row that look like the reference.

The test takes scores to be independent. Frames of one scene are not: traffic that comes in long
runs of the same thing looks shifted, and for the length of the window it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.policy import ScoreReference

Floats = npt.NDArray[np.float64]

# Below this the series does not converge, and the tail is 1 to the last digit.
_LEAST = 0.2
_NEGLIGIBLE = 1e-15


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """``alarm_below`` and ``calm_above`` are p-values; ``window`` and ``every`` count scores."""

    window: int = 500
    every: int = 100
    alarm_below: float = 1e-4
    calm_above: float = 0.01
    calm_windows: int = 2
    deepens_by: float = 0.15


def distance(sample: Sequence[float] | Floats, quantiles: Sequence[float] | Floats) -> float:
    """How far the shares below any score are apart at least, 0 to 1."""
    scores = np.sort(np.nan_to_num(sample, nan=-math.inf, posinf=math.inf, neginf=-math.inf))
    if not len(scores):
        return 0.0
    num, places = len(quantiles) - 1, np.arange(len(scores))
    # The reference's share up to a score is at most that of the next quantile ...
    most = np.minimum(np.searchsorted(quantiles, scores, side="right") / num, 1.0)
    # ... and its share below the score at least that of the last quantile below.
    least = np.maximum(np.searchsorted(quantiles, scores, side="left") - 1, 0) / num
    # Of equal scores the last has all of them up to it and the first none of them below; those
    # between say less, and do no harm.
    above = float(((places + 1) / len(scores) - most).max())
    below = float((least - places / len(scores)).max())
    return max(0.0, above, below)


def p_value(apart: float, num_sample: int, num_reference: int) -> float:
    """Chance of a distance this large without a shift (Kolmogorov's limit; high for ties)."""
    size = num_sample * num_reference / (num_sample + num_reference)
    scaled = apart * math.sqrt(size)
    if scaled < _LEAST:
        return 1.0
    total, k, term = 0.0, 0, 1.0
    while term > _NEGLIGIBLE:
        k += 1
        term = math.exp(-2 * (k * scaled) ** 2)
        total += term if k % 2 else -term
    return min(1.0, max(0.0, 2 * total))


class ScoreDrift:
    """Watches scores; ``depth`` is how many steps safer to go, 0 while nothing is wrong."""

    def __init__(self, reference: ScoreReference, settings: DriftSettings | None = None) -> None:
        self._settings = settings or DriftSettings()
        self._num_reference = reference.num_examples
        self._quantiles = np.asarray(reference.quantiles)
        self._window: deque[float] = deque(maxlen=self._settings.window)
        self._num_new = 0
        self._num_calm = 0
        # How far away traffic was when the last step was taken.
        self._stepped_at = 0.0
        self.depth = 0
        self.p_value: float | None = None

    def note(self, score: float) -> bool:
        """Takes one score; whether ``depth`` has changed by it."""
        self._window.append(score)
        self._num_new += 1
        settings = self._settings
        due = settings.window if self.depth else settings.every
        if self._num_new < due or len(self._window) < settings.window:
            return False
        self._num_new = 0
        apart = distance(np.asarray(self._window), self._quantiles)
        self.p_value = p_value(apart, len(self._window), self._num_reference)
        return self._judge(apart, self.p_value)

    def _judge(self, apart: float, p: float) -> bool:
        before = self.depth
        if not self.depth:
            if p < self._settings.alarm_below:
                self.depth, self._num_calm, self._stepped_at = 1, 0, apart
        elif p > self._settings.calm_above:
            self._num_calm += 1
            if self._num_calm >= self._settings.calm_windows:
                self.depth = 0
        else:
            self._num_calm = 0
            is_further = apart >= self._stepped_at + self._settings.deepens_by
            if p < self._settings.alarm_below and is_further:
                self.depth, self._stepped_at = self.depth + 1, apart
        return self.depth != before
