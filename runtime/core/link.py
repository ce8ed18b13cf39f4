"""The chance that a reply from the tier above returns in time.

A window of the latest end-to-end times, weighted by age. Late and lost replies count as failures
and are never left out, or the estimate would only hear from survivors. The prior follows the long
run by count and not by time, so that a gate which closed in an outage stays closed until a probe
comes back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """``half_life_s``: after this time an observation counts half."""

    window: int = 100
    half_life_s: float = 1.0
    prior_chance: float = 0.9
    prior_weight: float = 1.0
    prior_step: float = 0.1
    probe_interval_s: float = 0.5


@dataclass(frozen=True, slots=True)
class _Observed:
    at_s: float
    elapsed_ms: float
    is_reply: bool


class LinkEstimator:
    """End-to-end times to one destination; the caller passes the monotonic time."""

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._observed: deque[_Observed] = deque(maxlen=settings.window)
        self._prior = settings.prior_chance
        self._sent_at_s: float | None = None

    def note_sent(self, now_s: float) -> None:
        """A request left; the next probe is due ``probe_interval_s`` later."""
        self._sent_at_s = now_s

    def note_reply(self, now_s: float, elapsed_ms: float) -> None:
        """A reply came back in time, ``elapsed_ms`` after its request was sent."""
        self._note(_Observed(now_s, elapsed_ms, is_reply=True))

    def note_lost(self, now_s: float, waited_ms: float) -> None:
        """No reply came while ``waited_ms`` went by."""
        self._note(_Observed(now_s, waited_ms, is_reply=False))

    def _note(self, observed: _Observed) -> None:
        self._observed.append(observed)
        self._prior += self._settings.prior_step * (float(observed.is_reply) - self._prior)

    def chance(self, now_s: float, remaining_ms: float) -> float:
        """Probability, 0 to 1, that a request sent now is answered within ``remaining_ms``."""
        if remaining_ms <= 0:
            return 0.0
        in_time = self._settings.prior_weight * self._prior
        total = self._settings.prior_weight
        for observed in self._observed:
            age_s = max(0.0, now_s - observed.at_s)
            weight: float = 0.5 ** (age_s / self._settings.half_life_s)
            if not observed.is_reply and observed.elapsed_ms < remaining_ms:
                # A short silence says little about a longer wait.
                weight *= observed.elapsed_ms / remaining_ms
            total += weight
            if observed.is_reply and observed.elapsed_ms <= remaining_ms:
                in_time += weight
        return in_time / total

    def probe_is_due(self, now_s: float) -> bool:
        """Whether nothing was sent for so long that a closed gate deserves a try."""
        if self._sent_at_s is None:
            return True
        return now_s - self._sent_at_s >= self._settings.probe_interval_s
