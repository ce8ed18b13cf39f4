"""A store of reviews in any database, on a clock of the test, and what it tells others."""

from __future__ import annotations

from typing import Any

from cloud_tier.reviews.outcomes import Outcomes
from cloud_tier.reviews.store import Bounds, ReviewStore
from cloud_tier.telemetry.database import open_engine
from fakes.review_reports import NOW_S, sent
from runtime.ports import OutboxItem, PutResult
from runtime.review_report import ReviewReport


class Shop:
    """A store, its clock, and what is told of what."""

    def __init__(self, url: str) -> None:
        self.url, self.now_s = url, NOW_S
        self.feedback: list[OutboxItem] = []
        self.corrections: list[OutboxItem] = []
        self.says: PutResult = "stored"
        self.open()

    def open(self, **bounds: Any) -> ReviewStore:
        self.engine = open_engine(self.url)
        self.store = ReviewStore(self.engine, Bounds(**bounds), wall_s=lambda: self.now_s)
        self.outcomes = Outcomes(self.store, self._keep, self._send, site="cloud-1")
        return self.store

    def close(self) -> None:
        self.store.close()
        self.engine.dispose()

    def again(self, **bounds: Any) -> ReviewStore:
        self.close()
        return self.open(**bounds)

    async def _keep(self, item: OutboxItem) -> None:
        self.feedback.append(item)

    async def _send(self, item: OutboxItem) -> PutResult:
        if self.says == "stored":
            self.corrections.append(item)
        return self.says

    async def put(self, *reports: ReviewReport, **more: Any) -> list[str]:
        return [await self.store.apply(sent(one, **more)) for one in reports]

    async def next_item(self, who: str) -> str:
        found = await self.store.next(who)
        return "" if found is None else found.row.item
