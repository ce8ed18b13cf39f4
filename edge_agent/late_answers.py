"""What an agent offers about answers that it has given: later ones, and what people say of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from edge_agent.feedback import Receipt, feedback_item
from edge_agent.settings import EdgeSettings
from runtime.adapters.corrections import CorrectionEvent
from runtime.adapters.metrics import TierMetrics
from runtime.errors import StorageError
from runtime.exchange.correcting import Callback, CorrectionDesk
from runtime.exchange.course import Identity
from runtime.exchange.forwarding import Storage
from runtime.exchange.uplink import Uplink
from runtime.exchange.wire import check_request_id
from runtime.local_model import LocalModel
from runtime.messages import Tier
from runtime.ports import Clock, MessageBus

_NOT_ENTERED = "use the agent as: async with Agent(settings) as agent"


class LateAnswers:
    """The part of an ``Agent`` that outlives its answers."""

    def __init__(
        self, settings: EdgeSettings, identity: Identity, clock: Clock, metrics: TierMetrics
    ) -> None:
        self.settings, self.identity, self.metrics = settings, identity, metrics
        self._clock = clock
        self._desk: CorrectionDesk | None = None
        self._storage: Storage | None = None
        self._model: LocalModel | None = None

    def _open_desk(
        self, storage: Storage, bus: MessageBus, uplink: Uplink | None, model: LocalModel
    ) -> CorrectionDesk:
        """Who brings late answers home; without a way up, those of before."""
        escalation = self.settings.escalation
        asks_again = uplink is not None and escalation.corrections
        desk = CorrectionDesk(
            self.identity,
            storage.corrections(),
            bus,
            clock=self._clock,
            metrics=self.metrics.outbox,
            tier_above=Tier(self.settings.upstream_tier) if asks_again else None,
            max_body_bytes=escalation.correction_max_bytes,
        )
        if uplink is not None and asks_again:
            uplink.on_late, uplink.wants_late = desk.heard_late, desk.wants
        self._desk, self._storage, self._model = desk, storage, model
        return desk

    def _close_desk(self) -> None:
        self._desk = self._storage = self._model = None

    @property
    def desk(self) -> CorrectionDesk:
        """Corrections of this agent.

        Raises:
            RuntimeError: the agent has not been entered.
        """
        if self._desk is None:
            raise RuntimeError(_NOT_ENTERED)
        return self._desk

    async def corrections(self, after: int = 0) -> AsyncIterator[CorrectionEvent]:
        """Corrections as they come, from the one after number ``after`` on; ends with the agent.

        Raises:
            StorageError: the disk does not say.
        """
        async for event in self.desk.events(after):
            if event is not None:
                yield event

    def on_correction(self, callback: Callback) -> None:
        """Calls back once with each correction, also with those that came before a restart."""
        self.desk.on_correction(callback)

    async def feedback(
        self,
        request_id: str,
        *,
        label: int | str | None = None,
        is_correct: bool | None = None,
        comment: str = "",
    ) -> Receipt:
        """Tells those above what the right answer to a request was; kept until it has arrived.

        Args:
            request_id: of the request; feedback about one that this agent does not know of is kept
                as well, and says so.
            label: the right label, or its name.
            is_correct: whether the answer was right.
            comment: at most 1000 characters.

        Raises:
            MalformedBodyError: it says nothing, or names no label of the model.
            StorageError: it could not be kept; tell it again.
        """
        if self._storage is None or self._model is None:
            raise RuntimeError(_NOT_ENTERED)
        item, receipt = await feedback_item(
            check_request_id(request_id),
            label=label,
            is_correct=is_correct,
            comment=comment,
            labels=self._model.manifest.labels,
            state=self.settings.state,
            clock=self._clock,
        )
        if await self._storage.outbox.put(item) != "stored":
            raise StorageError("the feedback could not be stored")
        return receipt
