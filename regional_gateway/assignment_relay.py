"""Brings assignments from the broker above to that of the region, byte for byte, retained.

    <upstream>/assign/<region>/<site>  ->  <region>/assign/<site>
    <upstream>/assign/<below>/<site>   ->  <region>/assign/<below>/<site>   (a gateway of gateways)

What is published when is decided by ``runtime.core.relayed``; nothing is verified here, and nothing
is changed: a signature that holds above holds below.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence

from runtime import topics
from runtime.adapters.relay_metrics import RelayMetrics
from runtime.assignments import peek
from runtime.core.relayed import MAX_PLACES, Mark, Place, Relayed
from runtime.errors import MalformedBodyError, NotConnectedError, PayloadTooLargeError
from runtime.exchange.stopping import StopSwitch
from runtime.logs import get_logger
from runtime.ports import Message, MessageBus

# A full send queue empties within that time, or the connection is lost.
RETRY_S = 0.5


class AssignmentRelay:
    """Made before ``bus`` is started; ``below`` are the regions below this one.

    ``switch`` says when all that ``bus`` retains was heard.
    """

    def __init__(
        self,
        switch: StopSwitch,
        bus: MessageBus,
        *,
        region: str,
        metrics: RelayMetrics,
        below: Sequence[str] = (),
        max_places: int = MAX_PLACES,
    ) -> None:
        self._switch, self._bus, self._metrics = switch, bus, metrics
        self._region, self._regions = region, (region, *below)
        self._relayed = Relayed(max_places)
        self._num_forgotten = 0
        # So that what we hear of our own is known as such.
        self._token = uuid.uuid4().hex
        self._watchers: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._log = get_logger()
        bus.subscribe(topics.assignment(region, "+"), self._on_here, qos=1)
        for one in below:
            bus.subscribe(topics.assignment_below(region, one), self._on_here, qos=1)
        bus.on_connection(lambda _is_connected: self._relayed.lost())
        switch.watch(self._keep)

    def listen(self, up_bus: MessageBus, upstream_region: str) -> None:
        """Hears what the region above retains for the regions of this gateway."""
        for one in self._regions:
            topic_filter = topics.assignment_below(upstream_region, one)
            up_bus.subscribe(topic_filter, self._on_above, qos=1)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Calls ``watcher`` after ``paths`` may have changed."""
        self._watchers.append(watcher)

    def paths(self) -> frozenset[str]:
        """Entries of the catalogue that are assigned below, as far as is known; not verified."""
        return self._relayed.paths()

    def close(self) -> None:
        """Publishes nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_above(self, message: Message) -> None:
        topic = topics.parse_assignment_topic(message.topic)
        if topic is None or topic.below not in self._regions:
            self._refuse(message)
            return
        place = Place(topic.below, topic.site)
        if not message.payload:
            self._relayed.cleared_above(place)
        else:
            try:
                seen = peek(message.payload)
            except MalformedBodyError:
                self._refuse(message)
                return
            if not self._relayed.above(place, message.payload, seen.seq, seen.path):
                self._metrics.count_assignment("stale")
        forgotten = self._relayed.num_forgotten - self._num_forgotten
        self._num_forgotten += forgotten
        self._metrics.count_assignment("forgotten", forgotten)
        for watcher in self._watchers:
            watcher()
        self._keep()

    def _on_here(self, message: Message) -> None:
        topic = topics.parse_assignment_topic(message.topic)
        if topic is None:
            return
        mark: Mark | None = None
        if message.payload:
            try:
                mark = Mark.of(peek(message.payload).seq, message.payload)
            except MalformedBodyError:
                # Older than anything: what is known takes its place.
                mark = Mark(0, b"")
        is_ours = message.property(topics.ORIGIN) == self._token
        self._relayed.here(Place(topic.below, topic.site), mark, is_ours=is_ours)
        self._keep()

    def _refuse(self, message: Message) -> None:
        self._metrics.count_assignment("malformed")
        self._log.warning(
            "assignment.not_understood", topic=message.topic, num_bytes=len(message.payload)
        )

    def _keep(self) -> None:
        """Publishes what the region's broker does not retain, or retains an older one of."""
        if not self._switch.is_heard:
            return
        self._relayed.all_heard()
        for place, payload in self._relayed.due():
            try:
                self._bus.publish(
                    Message(
                        self._topic(place),
                        payload,
                        qos=1,
                        retain=True,
                        user=((topics.ORIGIN, self._token),),
                    )
                )
            except PayloadTooLargeError:
                self._relayed.given_up(place)
                self._metrics.count_assignment("malformed")
                continue
            except NotConnectedError:
                self._again()
                return
            self._relayed.sent(place)
            self._metrics.count_assignment("relayed" if payload else "cleared")
            self._log.info("assignment.relayed", region=place.region, site=place.site)

    def _topic(self, place: Place) -> str:
        if place.region == self._region:
            return topics.assignment(self._region, place.site)
        return topics.assignment_below(self._region, place.region, place.site)

    def _again(self) -> None:
        """The send queue is full, or the connection gone: then the next one begins anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._keep)
