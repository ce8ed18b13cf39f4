"""Boxes in a picture: how sure a model is of all of them, and of there being none.

An empty list is no confident answer by itself: it may mean that nothing is there, or that the
model is blind to it. It has the confidence that its best rejected candidate leaves, and none at all
where nothing is known of candidates. A score of exactly 0 is no candidate: detectors that always
give as many boxes fill up with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.core.confidence import INVALID, Confidence, Floats

Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# Of all candidates the best; what is below has no say in a picture with more.
MAX_CANDIDATES = 2000
DEFAULT_MAX_OVERLAP = 0.5
_BOXES = 2
_CORNERS = 4


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is left: ``(k, 4)`` corners x1, y1, x2, y2 with ``(k,)`` scores, the best first.

    ``rejected`` is the best score that did not reach the threshold, of candidates that no box
    explains; None where there was none. ``is_cut`` says that there were more boxes than may be.
    """

    corners: Float64s
    scores: Float64s
    places: tuple[int, ...]
    rejected: float | None = None
    is_cut: bool = False


def overlap(box: Float64s, others: Float64s) -> Float64s:
    """Intersection over union of one box with each of ``(k, 4)``; 0 where both are empty."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(np.maximum(others[:, 2:] - others[:, :2], 0), axis=1)
    total = np.prod(np.maximum(box[2:] - box[:2], 0)) + areas - shared
    found: Float64s = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
    return found


def suppress(
    corners: Floats,
    scores: Floats,
    *,
    accept: float,
    max_overlap: float = DEFAULT_MAX_OVERLAP,
    labels: Ints | None = None,
    max_boxes: int = MAX_CANDIDATES,
) -> Boxes | None:
    """Greedy non-maximum suppression; None where boxes or scores are unusable.

    Of boxes that overlap by more the best one stays, where ``labels`` are given only of the same
    label. Those below ``accept`` are rejected; one that a better box explains is not counted even
    as that, because every object has a cloud of weaker boxes around it.
    """
    boxes = np.asarray(corners, np.float64).reshape(-1, _CORNERS) if not corners.size else corners
    values, places = np.asarray(scores, np.float64), np.asarray(boxes, np.float64)
    if places.ndim != _BOXES or places.shape[1] != _CORNERS or values.shape != (len(places),):
        return None
    if not (np.isfinite(places).all() and ((values >= 0) & (values <= 1)).all()):
        return None
    if (places[:, 2:] < places[:, :2]).any():
        return None
    kinds = np.zeros(len(values), np.int64) if labels is None else labels
    order = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
    order = order[values[order] > 0]
    ranked, waiting = places[order], np.ones(len(order), np.bool_)
    kept: list[int] = []
    rejected, is_cut = None, False
    for turn, place in enumerate(order.tolist()):
        if not waiting[turn]:
            continue
        if values[place] < accept:
            rejected = float(values[place])
            break
        if len(kept) == max_boxes:
            is_cut = True
            break
        kept.append(place)
        covered = overlap(places[place], ranked[turn:]) > max_overlap
        waiting[turn:] &= ~(covered & (kinds[order[turn:]] == kinds[place]))
    return Boxes(places[kept], values[kept], tuple(kept), rejected, is_cut)


def detection_confidence(
    found: Boxes | None, *, accept: float, agreement: float = 1.0
) -> Confidence:
    """Confidence of one picture's boxes: that of its least sure box, or of its best rejected one.

    A box at its threshold is as unsure as one just below it: both have probability 0.5. Nothing
    found and nothing rejected is valid with probability 0: any tier above is to be asked.
    ``accept`` lies between 0 and 1, both excluded.
    """
    if found is None:
        return INVALID
    sides = [(float(found.scores.min()) - accept) / (1 - accept)] if found.scores.size else []
    if found.rejected is not None:
        sides.append((accept - found.rejected) / accept)
    margin = min(1.0, max(0.0, min(sides))) if sides else 0.0
    sureness = (1 + margin) / 2 if sides else 0.0
    return Confidence(
        label=None,
        probability=sureness,
        margin=margin,
        entropy=1.0 - margin,
        is_valid=True,
        agreement=agreement,
    )
