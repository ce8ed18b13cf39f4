"""The rollout controller as a part of the cloud tier: settings turned into a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.rollouts.catalogue import CatalogueReader
from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.desk import Desk
from cloud_tier.rollouts.experiment_api import ExperimentApi
from cloud_tier.rollouts.experiments import Experiments
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

# Observations are made of hours.
LOOK_S = 30.0
_log = structlog.get_logger()


class Rollouts:
    """What the tier's composition takes: routes, and who hears what devices report."""

    def __init__(self, controller: Controller, retention_s: float) -> None:
        self._desk = desk = Desk(controller)
        self.controller = controller
        self.experiments = Experiments(controller, desk, retention_s=retention_s)
        self.hear = controller.hear

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves both from this application, to those whom the door lets pass."""
        RolloutApi(self.controller, self._desk, door.check).add_routes(app)
        ExperimentApi(self.controller, self.experiments, door.check).add_routes(app)


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
            metrics=parts.metrics.rollouts,
        )
        await controller.take_over()
        chores = Chores()
        rollouts = Rollouts(controller, own.retention_s)
        chores.keep_up(_drive(rollouts, own.tick_interval_s), "rollouts")
        try:
            yield rollouts
        finally:
            await chores.close()


async def _drive(rollouts: Rollouts, interval_s: float) -> None:
    has_failed, looked_s, clock = False, 0.0, rollouts.controller.clock
    while True:
        try:
            await rollouts.controller.tick()
            if clock.monotonic_s() - looked_s >= LOOK_S:
                looked_s = clock.monotonic_s()
                await rollouts.experiments.look()
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
