"""Brings what is stopped in the region above into ours, and keeps what ours retains true.

States are relayed as they are, at a topic that names the region they are about, so that a signature
would still hold and every region keeps its own sequence. A broker that has lost what it retained,
or retains an older state, is given the latest again by any gateway that knows it.
"""

from __future__ import annotations

import asyncio

import structlog

from runtime import topics
from runtime.adapters.metrics import TierMetrics
from runtime.core.control import supersedes
from runtime.core.overrides import without_ended
from runtime.errors import NotConnectedError
from runtime.exchange.stopping import StopSwitch, parse_state
from runtime.messages import ControlState, encode_control
from runtime.ports import Clock, Message, MessageBus

_log = structlog.get_logger()


class ControlRelay:
    """What a gateway, or the cloud, does for the control states of the region that it serves."""

    def __init__(
        self,
        switch: StopSwitch,
        bus: MessageBus,
        *,
        region: str,
        metrics: TierMetrics,
        clock: Clock,
    ) -> None:
        self._switch, self._bus, self._region, self._metrics = switch, bus, region, metrics
        self._clock = clock
        switch.watch(self._keep)

    def listen(self, up_bus: MessageBus, upstream_region: str) -> None:
        """Hears the region above, and what that one has heard from above itself."""
        up_bus.subscribe(topics.control(upstream_region), self._on_above, qos=1)
        up_bus.subscribe(topics.control(upstream_region, "+"), self._on_above, qos=1)

    def _on_above(self, message: Message) -> None:
        state = parse_state(message, self._metrics)
        if state is None:
            return
        if state.region == self._region:
            # Ours is nobody else's to state.
            self._metrics.count_control("malformed")
            return
        self._switch.take(state)
        self._keep()

    def state(self, state: ControlState) -> bool:
        """Takes what an operator says of our region; whether it counts more than what was known.

        It holds here at once, and in the region as soon as the broker is there.
        """
        is_taken = self._switch.take(state)
        self._keep()
        return is_taken

    async def end_overrides(self, interval_s: float = 1.0) -> None:
        """Takes overrides of our region back when their time is over, until cancelled.

        Several gateways come to the same state, so it does not matter who is first.
        """
        while True:
            await asyncio.sleep(interval_s)
            state = self._switch.known.get(self._region)
            left = state and without_ended(state, self._clock.wall_s())
            if left and self._switch.take(left):
                self._keep()

    def _keep(self) -> None:
        """Publishes what the broker does not retain, or retains an older state of."""
        if not self._switch.is_heard:
            return
        for state in self._switch.known.values():
            if supersedes(state, self._switch.retained.get(state.region)):
                self._publish(state)

    def _publish(self, state: ControlState) -> None:
        origin = "" if state.region == self._region else state.region
        try:
            self._bus.publish(
                Message(
                    topics.control(self._region, origin),
                    encode_control(state),
                    qos=1,
                    retain=True,
                )
            )
        except NotConnectedError:
            # The next connection begins with what it retains, and this is looked at again.
            return
        self._switch.retained[state.region] = state
        _log.info("control.relayed", origin=state.region, sequence=state.sequence)
