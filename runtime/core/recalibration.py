"""When to fit again: bets against the promise, on audits (an e-detector in CUSUM form).

A gambler bets that final answers disagree with the top tier more often than the calibration split
and the allowed loss permit. Wealth starts anew whenever it falls below 1, so that what was lost
before a change does not delay seeing it; with an alarm at ``c`` the mean number of audits until a
false one is at least ``c`` (Shin, Ramdas and Rinaldo, 2023).

One bet is on all requests from an audit to the next. Each that could have been audited multiplies
wealth by ``exp(-stake * rate * target)``, and an audited disagreement by ``1 + stake * rate /
chance``: under the promise the two come to ``exp(-s) * (1 + s) <= 1`` a request in the mean, for
any chances. Both are above 0 whatever the weights, so wealth is never negative; no chance is below
half the rate, so ``rate / chance`` is at most 2.
"""

from __future__ import annotations

import math

STAKES = (0.1, 0.2, 0.4, 0.8, 1.6)
ALARM_AT = 1e4


class RecalibrationDetector:
    """Watches what audits say; ``is_alarmed`` stays until there is another policy."""

    def __init__(self, rate: float, alarm_at: float = ALARM_AT) -> None:
        self._rate, self._alarm_at = max(0.0, rate), alarm_at
        self._wealth = [1.0] * len(STAKES)
        # Since the last audit: requests times the share of each that the promise allows to differ.
        self._allowed = 0.0
        self.is_alarmed = False

    @property
    def wealth(self) -> float:
        """The mean over all stakes."""
        return math.fsum(self._wealth) / len(self._wealth)

    def note_answer(self, target: float, *, disagrees: bool) -> None:
        """An answer that the top tier gave or that could be audited, as for the steering."""
        self._allowed += self._rate * target
        if disagrees:
            self._win(self._rate)

    def note_audit(self, target: float, chance: float, *, agrees: bool | None) -> bool:
        """An audit that ended, None when it did not come back; whether this raises the alarm."""
        if agrees is None:
            self._allowed = max(0.0, self._allowed - self._rate * target / chance)
            return False
        if not agrees:
            self._win(self._rate / chance)
        # Beyond the alarm more says nothing, and would overflow some day.
        most = self._alarm_at * len(STAKES)
        self._wealth = [
            min(wealth * math.exp(-stake * self._allowed), most)
            for wealth, stake in zip(self._wealth, STAKES, strict=True)
        ]
        self._allowed = 0.0
        is_new = self.wealth >= self._alarm_at and not self.is_alarmed
        self.is_alarmed = self.is_alarmed or is_new
        self._wealth = [max(1.0, wealth) for wealth in self._wealth]
        return is_new

    def _win(self, share: float) -> None:
        self._wealth = [
            wealth * (1 + stake * share) for wealth, stake in zip(self._wealth, STAKES, strict=True)
        ]
