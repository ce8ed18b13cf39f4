"""An operator's connection: reads what a region retains, changes it, and looks who has heard.

Two operators at once: the last sequence wins. Whoever finds that the state in force does not hold
what he said is told so.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import getpass
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from runtime import topics
from runtime.adapters.dial import BrokerAddress, TlsFiles
from runtime.adapters.paho_bus import PahoBus
from runtime.core.control import is_usable, supersedes
from runtime.core.reasons import plain
from runtime.errors import StartError
from runtime.messages import (
    Birth,
    ControlState,
    Draining,
    Offline,
    decode_control,
    encode_control,
)
from runtime.ports import Message, MessageBus
from tierwise.cli.output import note, say
from tierwise.cli.parser import UsageError

CONNECT_S = 5.0
PASSWORD = "TIERWISE_BROKER_PASSWORD"  # noqa: S105 - the name of a variable
# What looks and changes nothing.
_LOOKS = ("status", "list")
# Of what is online no more the broker does not know the models.
_BEING = {
    "region": "has ever been in the region",
    "device": "has ever been the device",
    "model": "is online and serves the model",
}
# What ends something that was said before, whoever is there now.
_TAKES_BACK = ("resume", "remove")
# What a region is to retain, from what it does; None where there is nothing to change.
Wanted = Callable[[str, ControlState | None], ControlState | None]


class Desk:
    """One operator's connection, looking at one region; at none, it finds out which there are."""

    def __init__(self, bus: MessageBus, region: str, name: str) -> None:
        self.region, self._bus = region, bus
        self.retained: ControlState | None = None
        self.is_readable = True
        # Of everybody who has ever said on this broker how he is.
        self.regions: set[str] = set()
        # The same by the scope in which an operator may name him, and the models of who is online.
        self.names: dict[str, set[str]] = {"region": self.regions, "device": set(), "model": set()}
        self._changed = asyncio.Event()
        self._online: dict[tuple[str, str], Birth] = {}
        self._sync = topics.agent_sync(region or name, name)
        self._synced: dict[bytes, asyncio.Event] = {}
        if region:
            bus.subscribe(topics.control(region), self._on_control, qos=1)
        # Those below this region, too, where they are on the same broker; at QoS 0, because of a
        # large fleet a broker would queue no more than its limit, and drop what comes after it.
        bus.subscribe(topics.agent_state("+"), self._on_state)
        bus.subscribe(topics.gateway_state("+"), self._on_state)
        bus.subscribe(self._sync, self._on_sync, qos=1)

    async def sync(self) -> None:
        """Waits until everything that the broker had for us before has been heard.

        Raises:
            StartError: the broker does not give us back what we say to ourselves.
        """
        token = uuid.uuid4().bytes
        heard = self._synced[token] = asyncio.Event()
        self._bus.publish(Message(self._sync, token, qos=1))
        try:
            async with asyncio.timeout(CONNECT_S):
                await heard.wait()
        except TimeoutError:
            raise StartError(f"the broker does not let us hear {self._sync}") from None

    def publish(self, state: ControlState) -> None:
        """States what is stopped from now on."""
        topic = topics.control(self.region)
        self._bus.publish(Message(topic, encode_control(state), qos=1, retain=True))

    def online(self) -> dict[str, bool]:
        """Who is online in the region, or has heard of it from below: whether it knows the latest.

        One that is below and has never heard of this region is not known to be below.
        """
        sequence = self.retained.sequence if self.retained else 0
        return {
            f"{plain(birth.region)}/{plain(birth.site)}": birth.controls.get(self.region, 0)
            >= sequence
            for birth in self._online.values()
            if birth.region == self.region or self.region in birth.controls
        }

    async def wait_known(self, wait_s: float) -> None:
        """Waits, so long at most, until all that are online know."""
        try:
            async with asyncio.timeout(wait_s):
                while not all(self.online().values()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    def _on_control(self, message: Message) -> None:
        state = decode_control(message.payload)
        is_state = isinstance(state, ControlState) and is_usable(state)
        self.is_readable = is_state or not message.payload
        self.retained = state if is_state and isinstance(state, ControlState) else None

    def _on_state(self, message: Message) -> None:
        state = decode_control(message.payload)
        if isinstance(state, Birth | Offline | Draining):
            self.regions.add(topics.region_of_state(message.topic))
            self.names["device"] |= {state.site, f"{state.region}/{state.site}"}
        if isinstance(state, Birth):
            self._online[state.region, state.site] = state
            for model in state.models:
                self.names["model"] |= {model.name, f"{model.name}@{model.version}"}
        elif isinstance(state, Offline | Draining):
            self._online.pop((state.region, state.site), None)
        self._changed.set()

    def _on_sync(self, message: Message) -> None:
        if (heard := self._synced.pop(message.payload, None)) is not None:
            heard.set()


async def regions_at(address: BrokerAddress) -> list[str]:
    """All regions that have ever had a process at this broker, by name.

    Raises:
        StartError: there is none.
    """
    async with desk_at(address, "") as desk:
        if not desk.regions:
            raise StartError(
                f"nobody has ever been online at the broker at {address}: name the region whose "
                "stops are meant with --region, or another broker with --broker"
            )
        return sorted(desk.regions)


@asynccontextmanager
async def desk_at(address: BrokerAddress, region: str) -> AsyncIterator[Desk]:
    """A connection that has heard all that is retained."""
    name = f"control-{uuid.uuid4().hex[:12]}"
    bus = PahoBus(address, client_id=name)
    desk = Desk(bus, region, name)
    try:
        await bus.start()
        if not await bus.wait_connected(CONNECT_S):
            raise StartError(f"no connection to the broker at {address} within {CONNECT_S:g} s")
        await desk.sync()
        yield desk
    finally:
        await bus.close()


async def in_all(
    arguments: argparse.Namespace, wanted: Wanted, nothing: str
) -> list[dict[str, Any]]:
    """One change in each region that is meant, and how it stands after it.

    ``nothing`` is the problem of a region in which there is nothing to change. Where all regions
    are meant, those need no word.
    """
    address = address_of(arguments)
    regions = arguments.region or await regions_at(address)
    results = []
    for region in regions:
        async with desk_at(address, region) as desk:
            results.append(await _change(desk, arguments, wanted, nothing))
    changed = [result for result in results if result["problem"] != nothing]
    return results if arguments.region else changed or results


async def _change(
    desk: Desk, arguments: argparse.Namespace, make: Wanted, nothing: str
) -> dict[str, Any]:
    problem, wanted, before = "", None, desk.retained
    if arguments.what not in _LOOKS:
        if not desk.is_readable:
            raise StartError(
                f"what {topics.control(desk.region)} retains is not understood by this version: "
                "use the one that wrote it"
            )
        wanted = make(desk.region, before)
        if wanted is None:
            problem = nothing
    if wanted is not None:
        desk.publish(wanted)
        await desk.sync()
    await desk.wait_known(arguments.wait)
    # Whoever has published meanwhile has the last word; this is what is retained now.
    await desk.sync()
    if wanted is not None and not _holds(desk.retained, before, wanted):
        problem = "somebody else has changed it at the same time: look, and say it again"
    online = desk.online()
    missing = sorted(site for site, knows in online.items() if not knows)
    doubts = doubts_about(arguments, desk) if wanted is not None else []
    return {
        "region": desk.region,
        "sequence": desk.retained.sequence if desk.retained else 0,
        "stops": msgspec.to_builtins(desk.retained.stops) if desk.retained else [],
        "overrides": msgspec.to_builtins(desk.retained.overrides) if desk.retained else [],
        "online": sorted(online),
        "missing": missing,
        "problem": problem,
        "doubts": doubts,
        "is_done": not problem and not missing,
    }


def doubts_about(arguments: argparse.Namespace, desk: Desk) -> list[str]:
    """Names that nobody at the broker has, which are more often slips than meant.

    They are no problem: a device may be behind another broker, or come later.
    """
    doubts = []
    if desk.region not in desk.regions:
        doubts.append(_unheard("region", desk.region, desk.regions))
    scope, target = getattr(arguments, "scope", "all"), getattr(arguments, "target", "")
    if arguments.what not in _TAKES_BACK and target and target not in desk.names[scope]:
        doubts.append(_unheard(scope, target, desk.names[scope]))
    return doubts


def _unheard(scope: str, name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {plain(near[0])!r}?" if near else "is the name right?"
    return f"nobody at this broker {_BEING[scope]} {plain(name)!r}: {hint}"


def check_regions(arguments: argparse.Namespace) -> None:
    """Refuses what can be no region.

    Raises:
        UsageError: names it.
    """
    for region in arguments.region or ():
        try:
            topics.check_name(region)
        except ValueError as error:
            raise UsageError(f"--region: {error}") from None


def _holds(now: ControlState | None, before: ControlState | None, wanted: ControlState) -> bool:
    """Whether what we have changed is so, whatever else has been changed since."""
    if now is None or supersedes(wanted, now):
        return False
    was, is_to_be, is_now = (_said(before), _said(wanted), _said(now))
    return is_to_be - was <= is_now and is_now.isdisjoint(was - is_to_be)


def _said(state: ControlState | None) -> set[bytes]:
    return (
        set() if state is None else set(map(msgspec.json.encode, (*state.stops, *state.overrides)))
    )


def address_of(arguments: argparse.Namespace) -> BrokerAddress:
    """Where ``--broker`` is.

    Raises:
        UsageError: it is no address.
    """
    host, _, port = arguments.broker.rpartition(":")
    if not host:
        host, port = arguments.broker, "1883"
    try:
        return BrokerAddress(
            host=host.strip("[]"),
            port=int(port),
            username=arguments.username,
            password=os.environ.get(PASSWORD, ""),
            tls=TlsFiles(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
            if arguments.tls_ca
            else None,
        )
    except ValueError:
        raise UsageError(f"--broker {arguments.broker!r} is not HOST[:PORT]") from None


def login() -> str:
    """Who is at this machine."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no entry for this user, as in a container
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def tell_doubts(results: Iterable[dict[str, Any]]) -> None:
    """Each doubt once, in however many regions it came up."""
    for doubt in dict.fromkeys(doubt for result in results for doubt in result["doubts"]):
        note(f"tierwise: {doubt}")


def tell_known(result: dict[str, Any]) -> None:
    """Who knows of it, and what has not come about."""
    region, online, missing = result["region"], result["online"], result["missing"]
    say(f"{region}: known to {len(online) - len(missing)} of {len(online)} that are online")
    for site in missing:
        note(f"tierwise: {site} has not said that it knows")
    if result["problem"]:
        note(f"tierwise: {region}: {result['problem']}")
