"""Fake tiers with a state folder: an outbox, what they take over, and corrections."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fakes.tiers import UNSURE, FakeTier, NumbersBackend
from runtime.adapters.corrections import CorrectionEvent
from runtime.adapters.memory_bus import MemoryBroker
from runtime.common_settings import StateSettings
from runtime.core.outbox import Patience
from runtime.exchange.correcting import CorrectionDesk
from runtime.exchange.forwarding import Storage, open_storage, taking_over, upward
from runtime.exchange.receiving import Receiver
from runtime.exchange.sending import Sender
from runtime.messages import Tier
from runtime.ports import OutboxItem

# Everything that takes seconds takes moments here.
HASTY = Patience(ack_s=0.1, answer_s=0.3, first_s=0.05, longest_s=0.2, max_strikes=2)
RETRY_MS = 100.0


class StoringTier(FakeTier):
    """A ``FakeTier`` that stores and forwards."""

    storage: Storage
    sender: Sender | None = None
    receiver: Receiver | None = None
    desk: CorrectionDesk | None = None

    def __init__(
        self,
        broker: MemoryBroker,
        tier: Tier,
        folder: Path,
        *backends: NumbersBackend,
        state: StateSettings | None = None,
        latch: Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(broker, tier, *backends, state=latch, **options)
        self._folder = folder / self.identity.site
        self._state = state or StateSettings()
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.storage = self._exits.enter_context(
            open_storage(self._folder, self._state, self.clock, self.metrics)
        )
        if self.uplink is not None:
            self.sender = upward(
                self.storage,
                self.up_bus,
                region=self.uplink._settings.region,
                site=self.identity.site,
                is_reachable=lambda: self.uplink is not None and self.uplink.choose() is not None,
                is_busy=lambda: False,
                tracer=self.tracer,
            )
            self.sender._patience = HASTY
            self._exits.push_async_callback(self.sender.close)
            self.sender.start()
        if self.identity.tier is Tier.EDGE:
            self.desk = CorrectionDesk(
                self.identity,
                self.storage.corrections(),
                self.up_bus,
                clock=self.clock,
                metrics=self.metrics.outbox,
                tier_above=self.uplink.tier_above if self.uplink else None,
                max_body_bytes=10_000,
            )
            self.flow._ledger._desk = self.desk
            if self.uplink is not None:
                self.uplink.on_late = self.desk.heard_late
                self.uplink.wants_late = self.desk.wants
            self.desk.start()
            self._exits.push_async_callback(self.desk.close)
        else:
            self.receiver = await self._exits.enter_async_context(
                taking_over(
                    self.storage,
                    self.bus,
                    self.serving,
                    sends_on=self.uplink is not None,
                    max_body_bytes=10_000,
                )
            )
            self.receiver._retry_after_ms = RETRY_MS
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()
        await super().__aexit__(kind, error, trace)

    async def waiting(self) -> list[OutboxItem]:
        """What the outbox holds."""
        from runtime.adapters.outbox import _COLUMNS, item_of  # noqa: PLC0415

        query = f"SELECT {_COLUMNS} FROM items ORDER BY rank, attempts, seq"  # noqa: S608
        return await self.storage.outbox.file.run(
            lambda connection: [item_of(row) for row in connection.execute(query).fetchall()]
        )

    async def received(self) -> list[tuple[str, str, bytes]]:
        """Kind, origin and body of what ended here."""
        query = "SELECT kind, origin, body FROM received ORDER BY seq"
        return await self.storage.outbox.file.run(
            lambda connection: connection.execute(query).fetchall()
        )

    async def events(self) -> list[CorrectionEvent]:
        """The corrections that have come."""
        return await self.storage.corrections().after(0)


def storing_edge(broker: MemoryBroker, folder: Path, **options: Any) -> StoringTier:
    return StoringTier(
        broker, Tier.EDGE, folder, NumbersBackend(UNSURE), above=Tier.REGIONAL, **options
    )


def storing_gateway(
    broker: MemoryBroker, folder: Path, *backends: NumbersBackend, **options: Any
) -> StoringTier:
    backends = backends or (NumbersBackend(UNSURE),)
    options = {"above": Tier.CLOUD, **options}
    return StoringTier(broker, Tier.REGIONAL, folder, *backends, **options)


def storing_cloud(broker: MemoryBroker, folder: Path, **options: Any) -> StoringTier:
    return StoringTier(broker, Tier.CLOUD, folder, NumbersBackend((0.0, 9.0, 0.0)), **options)
