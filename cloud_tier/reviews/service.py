"""Reviews as a part of the cloud tier: settings turned into a service."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import structlog
from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.settings import CloudReviewSettings
from cloud_tier.telemetry.service import Telemetry
from runtime.adapters.review_metrics import ReviewMetrics
from runtime.core.agreement import overall_kappa
from runtime.errors import StorageError, TierwiseError
from runtime.exchange.chores import Chores
from runtime.exchange.station import Station
from runtime.ports import OutboxItem

if TYPE_CHECKING:
    from cloud_tier.reviews.outcomes import Outcomes
    from cloud_tier.reviews.store import ReviewStore

# How often what is settled is told, and how often what is over is ended.
INTERVAL_S, TIDY_S = 1.0, 30.0
# How far people agree is looked up once in so many turns of tidying up.
_TURNS_OF_AGREEMENT = 10
# Who the feedback of people is from, where it is kept.
SENDER = "review"
_log = structlog.get_logger()


class KeptReviews:
    """What the tier's composition takes: who keeps and counts items, and routes to label them."""

    def __init__(
        self,
        apply: Callable[[OutboxItem], Awaitable[Literal["stored", "known"]]],
        add_routes: Callable[[web.Application, Door], None],
        counts: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self.apply, self.add_routes, self.counts = apply, add_routes, counts


@asynccontextmanager
async def keeping_reviews(
    settings: CloudReviewSettings, parts: Station, telemetry: Telemetry | None
) -> AsyncIterator[KeptReviews | None]:
    """Keeps reviews until left, in the database of telemetry; None where there is none."""
    if telemetry is None:
        yield None
        return
    # Here, because they need the extra.
    from cloud_tier.reviews import looking  # noqa: PLC0415
    from cloud_tier.reviews.http_api import ReviewsApi  # noqa: PLC0415
    from cloud_tier.reviews.outcomes import Outcomes  # noqa: PLC0415
    from cloud_tier.reviews.store import Bounds, ReviewStore  # noqa: PLC0415

    bounds = Bounds(
        max_items=settings.max_items,
        max_bytes=settings.max_bytes,
        retention_s=settings.retention_s,
        lease_s=settings.lease_s,
        wanted=settings.labellers,
    )
    store = ReviewStore(telemetry.engine, bounds, wall_s=parts.clock.wall_s)
    received = parts.storage.received(sends_on=False)

    async def keep(item: OutboxItem) -> None:
        await telemetry.apply(item)
        await received.take_over(item, SENDER)

    outcomes = Outcomes(store, keep, parts.storage.outbox.put, site=parts.identity.site)

    chores = Chores()
    chores.keep_up(_tidy(store, parts.metrics.reviews), "reviews.tidy")
    chores.keep_up(_tell(outcomes), "reviews.tell")
    try:
        yield KeptReviews(
            store.apply,
            ReviewsApi(store, shows_answers=settings.shows_answers).add_routes,
            partial(looking.counts, store),
        )
    finally:
        await chores.close()
        await asyncio.to_thread(store.close)


async def _tidy(store: ReviewStore, metrics: ReviewMetrics) -> None:
    from cloud_tier.reviews import looking  # noqa: PLC0415 - needs the extra

    was_overdue = False
    for turn in itertools.count():
        try:
            await looking.tidy(store)
            counts = await looking.counts(store)
            if turn % _TURNS_OF_AGREEMENT == 0:
                metrics.set_agreement(overall_kappa(await looking.agreement(store)))
        except StorageError as error:
            _log.warning("reviews.put_off", error=str(error))
        else:
            if counts["overdue"] and not was_overdue:
                _log.warning("reviews.overdue", overdue=counts["overdue"], half=counts["half"])
            was_overdue = bool(counts["overdue"])
            metrics.set_open(
                counts["states"], num_late=counts["overdue"], oldest_s=counts["oldest_s"]
            )
        await asyncio.sleep(TIDY_S)


async def _tell(outcomes: Outcomes) -> None:
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            await outcomes.tell()
        except TierwiseError as error:
            _log.warning("reviews.put_off", error=str(error))
