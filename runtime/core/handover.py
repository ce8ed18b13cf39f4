"""How much of a budget is kept back for handing the answer over, where the machine may be busy.

A margin that never changes is too small on a busy machine and too large on an idle one. Rules:
  * what a tier sees is how late things run: by how much a moment that was due has passed by the
    time that its turn comes, on the same event loop that hands answers over;
  * the worst of them is kept, and halves with ``HALF_LIFE_S``, so that one stall is remembered for
    as long as the next one is likely and then forgotten;
  * ``ROUNDS`` times the worst is kept back: the answer has to get out of this process and into the
    caller's, and both wait for their turn on the same machine. ``USUAL_MS`` of it are what the
    stated margin is for, and what is over that is added to it;
  * it never exceeds the stated one by more than ``MOST_MS``: a process that stands still for a
    second cannot promise anything, and must not stop asking above for it;
  * time is passed in.
"""

from __future__ import annotations

HALF_LIFE_S = 5.0
ROUNDS = 2.0
USUAL_MS = 2.0
MOST_MS = 20.0


class Handover:
    """The margin of one tier, as of now."""

    def __init__(self, stated_ms: float) -> None:
        """Starts as if nothing ever ran late.

        Args:
            stated_ms: kept back whatever is seen.
        """
        self._stated_ms = stated_ms
        self._worst_ms, self._seen_s = 0.0, float("-inf")

    def note(self, late_ms: float, now_s: float) -> None:
        """Something ran so late; what was early, or is no number, says nothing."""
        if late_ms > USUAL_MS / ROUNDS and late_ms > self._worst(now_s):
            # What is over the limit would only be remembered for longer.
            self._worst_ms, self._seen_s = min(late_ms, (MOST_MS + USUAL_MS) / ROUNDS), now_s

    def margin_ms(self, now_s: float) -> float:
        """What is kept back of a budget now, in milliseconds."""
        if not self._worst_ms:
            return self._stated_ms
        over_ms = ROUNDS * self._worst(now_s) - USUAL_MS
        if over_ms <= 0.0:
            self._worst_ms = over_ms = 0.0
        return self._stated_ms + over_ms

    def _worst(self, now_s: float) -> float:
        age_s = max(0.0, now_s - self._seen_s)
        return float(self._worst_ms * 0.5 ** (age_s / HALF_LIFE_S))
