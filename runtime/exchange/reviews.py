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
    ) -> None:
        self._identity, self._state, self._storage = identity, state, storage
        self._clock, self._metrics, self._exits = clock, metrics, exits
        self._queue: ReviewQueue | None = None

    def reviewer(self, gearbox: Gearbox, manifest: ModelManifest) -> Reviewer | None:
        """Who hands answers of this model to people; None where the policy has no reviews.

        Raises:
            StartError: the queue cannot be opened.
        """
        if not gearbox.has_reviews:
            return None
        if self._queue is None:
            queue = SqliteReviewQueue(
                Path(self._state.folder),
                max_items=self._state.review_max_items,
                max_bytes=self._state.review_max_bytes,
            )
            self._exits.enter_context(queue)
            is_top = self._identity.tier is Tier.CLOUD
            outbox = self._storage.outbox
            self._queue = queue if is_top else ReportingQueue(queue, outbox, self._clock)
        return Reviewer(
            self._identity,
            self._queue,
            manifest=manifest,
            clock=self._clock,
            metrics=self._metrics,
        )
