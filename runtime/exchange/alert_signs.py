"""Looks at the metrics of its own process, and tells the cloud what is wrong with it.

Rules of this file:
  * what was counted since the look before is a sign for ``HOLD_S``, so that it is seen;
  * facts are sent when they change, and again every ``REPEAT_S`` while there are any: they go
    through the outbox, and arrive when there is a network.
"""

from __future__ import annotations

import asyncio

from runtime.adapters.metrics import TierMetrics
from runtime.alert_facts import AlertFacts, Sign
from runtime.exchange.items import json_item
from runtime.messages import ItemKind
from runtime.ports import Clock, Outbox

LOOK_S = 5.0
HOLD_S = 600.0
REPEAT_S = 600.0
OUTBOX_SHARE = 0.8
_COUNTED: dict[str, tuple[str, dict[str, str], str]] = {
    "drift": ("drift_alarms_total", {}, "traffic is not what the policy was fitted on"),
    "guarantee_suspended": (
        "guarantees_total",
        {"guarantee": "suspended"},
        "answers go out without their guarantee",
    ),
    "decisions_missing": (
        "decision_log_dropped_records_total",
        {},
        "decisions could not be written down",
    ),
}


class AlertSigns:
    """The signs of one process."""

    def __init__(self, metrics: TierMetrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._totals = {kind: self._total(kind) for kind in _COUNTED}
        self._seen_s: dict[str, float] = {}

    def look(self) -> AlertFacts:
        """All that is wrong now."""
        now_s, signs = self._clock.monotonic_s(), []
        num_open = self._metrics.total("breakers", state="open")
        if num_open:
            signs.append(Sign("breaker_open", f"{num_open:g} breakers are open"))
        if self._is_nearly_full():
            signs.append(Sign("outbox_full", "the outbox is near its quota"))
        for kind, (_, _, words) in _COUNTED.items():
            total = self._total(kind)
            if total > self._totals[kind]:
                self._totals[kind], self._seen_s[kind] = total, now_s
            if now_s - self._seen_s.get(kind, -HOLD_S) < HOLD_S:
                signs.append(Sign(kind, words))
        return AlertFacts(tuple(signs))

    def _total(self, kind: str) -> float:
        series, labels, _ = _COUNTED[kind]
        return self._metrics.total(series, **labels)

    def _is_nearly_full(self) -> bool:
        total = self._metrics.total
        return any(
            total(f"outbox_{what}") > OUTBOX_SHARE * limit
            for what in ("bytes", "items")
            if (limit := total(f"outbox_max_{what}")) > 0
        )


async def tell_signs(
    signs: AlertSigns, outbox: Outbox, clock: Clock, *, interval_s: float = LOOK_S
) -> None:
    """Puts facts into the outbox until cancelled."""
    said, said_s = AlertFacts(), clock.monotonic_s()
    while True:
        facts = signs.look()
        is_old = bool(facts.signs) and clock.monotonic_s() - said_s >= REPEAT_S
        if facts != said or is_old:
            outbox.post(json_item(ItemKind.ALERT, facts, clock))
            said, said_s = facts, clock.monotonic_s()
        await asyncio.sleep(interval_s)
