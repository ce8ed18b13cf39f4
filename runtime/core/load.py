"""How much slower replies are than in the trace that the policy was fitted on.

A reply is compared with the median round trips of the hops that it crossed, the work of the models
there taken off. A reply that did not come is infinitely slow, if it was waited for long enough to
say so. The median of the latest replies, not too old, picks the load among those that gears were
fitted for; it must leave a load by a margin, so that the pick does not flap.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.messages import Hop, Tier

AS_FITTED = 1.0


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """``up_at`` and ``down_at`` are how far over a load replies may be to go up from it or down."""

    window: int = 32
    least: int = 8
    max_age_s: float = 30.0
    up_at: float = 1.25
    down_at: float = 1.1


class LoadEstimator:
    """Watches replies; ``load_at`` is one of ``loads``, or as fitted.

    ``median_ms`` are round trips from the tier below, of tiers upwards.
    """

    def __init__(
        self,
        median_ms: Mapping[str, float],
        loads: Iterable[float],
        settings: LoadSettings | None = None,
    ) -> None:
        self._settings = settings or LoadSettings()
        self._loads = sorted({AS_FITTED, *loads})
        self._hops = [(tier, median_ms[tier.value]) for tier in Tier if tier.value in median_ms]
        self._ratios: deque[tuple[float, float]] = deque(maxlen=self._settings.window)
        self._load = AS_FITTED
        self._stale_at_s = math.inf
        # The median of what was last looked at; None where that was too little.
        self.ratio: float | None = None

    def note_reply(self, now_s: float, elapsed_ms: float, hops: Iterable[Hop]) -> None:
        """A reply came after ``elapsed_ms``; ``hops`` are those of the tiers above."""
        worked_ms, highest = 0.0, None
        for hop in hops:
            worked_ms += hop.service_us / 1000
            if highest is None or hop.tier.height > highest.height:
                highest = hop.tier
        usual_ms = self._usual_ms(highest)
        if usual_ms > 0 and math.isfinite(elapsed_ms):
            self._note(now_s, max(0.0, elapsed_ms - worked_ms) / usual_ms)

    def note_lost(self, now_s: float, waited_ms: float, to: Tier | None) -> None:
        """No reply came in ``waited_ms``; ``to`` is the highest tier asked, None for the next."""
        if to is None:
            to = self._hops[0][0] if self._hops else None
        # Who did not wait as long as it usually takes has learned nothing.
        if 0 < self._usual_ms(to) <= waited_ms:
            self._note(now_s, math.inf)

    def note_refused(self, now_s: float) -> None:
        """A tier above has too much to do, or too little time for what it has."""
        self._note(now_s, math.inf)

    def _usual_ms(self, highest: Tier | None) -> float:
        if highest is None:
            return 0.0
        return sum(ms for tier, ms in self._hops if tier.height <= highest.height)

    def _note(self, now_s: float, ratio: float) -> None:
        self._ratios.append((now_s, ratio))
        self._refresh(now_s)

    def load_at(self, now_s: float) -> float:
        """The load to choose a gear for."""
        # Replies age also while none come.
        if now_s >= self._stale_at_s:
            self._refresh(now_s)
        return self._load

    def _refresh(self, now_s: float) -> None:
        while self._ratios and now_s - self._ratios[0][0] >= self._settings.max_age_s:
            self._ratios.popleft()
        self._stale_at_s = (
            self._ratios[0][0] + self._settings.max_age_s if self._ratios else math.inf
        )
        if len(self._ratios) < self._settings.least:
            self._load, self.ratio = AS_FITTED, None
            return
        ratio = self.ratio = statistics.median(ratio for _, ratio in self._ratios)
        if ratio > self._load * self._settings.up_at:
            self._load = self._covering(ratio / self._settings.up_at)
        else:
            self._load = min(self._load, self._covering(ratio / self._settings.down_at))

    def _covering(self, ratio: float) -> float:
        """The least load that is not below ``ratio``; the highest where there is none."""
        return self._loads[min(bisect_left(self._loads, ratio), len(self._loads) - 1)]
