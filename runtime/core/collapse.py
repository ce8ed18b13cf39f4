"""A model that says the same of everything: its confidences, or its labels, have collapsed.

A model with damaged weights, or one that is handed nothing, often answers on and is sure of it.
Compared is each window of answers with the windows before. An answer to the same input as the one
before says nothing and is left out, so that a still picture is no collapse; fewer answers than a
window, and the first windows, are never judged.

Labels may be all the same because the world is: that is told once and then taken for usual, where
a confidence that does not move stays told until it moves.
"""

from __future__ import annotations

from collections import Counter

WINDOW = 200
# So many windows before there is something to compare with.
MIN_WINDOWS = 2
# Confidences are the same where they agree to three digits.
DIGITS = 3
SAME_CONFIDENCE = 0.95
# Where this is usual, it is how the model is.
USUAL_CONFIDENCE = 0.5
USUAL_LABEL = 0.8
# The long run is that of so many windows.
LONG_RUN = 20


class Collapse:
    """The answers of one model."""

    def __init__(self) -> None:
        self._values: Counter[float] = Counter()
        self._labels: Counter[int] = Counter()
        self._num = self._num_windows = 0
        # Share of the commonest confidence, and of each label, in the windows before.
        self._usual_value = 0.0
        self._usual_labels: dict[int, float] = {}
        self._mark: object = None
        self._stuck_at: float | None = None

    def note(self, confidence: float, label: int, mark: object) -> str:
        """Takes an answer in and says why the model has collapsed; empty: it has not.

        ``mark`` tells inputs apart.
        """
        if mark == self._mark:
            return ""
        self._mark = mark
        self._values[round(confidence, DIGITS)] += 1
        self._labels[label] += 1
        self._num += 1
        if self._num < WINDOW:
            return ""
        why = self._judge() if self._num_windows >= MIN_WINDOWS else ""
        if self._stuck_at is None:
            self._learn(is_all_new=bool(why))
        self._values.clear()
        self._labels.clear()
        self._num = 0
        return why

    def is_stuck_at(self, confidence: float) -> bool:
        """Whether the model has collapsed and this is what it said of everything then."""
        if self._stuck_at is not None and round(confidence, DIGITS) != self._stuck_at:
            self._stuck_at = None
        return self._stuck_at is not None

    def _judge(self) -> str:
        self._stuck_at = None
        value, count = self._values.most_common(1)[0]
        if count >= SAME_CONFIDENCE * WINDOW and self._usual_value <= USUAL_CONFIDENCE:
            self._stuck_at = value
            return f"{count} of {WINDOW} different inputs got the confidence {value:g}"
        label, count = self._labels.most_common(1)[0]
        if count == WINDOW and self._usual_labels.get(label, 0.0) <= USUAL_LABEL:
            return f"{WINDOW} different inputs in a row got the label {label}"
        return ""

    def _learn(self, *, is_all_new: bool) -> None:
        """Takes the window into the long run, or starts that afresh with it."""
        self._num_windows += 1
        gain = 1.0 if is_all_new else 1 / min(LONG_RUN, self._num_windows)
        share = self._values.most_common(1)[0][1] / WINDOW
        self._usual_value += gain * (share - self._usual_value)
        for label in {*self._labels, *self._usual_labels}:
            usual = self._usual_labels.get(label, 0.0)
            share = self._labels[label] / WINDOW
            self._usual_labels[label] = usual + gain * (share - usual)
