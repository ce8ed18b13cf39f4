"""When a second gateway is asked beside the first that is slow, and how often that may be.

A hedge goes to another gateway once the first has taken longer than 19 in 20 replies do, and only a
small share of requests may have one (Dean and Barroso, "The Tail at Scale", 2013).
"""

from __future__ import annotations

# The slowest twentieth of replies is worth a second try.
HEDGE_AFTER = 0.95
# A reply must be likely enough in what is then left.
HEDGE_WITHIN = 0.5
# Unused hedges are kept up to this many, for a bad moment.
MAX_SAVED = 4.0


class HedgeBudget:
    """At most ``share`` of the requests get a hedge; what was not used is kept, a little of it."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = 0.0

    def note_request(self) -> None:
        """A request was sent."""
        self._saved = min(MAX_SAVED, self._saved + self._share)

    def take(self) -> bool:
        """Whether there is one left; it is used then."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def hedge_delay_ms(slow_ms: float | None, usual_ms: float | None, waits_ms: float) -> float | None:
    """After how many milliseconds a second gateway is asked, None for never.

    Args:
        slow_ms: what 95 % of the replies of the first gateway take at most; None while unknown.
        usual_ms: the median of the second.
        waits_ms: how long the reply is waited for in all.
    """
    if slow_ms is None or usual_ms is None:
        return None
    return slow_ms if slow_ms + usual_ms <= waits_ms else None
