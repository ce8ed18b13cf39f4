"""Says who is online: a retained birth after every connect, draining and offline before the end.

When the process dies without a word, the broker says offline in its place (the will). ``epoch``
grows with every start, so that a will that comes late does not hide the next life of the same
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from runtime import topics
from runtime.adapters.artifacts import write_artifact
from runtime.errors import NotConnectedError
from runtime.exchange.course import Identity
from runtime.messages import Birth, ControlMessage, Draining, Offline, Tier, encode_control
from runtime.ports import Clock, Message, MessageBus

REFRESH_S = 1.0
_log = structlog.get_logger()


def next_epoch(folder: Path, clock: Clock) -> int:
    """A number above that of every earlier life, kept in ``folder``; 64 bits.

    The wall clock is the lower bound, so that a wiped folder does not send the epoch back.
    """
    path = folder / "epoch"
    try:
        last = int(path.read_text()[:20])
    except (FileNotFoundError, ValueError):
        last = 0
    epoch = max(last + 1, int(clock.wall_s() * 1000)) % 2**63
    folder.mkdir(parents=True, exist_ok=True)
    write_artifact(path, str(epoch).encode())
    return epoch


def state_topic(identity: Identity) -> str:
    """Where the state of a process is retained."""
    if identity.tier is Tier.EDGE:
        return topics.agent_state(identity.region, identity.site)
    return topics.gateway_state(identity.region, identity.site)


def state_message(identity: Identity, state: ControlMessage) -> Message:
    """A retained state at its topic."""
    return Message(topic=state_topic(identity), payload=encode_control(state), qos=1, retain=True)


def will_of(identity: Identity, epoch: int) -> Message:
    """What the broker says when we are gone without a word."""
    return state_message(identity, Offline(identity.tier, identity.site, identity.region, epoch))


class Presence:
    """Keeps the retained state of one process true."""

    def __init__(
        self, bus: MessageBus, identity: Identity, epoch: int, birth: Callable[[], Birth]
    ) -> None:
        self._bus, self._identity, self._epoch, self._birth = bus, identity, epoch, birth
        self._said: Birth | None = None
        self._is_draining = False
        self._changed = asyncio.Event()
        bus.on_connection(self._on_connection)

    async def refresh(self) -> None:
        """Publishes the state when it has changed, looking once a second, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._changed.wait()
            self._changed.clear()
            birth = self._birth()
            if self._bus.is_connected and birth != self._said:
                self._publish(birth)
                self._said = birth

    def look(self) -> None:
        """Something has changed that others wait to hear of."""
        self._changed.set()

    def draining(self) -> None:
        """Says that nothing new is taken."""
        self._is_draining = True
        identity = self._identity
        self._publish(Draining(identity.tier, identity.site, identity.region, self._epoch))

    def offline(self) -> None:
        """Says goodbye."""
        identity = self._identity
        self._publish(
            Offline(identity.tier, identity.site, identity.region, self._epoch, clean=True)
        )

    def _on_connection(self, is_connected: bool) -> None:  # noqa: FBT001 the port's signature
        if is_connected and self._is_draining:
            self.draining()
        elif is_connected:
            self._said = self._birth()
            self._publish(self._said)

    def _publish(self, state: ControlMessage) -> None:
        try:
            self._bus.publish(state_message(self._identity, state))
        except NotConnectedError:
            # The will, or the birth at the next connect, tells it instead.
            _log.debug("state.not_sent", site=self._identity.site)
