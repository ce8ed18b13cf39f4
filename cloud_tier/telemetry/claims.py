"""For whom a rollup may speak, by who sent it. Pure.

The cloud tier knows the sender from the broker: ``origin`` is ``region/site``, and gateways and
devices that are connected to the cloud's own region are known by that region's name.

  * What was made here (no origin) speaks for anybody.
  * Everybody speaks for itself: the sources are all ``region/site`` of the origin.
  * Who is connected directly may be a gateway, and speaks for sites of other regions; for those of
    the cloud's own region only if it is the site. With ``speakers`` (setting
    ``telemetry.gateways``) each gateway speaks for the regions that it is named with, and whoever
    is not named for itself.
  * What was forwarded for somebody else speaks for that one alone, unless ``speakers`` has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.errors import MalformedBodyError
from runtime.telemetry import OTHER, Rollup


def check_claims(
    origin: str, rollup: Rollup, *, own_region: str, speakers: Mapping[str, Sequence[str]]
) -> None:
    """Returns where the sender may say all of this.

    Args:
        origin: ``region/site`` of the sender; empty: made here.
        rollup: what is said.
        own_region: the region under which gateways find the cloud tier.
        speakers: names of gateways, with the regions that each speaks for; empty: not configured.

    Raises:
        MalformedBodyError: the sender may not; the text says which source or row it is about.
    """
    places = {(source.region, source.site) for source in rollup.sources}
    regions = {region for region, _ in places}
    rows = {(row.region, row.site) for row in rollup.rows}
    rows |= {(audit.region, audit.site) for audit in rollup.audits}
    for region, site in sorted(rows - places):
        if site != OTHER or region not in regions | {OTHER}:
            raise MalformedBodyError(f"rows of {region}/{site}, which is none of the sources")
    if not origin:
        return
    for region, site in sorted(places):
        if not _may_speak(origin, region, site, own_region, speakers):
            raise MalformedBodyError(
                f"{origin} may not speak for {region}/{site}: see telemetry.gateways of the cloud"
            )


def _may_speak(
    origin: str, region: str, site: str, own_region: str, speakers: Mapping[str, Sequence[str]]
) -> bool:
    from_region, _, from_site = origin.partition("/")
    if (region, site) == (from_region, from_site):
        return True
    if from_site in speakers:
        return region in speakers[from_site]
    if speakers:
        return False
    return from_region == own_region and region != own_region
