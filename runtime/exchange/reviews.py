"""The review queue of one process, and who puts answers into it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from runtime.adapters.metrics import TierMetrics
from runtime.adapters.review_queue import SqliteReviewQueue
from runtime.common_settings import StateSettings
from runtime.core.gearbox import Gearbox
from runtime.exchange.course import Identity
from runtime.exchange.forwarding import Storage
from runtime.exchange.reporting import ReportingQueue
from runtime.exchange.reviewing import Reviewer
from runtime.manifest import ModelManifest
from runtime.messages import Tier
from runtime.ports import Clock, ReviewQueue
from runtime.review_settings import ReviewSettings


class Reviews:
    """The review queue of a process, opened when a policy first has reviews."""

    def __init__(
        self,
        identity: Identity,
        state: StateSettings,
        storage: Storage,
        *,
        clock: Clock,
        metrics: TierMetrics,
        exits: AsyncExitStack,
        settings: ReviewSettings | None = None,
    ) -> None:
        self._identity, self._state, self._storage = identity, state, storage
        self._clock, self._metrics, self._exits = clock, metrics, exits
        self.settings = settings or ReviewSettings(audits=False)
        # Above the cloud tier nobody is; it keeps what waits itself, where it can.
        self.is_told = identity.tier is not Tier.CLOUD
        self._queue: ReviewQueue | None = None

    def reviewer(self, gearbox: Gearbox, manifest: ModelManifest) -> Reviewer | None:
        """Who hands answers of this model to people; None where neither policy nor settings do.

        Raises:
            StartError: the queue cannot be opened.
        """
        if not (gearbox.has_reviews or self.settings.samples):
            return None
        if self._queue is None:
            queue = SqliteReviewQueue(
                Path(self._state.folder),
                max_items=self._state.review_max_items,
                max_bytes=self._state.review_max_bytes,
            )
            self._exits.enter_context(queue)
            self._queue = ReportingQueue(
                queue,
                self._storage.outbox,
                self._clock,
                sends_inputs=self.settings.send_inputs,
                is_on=lambda: self.is_told,
            )
        return Reviewer(
            self._identity,
            self._queue,
            manifest=manifest,
            clock=self._clock,
            metrics=self._metrics,
        )
