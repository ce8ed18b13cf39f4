"""Changes what regions retain of stops and overrides, and looks who has heard.

Rules of this file:
  * the cloud's own region changes through the cloud's own switch, which obeys at once, keeps it
    over restarts and publishes it when the broker is away; other regions of the same broker change
    by what their broker retains;
  * a region whose state is not understood here is not changed: the version that wrote it does that;
  * whoever changes at the same time has the last word, and the loser is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from cloud_tier.operators.fleet import Fleet
from runtime import topics
from runtime.core.control import is_usable, next_sequence, supersedes, told
from runtime.core.overrides import notice_of
from runtime.errors import RefusedError, RequestError
from runtime.exchange.control_relay import ControlRelay
from runtime.exchange.stopping import StopSwitch
from runtime.messages import ControlState, decode_control, encode_control
from runtime.ports import Clock, Message, MessageBus

WAIT_S, _LOOK_S = 2.0, 0.02
MAX_REGIONS, MAX_NAMES = 10_000, 50
# What a region is to retain, from what it does and the next sequence; None: nothing to change.
Wanted = Callable[[ControlState | None, int, float], ControlState | None]


class ControlDesk:
    """Operators' changes of regions on one broker."""

    def __init__(
        self,
        region: str,
        *,
        switch: StopSwitch,
        relay: ControlRelay,
        bus: MessageBus,
        fleet: Fleet,
        clock: Clock,
    ) -> None:
        self.region, self._switch, self._relay = region, switch, relay
        self._bus, self._fleet, self._clock = bus, fleet, clock
        self._retained: dict[str, ControlState] = {}
        self._unreadable: set[str] = set()
        self._lock = asyncio.Lock()
        # Grows with everything that is heard.
        self.revision = 0
        switch.watch(self._grown)

    def listen(self) -> None:
        """Hears what all regions of the broker retain."""
        self._bus.subscribe(topics.all_controls(), self._on_control, qos=1)

    def states(self) -> dict[str, ControlState]:
        """What is retained, by region; of our own region what is in force here."""
        own = self._switch.known.get(self.region)
        return {**self._retained, **({self.region: own} if own else {})}

    async def change(self, region: str, make: Wanted) -> dict[str, Any]:
        """Changes one region and says how it stands afterwards.

        Raises:
            NotConnectedError: the broker of another region than our own is away.
            RefusedError: what is retained is not understood by this version.
            RequestError: there is nothing to change, or no such region can be.
        """
        try:
            topics.check_name(region)
        except ValueError as error:
            raise RequestError(f"region: {error}") from None
        async with self._lock:
            if region in self._unreadable:
                raise RefusedError(
                    f"what {region} retains is not understood by this version: use the one that "
                    "wrote it"
                )
            before, now_s = self.states().get(region), self._clock.wall_s()
            wanted = make(before, next_sequence(before, now_s), now_s)
            if wanted is None:
                raise RequestError(f"{region}: there is nothing like that to take back")
            if region == self.region:
                self._relay.state(wanted)
            else:
                topic = topics.control(region)
                self._bus.publish(Message(topic, encode_control(wanted), qos=1, retain=True))
            await self._wait_known(region, wanted)
        return self._standing(region, before, wanted)

    async def _wait_known(self, region: str, wanted: ControlState) -> None:
        deadline_s = self._clock.monotonic_s() + WAIT_S
        while self._clock.monotonic_s() < deadline_s:
            is_there = supersedes(wanted, self.states().get(region)) is False
            if is_there and not any(not knows for _, knows in self._hearers(region, wanted)):
                return
            await asyncio.sleep(_LOOK_S)

    def _hearers(self, region: str, wanted: ControlState) -> list[tuple[str, bool]]:
        """Who is online in the region, or below it, and whether the change is known there."""
        found = []
        for site in self._fleet.online():
            controls = dict(site.controls)
            if site.region == region or region in controls:
                knows = controls.get(region, 0) >= wanted.sequence
                found.append((f"{site.region}/{site.name}", knows))
        return found

    def _standing(
        self, region: str, before: ControlState | None, wanted: ControlState
    ) -> dict[str, Any]:
        hearers = self._hearers(region, wanted)
        missing = sorted(name for name, knows in hearers if not knows)
        is_held = holds(self.states().get(region), before, wanted)
        return {
            **shown(region, self.states().get(region)),
            "online": len(hearers),
            "missing": missing[:MAX_NAMES],
            "num_missing": len(missing),
            "problem": ""
            if is_held
            else "it is not in force: somebody else has changed it at the same time, or the "
            "broker is away; look, and say it again",
        }

    def _on_control(self, message: Message) -> None:
        region = topics.control_origin(message.topic)
        if region not in self._retained and len(self._retained) >= MAX_REGIONS:
            return
        state = decode_control(message.payload)
        if isinstance(state, ControlState) and state.region == region and is_usable(state):
            self._retained[region] = state
            self._unreadable.discard(region)
        else:
            self._retained.pop(region, None)
            if message.payload and len(self._unreadable) < MAX_REGIONS:
                self._unreadable.add(region)
            else:
                self._unreadable.discard(region)
        self._grown()

    def _grown(self) -> None:
        self.revision += 1

    def shown(self) -> dict[str, Any]:
        """Everything that is in force, for people."""
        switch = self._switch.shown()
        return {
            "cloud_region": self.region,
            "mode": switch["mode"],
            "notice": switch["notice"],
            "is_known": switch["is_known"],
            "is_connected": self._bus.is_connected,
            "unreadable": sorted(self._unreadable)[:MAX_NAMES],
            "known_regions": sorted({self.region, *self._fleet.regions, *self._retained})[
                :MAX_REGIONS
            ],
            "regions": [
                shown(name, state)
                for name, state in sorted(self.states().items())
                if state.stops or state.overrides
            ],
        }


def shown(region: str, state: ControlState | None) -> dict[str, Any]:
    """A region's state with everything in words."""
    stops = state.stops if state else ()
    overrides = state.overrides if state else ()
    return {
        "region": region,
        "sequence": state.sequence if state else 0,
        "by": state.by if state else "",
        "why": state.why if state else "",
        "stops": [{**msgspec.to_builtins(one), "told": told(one)} for one in stops],
        "overrides": [
            {
                **msgspec.to_builtins(one),
                "told": notice_of([one]),
                "ends_s": one.wall_s + one.lasts_s,
            }
            for one in overrides
        ],
    }


def holds(now: ControlState | None, before: ControlState | None, wanted: ControlState) -> bool:
    """Whether what was changed is so, whatever else has been changed since."""
    if now is None or supersedes(wanted, now):
        return False
    was, is_to_be, is_now = (_said(before), _said(wanted), _said(now))
    return is_to_be - was <= is_now and is_now.isdisjoint(was - is_to_be)


def _said(state: ControlState | None) -> set[bytes]:
    said = () if state is None else (*state.stops, *state.overrides)
    return set(map(msgspec.json.encode, said))
