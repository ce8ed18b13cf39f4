"""What holds at many sites of a region, as few alerts: one a site, or one for the region.

Rules of this file:
  * while most of a region is well, each site has an alert of its own; where many are not, the cause
    is in between (a broker, a network, a gateway), and the region has one alert for all;
  * a site that people have been told of keeps its alert until it is well: nobody is told that it
    has recovered because others are as badly off;
  * who has not been heard for ``FORGOTTEN_AFTER_S`` is watched no more, nor who is out of service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from runtime.core.alerts import Condition, Severity

FORGOTTEN_AFTER_S = 30 * 86_400.0
# A region has one alert where so many sites are affected and over this share, or so many at all.
LEAST_OF_A_REGION = 10
SHARE_OF_A_REGION = 0.2
MOST_ALERTS_OF_A_REGION = 50

# Region and site.
Place = tuple[str, str]


class Finding(NamedTuple):
    """Something that holds at a site."""

    region: str
    site: str
    summary: str


class Kind(NamedTuple):
    """A kind of alert of sites; ``words`` say what many of them have in common."""

    name: str
    words: str
    detail: str = ""


SILENT = Kind("device_silent", "say nothing")
SPEAKS = Kind("retired_speaks", "are retired, yet they speak")
MISSING = Kind("decisions_missing", "have told of decisions that have not come", "gap")


def grouped(
    kind: Kind,
    findings: Iterable[Finding],
    num_sites: Mapping[str, int],
    told: Collection[str] = (),
) -> list[Condition]:
    """The conditions of a kind.

    Args:
        kind: what they are of.
        findings: at most one of a site.
        num_sites: how many sites of a region are watched.
        told: keys of alerts that people have been told of and that have not recovered.
    """
    by_region: dict[str, list[Condition]] = {}
    for one in findings:
        condition = Condition(
            kind.name, one.region, one.site, one.summary, Severity.TICKET, kind.detail
        )
        by_region.setdefault(one.region, []).append(condition)
    found: list[Condition] = []
    for region, conditions in sorted(by_region.items()):
        num, of = len(conditions), max(num_sites.get(region, 0), len(conditions))
        if not _are_many(num, of):
            found += conditions
            continue
        found += [one for one in conditions if one.key in told]
        summary = f"{num} of {of} devices of {region} {kind.words}"
        found.append(Condition(kind.name, region, "", summary, Severity.TICKET, kind.detail))
    return found


def silent(
    heard: Mapping[Place, float], now_s: float, after_s: float, told: Collection[str] = ()
) -> list[Condition]:
    """Who has said nothing for ``after_s``, by when each site was heard last (s since 1970)."""
    watched = {place: at_s for place, at_s in heard.items() if now_s - at_s <= FORGOTTEN_AFTER_S}
    findings = [
        Finding(region, site, f"{region}/{site} says nothing")
        for (region, site), at_s in sorted(watched.items())
        if now_s - at_s > after_s
    ]
    return grouped(SILENT, findings, Counter(region for region, _ in watched), told)


def _are_many(num: int, of: int) -> bool:
    is_large = num > SHARE_OF_A_REGION * of or num > MOST_ALERTS_OF_A_REGION
    return num >= LEAST_OF_A_REGION and is_large
