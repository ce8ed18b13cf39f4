"""Logits of whatever a file gives as scores, so that every tier and policy sees one form.

``softmax`` of the logits gives back probabilities that sum to 1; those that do not (a sigmoid for
each class) come out divided by their sum. What cannot be a probability becomes NaN, which is never
confident: neither hidden nor an exception.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.binding import LEAST_PROBABILITY, ScoreForm

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[Any]
# Rounding of float16 and of integers may leave 0..1 by so much.
SLACK = 0.01


def to_logits(scores: Array, form: ScoreForm, floor: float = LEAST_PROBABILITY) -> Floats:
    """``(n, classes)`` float32 logits of ``(n, k)`` scores; k is 1 for the binary forms.

    ``floor`` is the least probability: a logarithm is finite.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(scores, np.float32)
    if form == "logits":
        return values
    if form == "binary_logit":
        return np.concatenate([np.zeros_like(values), values], axis=1)
    values = np.where((values >= -SLACK) & (values <= 1 + SLACK), values, np.float32(np.nan))
    if form == "binary_probability":
        values = np.concatenate([1 - values, values], axis=1)
    logits: Floats = np.log(np.maximum(values, np.float32(floor)))
    return logits
