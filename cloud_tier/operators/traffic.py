"""Requests a second, and who answers them: added up from decisions as they are logged. Pure.

Rules of this file:
  * a request counts once, by the decision of the tier that its caller asked (hop 0); decisions of
    the cloud about what has climbed to it are counted beside, because on a machine that has the
    cloud's log alone they are all that there is to see;
  * what is older than ``WINDOW_S`` is forgotten.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any

WINDOW_S, RECENT_S = 300, 30
MAX_ESCALATIONS = 50
_NOBODY = "nobody"
_MAX_REGIONS = 2000
# Why a tier could not ask upward, although it wanted to.
_CUT = frozenset({"no_upstream", "upstream_timeout", "upstream_failed", "unlikely_in_time"})


class Traffic:
    """The last minutes."""

    def __init__(self) -> None:
        # By second: entries by (region, who answered), and decisions of the cloud about others'.
        self._entries: OrderedDict[int, Counter[tuple[str, str]]] = OrderedDict()
        self._climbed: OrderedDict[int, int] = OrderedDict()
        self._unreached: dict[str, float] = {}
        self._reached: dict[str, float] = {}
        # The newest escalations with a number that grows.
        self.escalations: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_ESCALATIONS)
        self._num_escalations = 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes decisions, in the order in which they were logged."""
        for row in rows:
            second = int(row["wall_s"])
            if row["hop"] == 0:
                answered_by = row["answered_by"] or _NOBODY
                self._entries.setdefault(second, Counter())[row["region"], answered_by] += 1
                self._note_link(row)
            elif row["tier"] == "cloud":
                self._climbed[second] = self._climbed.get(second, 0) + 1
            if row["action"] == "escalate" or (row["hop"] and row["tier"] == "cloud"):
                self._num_escalations += 1
                self.escalations.append((self._num_escalations, dict(row)))

    def _note_link(self, row: Mapping[str, Any]) -> None:
        region, at_s = row["region"], row["wall_s"]
        if row["answered_by"] not in ("", row["tier"]) and len(self._reached) < _MAX_REGIONS:
            self._reached[region] = at_s
        elif row["reason"] in _CUT and len(self._unreached) < _MAX_REGIONS:
            self._unreached[region] = at_s

    def is_cut(self, region: str, now_s: float) -> bool:
        """Whether lately nobody of a region that wanted to ask upward has got an answer."""
        failed_s = self._unreached.get(region, 0.0)
        return now_s - failed_s < RECENT_S and failed_s > self._reached.get(region, 0.0)

    def forget(self, now_s: float) -> None:
        """Drops what is too old, and what comes from a clock that is far ahead."""
        for kept in (self._entries, self._climbed):
            for second in [one for one in kept if not now_s - WINDOW_S <= one <= now_s + RECENT_S]:
                del kept[second]

    def totals(self, now_s: float) -> dict[str, Any]:
        """Rates of the last seconds, per second, and the share of each tier in ``RECENT_S``."""
        recent: Counter[str] = Counter()
        climbed = 0
        for second in range(int(now_s) - RECENT_S, int(now_s)):
            for (_, answered_by), count in self._entries.get(second, {}).items():
                recent[answered_by] += count
            climbed += self._climbed.get(second, 0)
        total = recent.total()
        return {
            "at_s": now_s,
            "per_s": total / RECENT_S,
            "climbed_per_s": climbed / RECENT_S,
            "shares": {name: count / total for name, count in sorted(recent.items())},
        }

    def second(self, second: int) -> dict[str, Any]:
        """What was answered in one second, by whom."""
        by: Counter[str] = Counter()
        for (_, answered_by), count in self._entries.get(second, {}).items():
            by[answered_by] += count
        climbed = self._climbed.get(second, 0)
        return {"at_s": second, "by": dict(by), "climbed": climbed}

    def history(self, now_s: float) -> list[dict[str, Any]]:
        """All whole seconds of the window, the oldest first."""
        return [self.second(one) for one in range(int(now_s) - WINDOW_S, int(now_s))]

    def by_region(self) -> dict[str, dict[str, float]]:
        """Requests per second over the window, by region and by who answered."""
        found: dict[str, Counter[str]] = {}
        for counts in self._entries.values():
            for (region, answered_by), count in counts.items():
                found.setdefault(region, Counter())[answered_by] += count
        # A log that has just begun is not divided by time in which it was not there.
        spans = max(self._entries, default=0) - min(self._entries, default=0) + 1
        span_s = max(1, min(WINDOW_S, spans))
        return {
            region: {name: count / span_s for name, count in sorted(counts.items())}
            for region, counts in found.items()
        }


def shares_of(rates: Mapping[str, float], source: str) -> dict[str, Any]:
    """Rates by who answered, as shares with their sum."""
    total = sum(rates.values())
    return {
        "per_s": round(total, 4),
        "shares": {name: round(one / total, 4) for name, one in rates.items()} if total else {},
        "source": source,
    }
