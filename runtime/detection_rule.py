"""Boxes: what their confidence is, what an answer says of them, and which of them are sent.

What leaves a tier is what it found, and not the thousands of candidates that a detector gives:
outputs of the same names, ``(batch, k, 4)`` corners in the units of the result, with their scores,
the best first. In a batch, pictures of fewer boxes are filled up with boxes of score 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from runtime.core.box_fusion import fuse
from runtime.core.candidates import Candidates, candidates_of
from runtime.core.confidence import INVALID, Floats
from runtime.core.detection import Boxes, Ints, detection_confidence, suppress
from runtime.core.distances import weakest_of
from runtime.manifest import ModelManifest
from runtime.messages import Tensors
from runtime.task_answers import Judged, Together
from runtime.task_fields import DetectionFields
from runtime.tensors import dtype_of

# Of a member of an ensemble: weaker boxes than those that stand still count for the others'.
LEAST_OF_MEMBER = 0.05
_DIGITS = 6


class _Found(NamedTuple):
    """The boxes of one picture with their places among the labels."""

    boxes: Boxes
    labels: Ints


class Detection:
    """Implements ``runtime.task_answers.TaskRule``."""

    def __init__(self, manifest: ModelManifest) -> None:
        self._labels = manifest.labels
        self._fields = manifest.detection or DetectionFields()
        names = [spec.name for spec in manifest.outputs]
        self._boxes, self._scores, *more = names
        self._classes, self._count = (*more, None, None)[:2]
        self._specs = manifest.outputs

    def judge(self, outputs: Tensors, agreement: float = 1.0) -> Judged:
        """See ``TaskRule``; outputs that are no boxes are left as they are."""
        read = self._read(outputs)
        return Judged(INVALID, "", outputs) if read is None else self._judged(read, agreement)

    def judge_all(self, members: Sequence[Tensors], weights: Sequence[float]) -> Together | None:
        """Boxes that overlap become one (``runtime.core.box_fusion``)."""
        read = [self._of_member(one) for one in members]
        first = next((one for one in read if one is not None), None)
        if first is None:
            return None
        used = [
            place for place, one in enumerate(read) if one is not None and len(one) == len(first)
        ]
        together: list[Candidates] = []
        agreement = 1.0
        for row in range(len(first)):
            rows = [one[row] for place in used if (one := read[place]) is not None]
            fused = fuse(
                rows, [weights[place] for place in used], max_overlap=self._fields.max_overlap
            )
            together.append(fused.candidates)
            standing = fused.shares[fused.candidates.scores >= self._fields.accept]
            agreement = min(agreement, *standing.tolist(), 1.0)
        return Together(self._judged(together, agreement), tuple(used))

    def _read(self, outputs: Tensors) -> list[Candidates] | None:
        """The candidates of every picture; None where one's are none."""
        boxes, scores = outputs[self._boxes], outputs[self._scores]
        others = [None if name is None else outputs[name] for name in (self._classes, self._count)]
        batch = len(boxes) if boxes.ndim else 0
        if not batch or any(
            one.ndim == 0 or len(one) != batch for one in (scores, *others) if one is not None
        ):
            return None
        read: list[Candidates] = []
        for row in range(batch):
            classes, count = (None if one is None else one[row] for one in others)
            found = self._candidates(boxes[row], scores[row], classes, count)
            if found is None:
                return None
            read.append(found)
        return read

    def _candidates(
        self, boxes: Floats, scores: Floats, classes: Floats | None, count: Floats | None
    ) -> Candidates | None:
        return candidates_of(
            boxes,
            scores,
            classes,
            None if count is None else np.asarray(count),
            num_labels=len(self._labels),
            box_format=self._fields.box_format,
            size=self._fields.box_size,
        )

    def _of_member(self, outputs: Tensors) -> list[Candidates] | None:
        """Those of its candidates that no better one of its own explains."""
        found: list[Candidates] = []
        for one in self._read(outputs) or ():
            least = min(LEAST_OF_MEMBER, self._fields.accept)
            kept = self._suppressed(one, least)
            if kept is None:
                return None
            places = list(kept.places)
            found.append(Candidates(kept.corners, kept.scores, one.labels[places]))
        return found or None

    def _suppressed(self, one: Candidates, accept: float) -> Boxes | None:
        return suppress(
            one.corners,
            one.scores,
            accept=accept,
            max_overlap=self._fields.max_overlap,
            labels=one.labels,
            max_boxes=self._fields.max_boxes,
        )

    def _judged(self, read: Sequence[Candidates], agreement: float) -> Judged:
        rows: list[_Found] = []
        for one in read:
            boxes = self._suppressed(one, self._fields.accept)
            if boxes is None:
                return Judged(INVALID, "", {})
            rows.append(_Found(boxes, one.labels[list(boxes.places)]))
        confidence = weakest_of(
            [detection_confidence(row.boxes, accept=self._fields.accept) for row in rows]
        )
        told = json.dumps(self._told(rows[0])) if len(rows) == 1 else ""
        return Judged(replace(confidence, agreement=agreement), told, self._sent(rows))

    def _told(self, found: _Found) -> dict[str, object]:
        boxes = [
            {
                "label": self._labels[label],
                "score": round(float(score), _DIGITS),
                "box": [round(float(side), _DIGITS) for side in corners],
            }
            for corners, score, label in zip(
                found.boxes.corners, found.boxes.scores, found.labels.tolist(), strict=True
            )
        ]
        # Whoever counts boxes is not to take a bound for a count.
        return {"boxes": boxes, "is_cut": True} if found.boxes.is_cut else {"boxes": boxes}

    def _sent(self, rows: Sequence[_Found]) -> Tensors:
        """The boxes of a batch, filled up; of a single picture without any, axes of length 0."""
        num = max(len(row.labels) for row in rows)
        if len(rows) > 1:
            num = max(num, 1)
        batch, num_labels = len(rows), len(self._labels)
        corners = np.zeros((batch, num, 4), np.float32)
        scores = np.zeros((batch, num), np.float32)
        labels = np.zeros((batch, num), np.int64)
        for row, one in enumerate(rows):
            size = len(one.labels)
            corners[row, :size] = one.boxes.corners
            scores[row, :size] = one.boxes.scores
            labels[row, :size] = one.labels
        sent: Tensors = {self._boxes: corners, self._scores: scores}
        if len(self._specs[1].shape) == len(self._specs[0].shape):
            sent[self._scores] = np.where(
                labels[:, :, None] == np.arange(num_labels), scores[:, :, None], np.float32(0)
            )
        if self._classes is not None:
            sent[self._classes] = labels
        if self._count is not None:
            counts = np.array([len(one.labels) for one in rows], np.int64)
            sent[self._count] = counts.reshape(-1, *[1] * (len(self._specs[3].shape) - 1))
        return {spec.name: sent[spec.name].astype(dtype_of(spec.datatype)) for spec in self._specs}
