"""Devices that were taken out of service for good: who said so, when and why.

Rules of this file:
  * nothing that a device has told is deleted, and nothing that it tells is refused: it is only
    missed no more;
  * who says something more than ``SPEAKS_AFTER_S`` later is not out of service, whatever was said:
    that is seen. What it told before may take so long to arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from cloud_tier.telemetry.database import put, reading, writing
from cloud_tier.telemetry.series import clean
from cloud_tier.telemetry.tables import retired, sources
from runtime.errors import RequestError

# As many as devices that alerts watch.
MAX_RETIRED = 200_000
SPEAKS_AFTER_S = 600.0


class Retired(NamedTuple):
    """A device that is out of service since ``at_s``; ``heard_s`` is when it told of its counts.

    Times are s since 1970.
    """

    region: str
    site: str
    at_s: float
    by: str
    why: str
    heard_s: float

    @property
    def speaks_from_s(self) -> float:
        """What it tells from then on, it tells although it is out of service."""
        return self.at_s + SPEAKS_AFTER_S

    @property
    def speaks(self) -> bool:
        """Whether it says something all the same."""
        return speaks(self.at_s, self.heard_s)


def speaks(at_s: float, heard_s: float) -> bool:
    """Whether a device that was retired then has been heard after that."""
    return heard_s > at_s + SPEAKS_AFTER_S


class RetiredDevices:
    """Those of a database; for threads. Raises ``StorageError`` where it does not answer."""

    def __init__(self, engine: Engine, *, wall_s: Callable[[], float] = time.time) -> None:
        self._engine, self._wall_s = engine, wall_s

    def all(self) -> list[Retired]:
        """All of them, by region and site."""
        with reading(self._engine) as connection:
            return _found(connection)

    def retire(self, site: str, *, region: str = "", by: str, why: str) -> Retired:
        """Takes a device out of service; who is and says nothing stays as it was.

        One that speaks all the same is out of service from now on.

        Raises:
            RequestError: telemetry knows no such device, several of that name, or too many are.
        """
        site = clean(site)
        with writing(self._engine) as connection:
            region = _region_of(connection, sources, clean(region), site)
            before = _found(connection, region, site)
            if before and not before[0].speaks:
                return before[0]
            (num,) = connection.execute(select(func.count()).select_from(retired)).one()
            if not before and num >= MAX_RETIRED:
                raise RequestError(f"{MAX_RETIRED} devices are retired: restore some first")
            said = {"at_s": self._wall_s(), "by": clean(by), "why": clean(why)}
            put(
                connection,
                retired,
                [{"region": region, "site": site, **said}],
                replacing=tuple(said),
            )
            (one,) = _found(connection, region, site)
            return one

    def restore(self, site: str, *, region: str = "") -> Retired:
        """Has a device watched again.

        Raises:
            RequestError: no such device is retired, or several of that name are.
        """
        site = clean(site)
        with writing(self._engine) as connection:
            region = _region_of(connection, retired, clean(region), site)
            (one,) = _found(connection, region, site)
            is_it = (retired.c.region == region) & (retired.c.site == site)
            connection.execute(retired.delete().where(is_it))
            return one


def _region_of(connection: Connection, table: object, region: str, site: str) -> str:
    columns = retired.c if table is retired else sources.c
    query = select(columns.region).where(columns.site == site).distinct().limit(20)
    if region:
        query = query.where(columns.region == region)
    found = [str(row[0]) for row in connection.execute(query.order_by(columns.region))]
    said = f"{region}/{site}" if region else site
    if not found:
        known = "is retired" if table is retired else "is known to telemetry"
        raise RequestError(
            f"no device {said} {known}: `tierwise metrics fleet --retired` lists all"
        )
    if len(found) > 1:
        raise RequestError(f"{site} is a device of {', '.join(found)}: say which with --region")
    return found[0]


def _found(connection: Connection, region: str = "", site: str = "") -> list[Retired]:
    heard = (
        select(func.max(sources.c.heard_s))
        .where(sources.c.region == retired.c.region, sources.c.site == retired.c.site)
        .scalar_subquery()
    )
    query = select(retired, func.coalesce(heard, 0.0)).order_by(retired.c.region, retired.c.site)
    if site:
        query = query.where(retired.c.region == region, retired.c.site == site)
    return [Retired(*row) for row in connection.execute(query.limit(MAX_RETIRED))]
