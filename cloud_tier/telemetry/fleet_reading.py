"""What alerts are to know of all sites: when each was heard last, and what is missing of it."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from cloud_tier.telemetry.coverage import num_missing
from cloud_tier.telemetry.database import reading
from cloud_tier.telemetry.source_rows import gaps_of
from cloud_tier.telemetry.tables import sources
from runtime.messages import Tier

MAX_SITES = 200_000
# Sources with gaps that are looked at, those heard last before others.
MAX_WITH_GAPS = 10_000


class FleetReader:
    """Reads the sources of telemetry; for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def heard(self, since_s: float) -> dict[tuple[str, str], float]:
        """When each region and site below the cloud was heard last, of those since then.

        Raises:
            StorageError: the database does not answer.
        """
        at_s = func.max(sources.c.heard_s)
        query = (
            select(sources.c.region, sources.c.site, at_s)
            .where(sources.c.tier != Tier.CLOUD.value)
            .group_by(sources.c.region, sources.c.site)
            .having(at_s >= since_s)
            .limit(MAX_SITES)
        )
        with reading(self._engine) as connection:
            return {(row[0], row[1]): float(row[2]) for row in connection.execute(query)}

    def missing(self, *, after_s: float, before_s: float) -> dict[tuple[str, str], int]:
        """How many decisions of each region and site are missing since between two instants.

        Raises:
            StorageError: the database does not answer.
        """
        query = (
            select(sources.c.region, sources.c.site, sources.c.gaps)
            .where(sources.c.gaps != "[]", sources.c.heard_s >= after_s)
            .order_by(sources.c.heard_s.desc())
            .limit(MAX_WITH_GAPS)
        )
        found: dict[tuple[str, str], int] = {}
        with reading(self._engine) as connection:
            for region, site, text in connection.execute(query):
                num = num_missing(gaps_of(text), after_s=after_s, before_s=before_s)
                if num:
                    found[region, site] = found.get((region, site), 0) + num
        return found
