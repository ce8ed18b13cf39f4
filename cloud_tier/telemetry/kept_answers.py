"""Answers that may be given again for a moment. Pure.

Rules of this file:
  * an answer is given again for so many seconds from when its reading began, so that what it
    says is never of a state before that;
  * entries and bytes are bounded; over them the oldest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple


class Answered(NamedTuple):
    """A report as JSON, and the tag by which a reader knows whether it has it."""

    body: bytes
    tag: str


class _Entry(NamedTuple):
    began_s: float
    answered: Answered


class KeptAnswers:
    """Answers by their questions; times are of any clock that only goes forward.

    Args:
        fresh_s: for how long an answer is given again; 0: never.
        max_entries: so many answers at most.
        max_bytes: so many bytes of bodies at most.
    """

    def __init__(self, *, fresh_s: float, max_entries: int, max_bytes: int) -> None:
        self._fresh_s, self._max_entries, self._max_bytes = fresh_s, max_entries, max_bytes
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._entries)

    def is_fresh(self, began_s: float, now_s: float) -> bool:
        """Whether what has been read since ``began_s`` still answers a question of now."""
        return now_s - began_s < self._fresh_s

    def get(self, question: Hashable, now_s: float) -> Answered | None:
        """The answer, while it is fresh."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        if not self.is_fresh(entry.began_s, now_s):
            self._drop(question)
            return None
        return entry.answered

    def put(self, question: Hashable, answered: Answered, *, began_s: float, now_s: float) -> None:
        """Keeps an answer whose reading began then, unless it is too old or too large."""
        known = self._entries.get(question)
        if known is not None and known.began_s > began_s:
            return
        self._drop(question)
        if not self.is_fresh(began_s, now_s) or len(answered.body) > self._max_bytes:
            return
        self._entries[question] = _Entry(began_s, answered)
        self.num_bytes += len(answered.body)
        while len(self._entries) > self._max_entries or self.num_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, question: Hashable) -> None:
        entry = self._entries.pop(question, None)
        if entry is not None:
            self.num_bytes -= len(entry.answered.body)
