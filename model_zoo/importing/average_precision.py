"""How good a detector's boxes are.

Mean average precision as the PASCAL VOC challenge has it since 2010 (Everingham et al., IJCV 2015):
the area under precision over recall, each precision the best at that recall or above; one label
after the other. A box is right when it overlaps one of that label by half, and is the first to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.core.candidates import Candidates
from runtime.core.detection import overlap

LEAST_OVERLAP = 0.5
Bools = npt.NDArray[np.bool_]


def matched(found: Candidates, truth: Candidates) -> Bools:
    """Which of ``(n,)`` boxes, the best first, are right; each that is there is found once."""
    hits = np.zeros(len(found.scores), np.bool_)
    is_free = np.ones(len(truth.labels), np.bool_)
    for place, (box, label) in enumerate(zip(found.corners, found.labels, strict=True)):
        shares = np.where(is_free & (truth.labels == label), overlap(box, truth.corners), 0.0)
        if len(shares) and shares.max() >= LEAST_OVERLAP:
            hits[place] = True
            is_free[int(shares.argmax())] = False
    return hits


def is_right(found: Candidates, truth: Candidates) -> bool:
    """Whether all boxes are right, and none is missing."""
    return len(found.scores) == len(truth.labels) and bool(matched(found, truth).all())


def mean_average_precision(found: Sequence[Candidates], truths: Sequence[Candidates]) -> float:
    """Of all labels that are there at least once; 0 where none is."""
    labels = sorted({int(label) for truth in truths for label in truth.labels})
    hits = [matched(one, truth) for one, truth in zip(found, truths, strict=True)]
    areas = []
    for label in labels:
        mine = [one.labels == label for one in found]
        scores = np.concatenate([one.scores[keep] for one, keep in zip(found, mine, strict=True)])
        right = np.concatenate([one[keep] for one, keep in zip(hits, mine, strict=True)])
        num = sum(int((truth.labels == label).sum()) for truth in truths)
        areas.append(_area(right[np.argsort(-scores, kind="stable")], num))
    return float(np.mean(areas)) if areas else 0.0


def _area(hits: Bools, num: int) -> float:
    """Under precision over recall, of boxes in the order of their scores."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[hits].sum() / num)
