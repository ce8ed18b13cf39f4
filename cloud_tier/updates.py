"""The published model files, handed out to gateways: settings turned into a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from runtime.adapters.blob_server import BlobServer, ServerLimits
from runtime.adapters.blob_source import open_repository
from runtime.adapters.delta_maker import DeltaMaker
from runtime.adapters.metrics import TierMetrics
from runtime.ports import Clock
from runtime.update_settings import RepositorySettings


@asynccontextmanager
async def published(
    settings: RepositorySettings, state: Path, clock: Clock, metrics: TierMetrics
) -> AsyncIterator[Callable[[web.Application], None] | None]:
    """What adds the routes to an application; None where nothing is to be handed out.

    Raises:
        StartError: the repository cannot be used.
        StorageError: the folder for deltas cannot be used.
    """
    if not settings.repository:
        yield None
        return
    repository = open_repository(settings.repository)
    deltas = None
    if settings.delta_max_bytes:
        deltas = DeltaMaker(repository, state / "deltas", max_bytes=settings.delta_max_bytes)
    limits = ServerLimits(settings.max_bytes_per_s, settings.max_transfers)
    try:
        yield BlobServer(repository, clock, limits, deltas, metrics=metrics.transfers).add_routes
    finally:
        if deltas is not None:
            await deltas.close()
