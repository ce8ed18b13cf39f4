"""The gateways of the tier above: who is online, how the link to each is, whom to ask.

Learns from the retained states that gateways publish of themselves, and from how asking them ends.
A gateway that often fails, however quickly, is barred by a breaker. Silence is no failure to the
breaker: it may be the link's, or the budget's, and the link estimate counts it.
"""

from __future__ import annotations

import random

from runtime import topics
from runtime.adapters.breaker_signs import BreakerSigns
from runtime.adapters.metrics import TierMetrics
from runtime.core.breaker import Breaker, Pass
from runtime.core.gateways import GatewayBook
from runtime.core.link import LinkEstimator, LinkSettings
from runtime.errors import BackendError, TierwiseError, UnavailableError, UnknownModelError
from runtime.messages import (
    Answer,
    Birth,
    ControlMessage,
    Draining,
    Offline,
    Outcome,
    Tier,
    decode_control,
)
from runtime.ports import Message, MessageBus

# A gateway that did not reply is asked again only after this time, if there is another one.
AVOID_S = 2.0
MAX_LINKS = 256
# What a gateway itself is at fault for; to refuse, or to be late, is no fault.
_FAULTS = frozenset(
    kind.code for kind in (TierwiseError, UnavailableError, BackendError, UnknownModelError)
)


class Upstreams:
    """What is known of the tier above. Lives on the event loop of its bus."""

    def __init__(
        self,
        bus: MessageBus,
        metrics: TierMetrics,
        *,
        tier_above: Tier,
        region: str,
        pinned: str,
        link: LinkSettings,
        chooser: random.Random | None = None,
    ) -> None:
        self._bus, self._metrics = bus, metrics
        self.tier_above, self._region, self._pinned, self._settings = (
            tier_above, region, pinned, link,
        )  # fmt: skip
        self._book = GatewayBook()
        self._links: dict[str, LinkEstimator] = {}
        self._avoid_until_s: dict[str, float] = {}
        self._breakers: dict[str, Breaker] = {}
        self._signs = BreakerSigns("upstream", metrics)
        # Spreads load; nothing secret depends on it.
        self._chooser = chooser or random.Random()  # noqa: S311
        bus.subscribe(topics.gateway_state(region), self._on_state, qos=1)
        bus.on_connection(self._on_connection)

    def choose(self, now_s: float, *, other_than: str = "") -> str | None:
        """The gateway to ask, None while there is none; ``other_than`` is one that is asked."""
        if not self._bus.is_connected or (other_than and self._pinned):
            return None
        failed = {g for g, until_s in self._avoid_until_s.items() if now_s < until_s}
        chosen = self._book.choose(
            avoid=frozenset(failed | {other_than}),
            draws=(self._chooser.random(), self._chooser.random()),
            pinned=self._pinned,
            barred=frozenset(g for g, one in self._breakers.items() if not one.lets_pass(now_s)),
        )
        return None if chosen == other_than else chosen

    def link(self, gateway: str) -> LinkEstimator:
        """What is known of the way to one gateway."""
        if gateway not in self._links:
            self._links[gateway] = LinkEstimator(self._settings)
        return self._links[gateway]

    def enter(self, gateway: str, now_s: float) -> Pass | None:
        """Leave to ask a gateway once, or not; whoever has it says later how it went."""
        if gateway not in self._breakers:
            self._breakers[gateway] = Breaker(gateway, on_change=self._signs)
        return self._breakers[gateway].enter(now_s)

    def leave(self, gateway: str, passed: Pass | None, now_s: float) -> None:
        """Nothing was heard that says how well a gateway is; no news after ``note_answered``."""
        if passed is not None and gateway in self._breakers:
            self._breakers[gateway].leave(passed, now_s, succeeded=None)

    def note_answered(
        self, gateway: str, passed: Pass | None, now_s: float, answer: Answer | None
    ) -> None:
        """What a gateway said; None where that could not be understood."""
        if passed is None or gateway not in self._breakers:
            return
        succeeded: bool | None = True
        if answer is None:
            succeeded = False
        elif answer.outcome is Outcome.FAILED:
            succeeded = False if answer.error_code in _FAULTS else None
        self._breakers[gateway].leave(passed, now_s, succeeded=succeeded)

    def note_answering(self, gateway: str, queue_len: int | None) -> None:
        """A gateway replied, and said how much it has to do."""
        self._avoid_until_s.pop(gateway, None)
        if queue_len is not None:
            self._book.note_queue(gateway, queue_len)

    def note_silent(self, gateway: str, now_s: float) -> None:
        """A gateway did not reply."""
        self._avoid_until_s[gateway] = now_s + AVOID_S

    def note_refusing(self, gateway: str, now_s: float, retry_after_ms: float) -> None:
        """A gateway has too much to do, and says for how long."""
        self._avoid_until_s[gateway] = now_s + min(AVOID_S, retry_after_ms / 1000)

    def _on_state(self, message: Message) -> None:
        if not message.payload:
            # A retained state that was removed, by an operator for instance.
            self._book.forget(topics.site_of_state(message.topic))
            return
        state = decode_control(message.payload)
        if state is None or not self._speaks_for_itself(message.topic, state):
            self._metrics.count_ignored("undecodable")
            return
        if not self._book.note(state):
            self._metrics.count_ignored("stale_state")
            return
        if len(self._links) > MAX_LINKS:
            # So that ids cannot pile up; an estimate outlives a reconnect, or a gate would reopen.
            for gone in self._links.keys() - self._book.online.keys():
                del self._links[gone]
                self._avoid_until_s.pop(gone, None)
                self._breakers.pop(gone, None)
                self._signs.forget(gone)

    def _speaks_for_itself(self, topic: str, state: ControlMessage) -> bool:
        """Whether a state is that of a gateway of the tier above, said at that gateway's topic.

        The topic is what the broker's access rules check; without this, one gateway could say that
        another is offline, or a region's gateways could take one another for the cloud.
        """
        return (
            isinstance(state, Birth | Draining | Offline)
            and state.tier is self.tier_above
            and topic == topics.gateway_state(self._region, state.site)
        )

    def _on_connection(self, is_connected: bool) -> None:  # noqa: FBT001 the port's signature
        if not is_connected:
            self._book.forget_all()
