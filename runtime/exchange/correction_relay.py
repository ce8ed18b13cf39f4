"""Passes on to devices what people above say about their answers.

Rules of this file:
  * a correction from above is acknowledged when it is durably in the outbox here, and it is there
    once, whoever sends it again; from then on it is like one of ours;
  * it is for a device of this region, or of one below it: then the gateway by which something of
    that region has come is next; any other is left with its sender, and logged;
  * whoever is above sends to those it has heard of: it hears of this gateway now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from runtime import topics
from runtime.errors import NotConnectedError, PayloadTooLargeError
from runtime.exchange.chores import Chores
from runtime.exchange.course import Identity
from runtime.exchange.forwarding import Storage
from runtime.exchange.items import control, derived_id
from runtime.exchange.wire import CONTROL_CONTENT_TYPE
from runtime.messages import Applied, Correction, ItemKind, decode_control, encode_control
from runtime.ports import Message, MessageBus, OutboxItem

# So long may a correction wait for a gateway that has nothing else to say.
GREET_S = 10.0
_log = structlog.get_logger()


class CorrectionRelay:
    """Lives on the event loop of the bus that leads up, where ``region`` is the region above."""

    def __init__(
        self,
        storage: Storage,
        bus: MessageBus,
        identity: Identity,
        *,
        region: str,
        above: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``above`` is who would be asked there now."""
        self._storage, self._bus, self._identity, self._above = storage, bus, identity, region
        self._received = storage.received(sends_on=True)
        self._who_is_above = above
        self._chores = Chores()
        bus.subscribe(topics.agent_replies(region, identity.site), self._on_message, qos=1)

    def start(self) -> None:
        """Begins to say that this gateway is there."""
        self._chores.keep_up(self._greet(), "correction.greet")

    async def close(self) -> None:
        """Finishes what is being written."""
        await self._chores.close()

    async def _greet(self) -> None:
        while True:
            above = self._who_is_above()
            if above and self._bus.is_connected:
                self._say(Applied(()), above)
            await asyncio.sleep(GREET_S)

    def _on_message(self, message: Message) -> None:
        if message.content_type != CONTROL_CONTENT_TYPE:
            return
        said = decode_control(message.payload)
        if not isinstance(said, Correction):
            return
        region, _, agent = said.to.partition("/")
        try:
            topics.check_name(agent), topics.check_name(said.gateway)
        except ValueError as error:
            _log.warning("correction.not_relayed", to=said.to[:140], error=str(error))
            return
        self._chores.start(self._relay(said, region, agent), "correction.relay")

    async def _relay(self, said: Correction, region: str, agent: str) -> None:
        is_ours = region == self._identity.region
        target = agent if is_ours else await self._received.way_to(region)
        if not target:
            error = "nothing has come from its region"
            _log.warning("correction.not_relayed", to=said.to[:140], error=error)
            return
        item_id = derived_id("relayed", said.item)
        onward = msgspec.structs.replace(said, item=item_id, gateway=self._identity.site)
        item = OutboxItem(
            item_id,
            ItemKind.CORRECTION,
            self._storage.clock.wall_s(),
            encode_control(onward),
            target=target,
        )
        if await self._received.answer(said.item[:64], item) == "full":
            _log.warning("correction.put_off", to=said.to)
            return
        self._say(Applied((said.item,)), said.gateway)

    def _say(self, word: Applied, above: str) -> None:
        topic = topics.gateway_requests(self._above, above, self._identity.site)
        try:
            self._bus.publish(control(word, topic))
        except (NotConnectedError, PayloadTooLargeError) as error:
            # It comes again, and then it is known.
            _log.debug("word.not_sent", gateway=above, error=str(error))
