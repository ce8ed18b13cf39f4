"""Sends what devices are told: signed, retained, and again until they say that they know.

Saying it again is what heals a broker that has lost what it retained, and a controller that was
taken over and has said something old in its last moment.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from securesystemslib.signer import Signer

from runtime import topics
from runtime.adapters.assignment_signatures import signed
from runtime.assignments import Announcement, Assignment, encode
from runtime.core.rollout_events import Announce
from runtime.errors import NotConnectedError, PayloadTooLargeError
from runtime.ports import Clock, Message, MessageBus

# Announcements that could not be sent; there is one a region.
MAX_ANNOUNCEMENTS = 4096
_log = structlog.get_logger()


class Post:
    """The way down.

    Args:
        bus: the cloud's.
        signer: of assignments.
        region: the cloud's own; devices in it are told directly, others through their gateways.
        clock: to know when something is said again.
        repeat_s: how long a device has to say that it knows.
    """

    def __init__(
        self, bus: MessageBus, signer: Signer, *, region: str, clock: Clock, repeat_s: float = 60.0
    ) -> None:
        self._bus, self._signer, self._region, self._clock = bus, signer, region, clock
        self._repeat_s = repeat_s
        self._said: dict[tuple[str, str], tuple[int, float]] = {}
        self._announcements: dict[str, Announcement] = {}
        bus.on_connection(self._on_connection)

    def send(self, wanted: Iterable[Assignment]) -> int:
        """Says what its device does not know yet; returns how many were said now.

        ``wanted`` are all of those; what is not among them any more is forgotten here.
        """
        now_s, said = self._clock.monotonic_s(), self._said
        self._said = {}
        num = 0
        for one in wanted:
            key = (one.region, one.device)
            seq, said_s = said.get(key, (0, 0.0))
            if seq == one.seq and now_s - said_s < self._repeat_s:
                self._said[key] = (seq, said_s)
            elif self._publish(self._topic(one), signed(one, self._signer)):
                self._said[key] = (one.seq, now_s)
                num += 1
        return num

    def announce(self, action: Announce) -> None:
        """Tells a region's gateways what they will be asked for; it is a hint."""
        if action.region in self._announcements or len(self._announcements) < MAX_ANNOUNCEMENTS:
            self._announcements[action.region] = Announcement(
                action.region, (action.target,), action.from_s
            )
        self.flush()

    def flush(self) -> None:
        """Sends announcements that could not be sent before."""
        for region, one in tuple(self._announcements.items()):
            if self._publish(topics.announcement(self._region, region), encode(one)):
                del self._announcements[region]

    def _topic(self, one: Assignment) -> str:
        if one.region == self._region:
            return topics.assignment(one.region, one.device)
        return topics.assignment_below(self._region, one.region, one.device)

    def _publish(self, topic: str, payload: bytes) -> bool:
        try:
            self._bus.publish(Message(topic, payload, qos=1, retain=True))
        except (NotConnectedError, PayloadTooLargeError) as error:
            # It is not counted as said, so that the next step says it.
            _log.debug("assignment.not_sent", topic=topic, error=str(error))
            return False
        return True

    def _on_connection(self, is_connected: bool) -> None:  # noqa: FBT001 - the port's
        if is_connected:
            # The broker may have lost what it retained.
            self._said.clear()
