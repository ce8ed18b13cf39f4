"""Fetches what a rollout will ask for before it does, and keeps what is assigned in the region.

Rules of this file:
  * an announcement is a hint that anybody above could have made: it leads to files that the
    catalogue names, and to nothing else;
  * all files of all variants are fetched at once and kept until another announcement replaces this
    one, or it is cleared; what is assigned to somebody is kept as well;
  * what cannot be fetched now is tried again with growing waits, until it is here or not wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Iterable, Sequence

from regional_gateway.entries import Entries
from regional_gateway.mirror import Mirror
from runtime import topics
from runtime.adapters.backoff import Backoff
from runtime.adapters.relay_metrics import RelayMetrics
from runtime.assignments import decode_announcement
from runtime.errors import (
    ArtifactError,
    MalformedBodyError,
    NotConnectedError,
    OverloadedError,
    ReleaseError,
    SecurityError,
    UnavailableError,
)
from runtime.logs import get_logger
from runtime.ports import Message, MessageBus

MIN_WAIT_S, MAX_WAIT_S = 1.0, 60.0
# Rollouts that go on at the same time in a region are few.
MAX_ASSIGNED = 256
_NOT_NOW = (UnavailableError, OverloadedError, ArtifactError, SecurityError)


class Prefetcher:
    """For one gateway; ``assigned`` says which entries are assigned to somebody below.

    Announcements for the regions ``below`` are passed on over ``bus``, and met here as well.
    """

    def __init__(
        self,
        mirror: Mirror,
        entries: Entries,
        bus: MessageBus,
        *,
        region: str,
        metrics: RelayMetrics,
        assigned: Callable[[], Collection[str]],
        below: Sequence[str] = (),
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        self._mirror, self._entries, self._bus = mirror, entries, bus
        self._region, self._below, self._assigned = region, below, assigned
        self._metrics = metrics
        self._announced: dict[str, tuple[str, ...]] = {}
        self._passed_on: dict[str, Message] = {}
        self._changed = asyncio.Event()
        self._is_well = True
        chance = random.Random()  # noqa: S311 spreads load
        min_wait_s = min(MIN_WAIT_S, max_wait_s)
        self._backoff = Backoff(min_s=min_wait_s, max_s=max_wait_s, random=chance)
        self._log = get_logger()
        bus.on_connection(self._on_connection)

    def listen(self, up_bus: MessageBus, upstream_region: str) -> None:
        """Hears what the region above announces for the regions of this gateway."""
        for one in (self._region, *self._below):
            up_bus.subscribe(topics.announcement(upstream_region, one), self._on_announced, qos=1)

    def wake(self) -> None:
        """Looks at once at what is announced and assigned."""
        self._changed.set()

    async def run(self) -> None:
        """Fetches until cancelled."""
        while True:
            self._changed.clear()
            if await self._is_all_here():
                self._backoff.reset()
                await self._changed.wait()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.next_s()):
                    await self._changed.wait()

    async def _is_all_here(self) -> bool:
        announced = {path for paths in self._announced.values() for path in paths}
        assigned = set(sorted(self._assigned())[:MAX_ASSIGNED])
        found, missing = await self._looked_up(announced | assigned)
        self._mirror.pin("assignments", _all_of(found, assigned))
        missing |= await self._mirror.prefetch(_all_of(found, announced))
        self._metrics.set_missing(len(missing))
        if missing:
            self._metrics.count_prefetch("incomplete")
            if self._is_well:
                what, why = next(iter(missing.items()))
                self._log.warning("prefetch.incomplete", num=len(missing), first=what, error=why)
        elif announced:
            self._metrics.count_prefetch("complete")
            self._log.info("prefetch.complete", paths=sorted(announced))
        self._is_well = not missing
        return not missing

    async def _looked_up(
        self, paths: Iterable[str]
    ) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
        """Digests by path, and why not for the others."""
        found, missing = await self._found(paths)
        if missing:
            # It may have been published since the mirror has looked.
            with contextlib.suppress(UnavailableError, OverloadedError):
                await self._mirror.refresh()
            with contextlib.suppress(*_NOT_NOW):
                await self._entries.refresh()
            again, missing = await self._found(missing)
            found |= again
        return found, missing

    async def _found(
        self, paths: Iterable[str]
    ) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
        found, missing = dict[str, frozenset[str]](), dict[str, str]()
        for path in paths:
            try:
                found[path] = await self._entries.digests(path)
            except (ReleaseError, *_NOT_NOW) as error:
                missing[path] = str(error)
        return found, missing

    def _on_announced(self, message: Message) -> None:
        region = topics.announced_region(message.topic)
        if not message.payload:
            self._announced.pop(region, None)
        else:
            try:
                announcement = decode_announcement(message.payload)
            except MalformedBodyError as error:
                self._refuse(message, str(error))
                return
            if announcement.region != region:
                self._refuse(message, f"it is for {announcement.region}")
                return
            self._announced[region] = announcement.paths
        if region != self._region:
            topic = topics.announcement(self._region, region)
            self._passed_on[region] = Message(topic, message.payload, qos=1, retain=True)
            self._pass_on(region)
        self.wake()

    def _refuse(self, message: Message, why: str) -> None:
        self._metrics.count_prefetch("malformed")
        self._log.warning("announcement.not_understood", topic=message.topic, error=why)

    def _on_connection(self, is_connected: bool) -> None:  # noqa: FBT001 as the port calls it
        if is_connected:
            for region in self._passed_on:
                self._pass_on(region)

    def _pass_on(self, region: str) -> None:
        # The next connection begins with all of them.
        with contextlib.suppress(NotConnectedError):
            self._bus.publish(self._passed_on[region])


def _all_of(found: dict[str, frozenset[str]], paths: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*(found.get(path, frozenset()) for path in paths))
