"""What telemetry tells the dashboard: sites of other brokers, and who answers how much of a region.

Rules of this file:
  * telemetry is asked rarely and for sums; a question that fails is asked again next time;
  * whoever has said at this broker how it is, is known better than telemetry knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from cloud_tier.operators.fleet import Fleet
from cloud_tier.operators.live import Live
from cloud_tier.telemetry.service import Ask
from runtime.errors import TierwiseError

if TYPE_CHECKING:
    from cloud_tier.telemetry.retired import RetiredDevices

INTERVAL_S = 15.0
# A tier tells once a minute; one that has not for so long is silent.
SILENT_S = 600.0
LAST_S = 3600.0
MAX_PAGES = 20
_PAGE = "10000"
_log = structlog.get_logger()


async def keep_told(
    ask: Ask,
    fleet: Fleet,
    live: Live,
    interval_s: float = INTERVAL_S,
    *,
    retired: RetiredDevices | None = None,
) -> None:
    """Asks now and then until cancelled."""
    has_failed = False
    while True:
        try:
            if retired is not None:
                await tell_retired(retired, fleet)
            await tell_fleet(ask, fleet)
            live.told = await rates(ask)
            has_failed = False
        except TierwiseError as error:
            if not has_failed:
                _log.warning("operators.not_told", code=error.code, error=str(error))
            has_failed = True
        await asyncio.sleep(interval_s)


async def tell_retired(devices: RetiredDevices, fleet: Fleet) -> None:
    """Tells the fleet who is out of service."""
    found = await asyncio.to_thread(devices.all)
    fleet.retire({(one.region, one.site): one.speaks_from_s for one in found})


async def tell_fleet(ask: Ask, fleet: Fleet) -> None:
    """Tells the fleet of all sites that telemetry knows, up to so many pages of them."""
    cursor = ""
    for _ in range(MAX_PAGES):
        words = {"since": "7d", "limit": _PAGE, **({"cursor": cursor} if cursor else {})}
        said = await ask("fleet", words)
        for row in said["rows"]:
            group = row["group"]
            fleet.tell(
                group["region"],
                group["site"],
                tier_of(row["tiers"]),
                heard_s=row["last_heard_s"],
                is_silent=row["silent_s"] > SILENT_S,
            )
        cursor = said["next"]
        if not cursor:
            return


async def rates(ask: Ask) -> dict[str, dict[str, float]]:
    """Requests a second of the last hour, by region and by who answered."""
    words = {"since": f"{LAST_S:g}s", "by": "region,answered_by", "limit": _PAGE}
    return rates_of((await ask("escalations", words))["rows"])


def rates_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The same of rows."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        group = row["group"]
        name = group["answered_by"]
        by = found.setdefault(group["region"], {})
        by["nobody" if name == "none" else name] = row["requests"] / LAST_S
    return found


def tier_of(tiers: Sequence[str]) -> str:
    """What a site is that reports of these tiers."""
    return "edge" if not tiers or "edge" in tiers else tiers[0]
