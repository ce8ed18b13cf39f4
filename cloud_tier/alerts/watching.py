"""What alerts ask the stores of this tier for: who is silent, what is missing, what people owe.

Rules of this file:
  * a store is asked now and then, not at every look at the alerts;
  * while it does not answer, what it said last holds: that nothing is seen is no sign that all is
    well. It is logged once, and its end;
  * while it has said nothing since this process began, what people have been told holds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from cloud_tier.alerts.settings import AlertSettings
from cloud_tier.reviews.service import KeptReviews
from cloud_tier.telemetry.service import Telemetry
from runtime.core.alert_groups import (
    FORGOTTEN_AFTER_S,
    MISSING,
    SILENT,
    SPEAKS,
    Finding,
    Place,
    grouped,
    silent,
)
from runtime.core.alerts import Condition
from runtime.errors import TierwiseError

ASK_EVERY_S = 30.0
# What has not come by then is not kept by its sender any more.
GIVEN_UP_AFTER_S = 7 * 86_400.0
_LATE = "review_late"
# Who is retired is told of while it has been heard within so long.
SPOKE_FOR_S = 3600.0
_T = TypeVar("_T")
# Conditions by their keys, of alerts that people have been told of and that have not recovered.
Told = Mapping[str, Condition]
_log = structlog.get_logger()


class Remembered(Generic[_T]):
    """What a store says, asked now and then."""

    def __init__(self, name: str, ask: Callable[[float], Awaitable[_T]], nothing: _T) -> None:
        self._name, self._ask, self._said = name, ask, nothing
        self._asked_s: float | None = None
        self._has_failed = self._has_said = False

    @property
    def is_unknown(self) -> bool:
        """Whether it has been asked, and has not answered yet."""
        return self._has_failed and not self._has_said

    async def said(self, now_s: float) -> _T:
        """What it says, or said last; ``now_s`` is in s since 1970."""
        if self._asked_s is not None and 0 <= now_s - self._asked_s < ASK_EVERY_S:
            return self._said
        self._asked_s = now_s
        try:
            self._said = await self._ask(now_s)
        except TierwiseError as error:
            if not self._has_failed:
                _log.warning("alerts.not_seen", of=self._name, error=str(error))
            self._has_failed = True
        else:
            if self._has_failed:
                _log.info("alerts.seen_again", of=self._name)
            self._has_failed, self._has_said = False, True
        return self._said


@dataclass(frozen=True, slots=True)
class Watch:
    """The stores of a tier, as far as it has them."""

    heard: Remembered[dict[Place, float]] | None = None
    missing: Remembered[dict[Place, int]] | None = None
    reviews: Remembered[dict[str, Any]] | None = None
    # Who is out of service, and when it was heard although it is (0: never).
    retired: Remembered[dict[Place, float]] | None = None

    async def _retired(self, now_s: float) -> dict[Place, float]:
        return {} if self.retired is None else await self.retired.said(now_s)

    async def speaking(self, now_s: float, told: Told) -> list[Condition]:
        """Devices that are out of service, and have said something lately."""
        out = await self._retired(now_s)
        findings = [
            Finding(region, site, f"{region}/{site} is retired, yet it speaks")
            for (region, site), at_s in sorted(out.items())
            if now_s - at_s <= SPOKE_FOR_S
        ]
        found = grouped(SPEAKS, findings, Counter(region for region, _ in out), told)
        return [*_held(told, SPEAKS.name, self.retired), *found]

    async def silent(
        self, others: dict[Place, float], now_s: float, after_s: float, told: Told
    ) -> list[Condition]:
        """Devices that say nothing, of those that telemetry knows and of ``others``."""
        if not after_s:
            return []
        heard = dict(others)
        if self.heard is not None:
            for place, at_s in (await self.heard.said(now_s)).items():
                heard[place] = max(at_s, heard.get(place, at_s))
        out = await self._retired(now_s)
        if self.retired is not None and self.retired.is_unknown:
            return _held(told, SILENT.name, self.retired)
        watched = {place: at_s for place, at_s in heard.items() if place not in out}
        found = silent(watched, now_s, after_s, told)
        return [*_held(told, SILENT.name, self.heard), *found]

    async def gaps(self, now_s: float, told: Told) -> list[Condition]:
        """Sites whose decisions have not come."""
        if self.missing is None or self.heard is None:
            return []
        out = await self._retired(now_s)
        if self.retired is not None and self.retired.is_unknown:
            return _held(told, MISSING.name, self.retired)
        findings = [
            Finding(region, site, f"{num} decisions of {region}/{site} have not come")
            for (region, site), num in sorted((await self.missing.said(now_s)).items())
            if (region, site) not in out
        ]
        heard = await self.heard.said(now_s)
        num_sites = Counter(place[0] for place in heard if place not in out)
        found = grouped(MISSING, findings, num_sites, told)
        return [*_held(told, MISSING.name, self.missing, self.heard), *found]

    async def late(self, region: str, now_s: float, told: Told) -> list[Condition]:
        """Whether answers wait for people for longer than they may."""
        counts = {} if self.reviews is None else await self.reviews.said(now_s)
        if not counts.get("overdue"):
            return _held(told, _LATE, self.reviews)
        num, oldest_h = counts["overdue"], counts["oldest_s"] / 3600
        wait = "answer waits" if num == 1 else "answers wait"
        summary = (
            f"{num} {wait} for a person for longer than they may, the oldest for {oldest_h:.1f} h"
        )
        return [Condition(_LATE, region, "", summary)]


def _held(told: Told, kind: str, *asked: Remembered[Any] | None) -> list[Condition]:
    """What people have been told of a kind, while one of those who know of it is away."""
    if not any(one is not None and one.is_unknown for one in asked):
        return []
    return [condition for condition in told.values() if condition.kind == kind]


def watch_of(
    settings: AlertSettings, telemetry: Telemetry | None, reviews: KeptReviews | None
) -> Watch:
    """What alerts ask for, of the stores that there are."""
    if telemetry is None:
        return Watch()
    fleet, after_s = telemetry.fleet, settings.missing_after_s
    retired_devices = telemetry.retired

    async def retired(_: float) -> dict[Place, float]:
        found = await asyncio.to_thread(retired_devices.all)
        return {(one.region, one.site): one.heard_s if one.speaks else 0.0 for one in found}

    async def heard(now_s: float) -> dict[Place, float]:
        return await asyncio.to_thread(fleet.heard, now_s - FORGOTTEN_AFTER_S)

    async def missing(now_s: float) -> dict[Place, int]:
        before_s = now_s - after_s
        return await asyncio.to_thread(
            fleet.missing, after_s=now_s - GIVEN_UP_AFTER_S, before_s=before_s
        )

    async def counts(_: float) -> dict[str, Any]:
        return {} if reviews is None else await reviews.counts()

    nobody: dict[Place, Any] = {}
    return Watch(
        Remembered("telemetry", heard, nobody),
        Remembered("telemetry", missing, nobody) if after_s else None,
        Remembered("reviews", counts, {}) if reviews is not None else None,
        Remembered("telemetry", retired, nobody),
    )
