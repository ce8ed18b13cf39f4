"""Who is there: what processes say of themselves, added up by region. Pure.

Rules of this file:
  * where a process is and what it is called is said by the topic, which a broker's access rules
    guard, never by what it writes there;
  * of two states of a process the one of the later start counts; of one start, the later one;
  * who is out of service is not shown, unless it is heard all the same: then it is, and marked;
  * it is bounded: sites over ``MAX_SITES`` are counted and not kept;
  * regions are added up only when something in them has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runtime.messages import Birth, Draining, Offline

MAX_SITES = 200_000
# So many gateways of a region are named, and so many devices are shown one by one.
MAX_GATEWAYS, MAX_SHOWN = 50, 48
_MAX_VERSIONS = 8
_MAX_TEXT = 128
STATES = ("online", "draining", "offline", "reporting", "silent")


@dataclass(frozen=True, slots=True)
class Site:
    """One process as it was heard last.

    ``state`` is one of ``STATES``; the last two are of sites that are known by what they report
    alone. ``since_s`` is when that was heard first, ``epoch`` the start that it is of.
    """

    region: str
    name: str
    tier: str
    state: str
    since_s: float
    epoch: int = 0
    models: tuple[str, ...] = ()
    software: str = ""
    stopped: str = ""
    controls: tuple[tuple[str, int], ...] = ()
    retired: bool = False

    @property
    def is_device(self) -> bool:
        """Whether it is no gateway and no cloud."""
        return self.tier == "edge"


_Key = tuple[bool, str]


class Fleet:
    """All sites by region; ``changed`` are the regions to be added up anew."""

    def __init__(self, max_sites: int = MAX_SITES) -> None:
        self._max_sites = max_sites
        self._regions: dict[str, dict[_Key, Site]] = {}
        self.num_sites = self.num_left_out = 0
        self.changed: set[str] = set()
        self._retired: dict[tuple[str, str], float] = {}

    def retire(self, retired: Mapping[tuple[str, str], float]) -> None:
        """Who is out of service, by region and name, and from when on it may not speak (s)."""
        before, self._retired = self._retired, dict(retired)
        self.changed |= {
            region
            for (region, _), _ in before.items() ^ self._retired.items()
            if region in self._regions
        }

    def take(
        self,
        region: str,
        name: str,
        state: Birth | Offline | Draining,
        now_s: float,
        *,
        is_agent: bool,
    ) -> None:
        """What a process has said of itself at its own topic."""
        before = self._regions.get(region, {}).get((is_agent, name))
        if before is not None and state.epoch < before.epoch:
            return
        tier = "edge" if is_agent else state.tier.value
        known = before or Site(region, name, tier, "", now_s)
        if isinstance(state, Birth):
            site = replace(
                known,
                tier=tier,
                state="online",
                models=tuple(f"{one.name} {one.version}"[:_MAX_TEXT] for one in state.models[:8]),
                software=state.software[:_MAX_TEXT],
                stopped=state.stopped[:_MAX_TEXT],
                controls=tuple(sorted(state.controls.items())[:16]),
            )
        else:
            said = "draining" if isinstance(state, Draining) else "offline"
            site = replace(known, tier=tier, state=said)
        if before is None or before.state != site.state:
            site = replace(site, since_s=now_s)
        self._put(replace(site, epoch=state.epoch))

    def tell(self, region: str, name: str, tier: str, *, heard_s: float, is_silent: bool) -> None:
        """What telemetry knows of a site; whatever has said itself how it is, is known better."""
        is_agent = tier == "edge"
        before = self._regions.get(region, {}).get((is_agent, name))
        if before is not None and before.epoch:
            return
        state = "silent" if is_silent else "reporting"
        self._put(Site(region, name, tier, state, heard_s))

    def _put(self, site: Site) -> None:
        there = self._regions.get(site.region, {})
        key = (site.is_device, site.name)
        before = there.get(key)
        if before == site:
            return
        if before is None:
            if self.num_sites >= self._max_sites:
                self.num_left_out += 1
                return
            self.num_sites += 1
        self._regions.setdefault(site.region, there)[key] = site
        self.changed.add(site.region)

    @property
    def regions(self) -> list[str]:
        """All regions, by name."""
        return sorted(self._regions)

    def sites(self, region: str) -> Iterator[Site]:
        """All that are known of a region, without those that are out of service and silent."""
        for site in self._regions.get(region, {}).values():
            until_s = self._retired.get((region, site.name))
            if until_s is None:
                yield site
            elif site.state in ("online", "draining") or (
                site.state == "reporting" and site.since_s > until_s
            ):
                yield replace(site, retired=True)

    def all_sites(self) -> Iterator[Site]:
        """All that are known, by region and name."""
        for region in self.regions:
            for _, site in sorted(self._regions[region].items(), key=lambda one: one[0][::-1]):
                yield site

    def online(self) -> Iterator[Site]:
        """Everybody who is online."""
        for there in self._regions.values():
            yield from (site for site in there.values() if site.state == "online")


def region_view(region: str, fleet: Fleet) -> dict[str, Any]:
    """A region in numbers, with its gateways by name, and its devices where they are few."""
    devices: list[Site] = []
    others: list[Site] = []
    for site in fleet.sites(region):
        (devices if site.is_device else others).append(site)
    gateways = [one for one in others if one.tier != "cloud"]
    view: dict[str, Any] = {
        "name": region,
        "clouds": [site_line(one) for one in _by_name(others) if one.tier == "cloud"],
        "gateways": [site_line(one) for one in _by_name(gateways)[:MAX_GATEWAYS]],
        "num_gateways": len(gateways),
        "link": _link(gateways),
        "devices": device_counts(devices),
        "models": _top(Counter(name for one in devices for name in one.models)),
        "software": _top(Counter(one.software for one in (*devices, *others) if one.software)),
        "away_since_s": min(
            (one.since_s for one in devices if one.state in ("offline", "silent")), default=None
        ),
        "shown": [],
    }
    if len(devices) <= MAX_SHOWN:
        view["shown"] = [
            {
                "name": one.name,
                "state": one.state,
                "stopped": one.stopped,
                "retired": one.retired,
            }
            for one in _by_name(devices)
        ]
    return view


def device_counts(devices: list[Site]) -> dict[str, int]:
    """How many there are, in each state, and stopped."""
    states = Counter(one.state for one in devices)
    stopped = sum(bool(one.stopped) for one in devices if one.state == "online")
    return {"total": len(devices), **{name: states[name] for name in STATES}, "stopped": stopped}


def site_line(site: Site) -> dict[str, Any]:
    """One process for a table."""
    return {
        "name": site.name,
        "region": site.region,
        "tier": site.tier,
        "state": site.state,
        "stopped": site.stopped,
        "retired": site.retired,
        "models": list(site.models),
        "software": site.software,
        "since_s": site.since_s,
    }


def devices_page(
    fleet: Fleet, wanted: Mapping[str, str], after: tuple[str, str], limit: int
) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
    """Devices and gateways after a place, by region and name, and where the next page begins.

    ``wanted``: ``region``, ``state`` (also ``stopped``), ``tier``, and ``q``, a part of a name, a
    model or a version.
    """
    found: list[Site] = []
    for region in [wanted["region"]] if wanted.get("region") else fleet.regions:
        if region < after[0]:
            continue
        found.extend(
            site
            for site in _by_name(list(fleet.sites(region)))
            if (region, _place(site)) > after and _is_wanted(site, wanted)
        )
        if len(found) > limit:
            break
    shown = found[:limit]
    more = (shown[-1].region, _place(shown[-1])) if len(found) > limit and shown else None
    return [site_line(one) for one in shown], more


def _is_wanted(site: Site, wanted: Mapping[str, str]) -> bool:
    state, text = wanted.get("state", ""), wanted.get("q", "").casefold()
    if state and not (site.stopped if state == "stopped" else site.state == state):
        return False
    if wanted.get("tier") and site.tier != wanted["tier"]:
        return False
    said = (site.name, site.region, site.software, *site.models)
    return not text or any(text in one.casefold() for one in said)


def _place(site: Site) -> str:
    return f"{site.name}/{'d' if site.is_device else 'g'}"


def _by_name(sites: list[Site]) -> list[Site]:
    return sorted(sites, key=_place)


def _link(gateways: list[Site]) -> str:
    """Whether somebody serves the region: ``up``, ``cut`` when all are away, ``none`` of none."""
    if not gateways:
        return "none"
    return "up" if any(one.state in ("online", "reporting") for one in gateways) else "cut"


def _top(counts: Counter[str]) -> dict[str, int]:
    """The most frequent ones; the rest under a name that no version has."""
    shown = dict(counts.most_common(_MAX_VERSIONS))
    rest = counts.total() - sum(shown.values())
    return {**shown, "(others)": rest} if rest else shown
