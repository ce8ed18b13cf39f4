"""The rollout controller as a part of the cloud tier: settings turned into a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from cloud_tier.rollouts.catalogue import CatalogueReader
from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.desk import Desk
from cloud_tier.rollouts.http_api import RolloutApi
from cloud_tier.rollouts.keys import load_signer
from cloud_tier.rollouts.register import Register
from cloud_tier.rollouts.schema import open_file
from cloud_tier.rollouts.sending import Post
from cloud_tier.rollouts.store import RolloutStore
from cloud_tier.settings import CloudSettings
from runtime.adapters.blob_source import open_repository
from runtime.errors import TierwiseError
from runtime.exchange.chores import Chores
from runtime.exchange.station import Station
from runtime.ports import MessageBus

_log = structlog.get_logger()


class Rollouts:
    """What the tier's composition takes: routes, and who hears what devices report."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.hear = controller.hear
        self.add_routes = RolloutApi(controller, Desk(controller)).add_routes


@asynccontextmanager
async def rolling_out(
    settings: CloudSettings, parts: Station, bus: MessageBus
) -> AsyncIterator[Rollouts | None]:
    """Drives rollouts until left; None where that is off.

    Raises:
        StartError: key, repository or store cannot be used.
        StorageError: the store cannot be written.
    """
    own = settings.rollouts
    if not own.key_file:
        yield None
        return
    signer = load_signer(Path(own.key_file))
    repository = open_repository(settings.updates.repository)
    with open_file(Path(settings.state.folder)) as file:
        controller = Controller(
            f"{settings.cloud}-{parts.epoch}",
            RolloutStore(file),
            register=Register(
                file,
                retention_s=own.retention_s,
                max_rows=own.counted_max_rows,
                bucket_s=own.bucket_s,
            ),
            catalogue=CatalogueReader(repository),
            post=Post(
                bus, signer, region=settings.region, clock=parts.clock, repeat_s=own.repeat_s
            ),
            clock=parts.clock,
        )
        await controller.take_over()
        chores = Chores()
        chores.keep_up(_drive(controller, own.tick_interval_s), "rollouts")
        try:
            yield Rollouts(controller)
        finally:
            await chores.close()


async def _drive(controller: Controller, interval_s: float) -> None:
    has_failed = False
    while True:
        try:
            await controller.tick()
        except TierwiseError as error:
            # A full disk, or a damaged file: said once, tried again with every tick.
            if not has_failed:
                _log.error("rollouts.failed", code=error.code, error=str(error))
            has_failed = True
        else:
            if has_failed:
                _log.info("rollouts.recovered")
            has_failed = False
        await asyncio.sleep(interval_s)
