"""A small model that answers until the large one is loaded: an answer within a second of a start.

The small one answers by the threshold of its manifest; the policy is for the other one. The two
have to be of one task: names, inputs, outputs and labels are compared before either is loaded.
"""

from __future__ import annotations

import asyncio

import msgspec

from runtime.adapters.artifacts import read_manifest
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.off_loop import in_thread
from runtime.core.gearbox import Gearbox
from runtime.errors import ArtifactError, BackendError, PolicyError, StartError
from runtime.exchange.assembly import Assembly
from runtime.exchange.loading import load_gearbox, load_model, model_folder
from runtime.exchange.serving import Serving
from runtime.local_model import LocalModel
from runtime.logs import get_logger
from runtime.ports import Clock
from runtime.updating.place import Place

_SAME = ("name", "task", "inputs", "outputs", "labels")


class EarlyModel:
    """``load`` the small one, then ``follow`` with the large one."""

    def __init__(self, place: Place, clock: Clock, metrics: TierMetrics) -> None:
        self._place, self._clock, self._metrics = place, clock, metrics
        self._log = get_logger()

    async def load(self) -> tuple[LocalModel, Gearbox]:
        """The small model.

        Raises:
            ArtifactError: it cannot be used, or is of another task than the large one.
            BackendError: its warm-up failed.
        """
        settings, tier = self._place.model, self._place.identity.tier
        early = msgspec.structs.replace(
            settings, folder=settings.early_folder, accept_at=None, isolation="inline"
        )
        await asyncio.to_thread(self._check_same)
        model = await load_model(early, tier, self._clock, self._metrics)
        return model, Gearbox(tier)

    async def follow(self, assembly: Assembly, serving: Serving) -> None:
        """Loads the large one and lets it answer; if it cannot be used, the small one goes on."""
        settings = self._place.model
        began_s = self._clock.monotonic_s()
        try:
            model, gearbox = await self._large()
        except (ArtifactError, BackendError, PolicyError, StartError) as error:
            self._log.error("model.not_loaded", error=str(error), serves=settings.early_folder)
            return
        old = serving.exchange(assembly.build(model, gearbox))
        self._log.info(
            "model.followed",
            model=model.manifest.name,
            version=model.manifest.version,
            after_s=round(self._clock.monotonic_s() - began_s, 3),
        )
        await old.close()

    async def _large(self) -> tuple[LocalModel, Gearbox]:
        settings, tier = self._place.model, self._place.identity.tier
        model = await load_model(settings, tier, self._clock, self._metrics)
        try:
            policy = self._place.escalation.policy
            return model, await load_gearbox(policy, settings, tier, model.manifest)
        except BaseException:
            await in_thread(model.close)
            raise

    def _check_same(self) -> None:
        settings, tier = self._place.model, self._place.identity.tier
        large = read_manifest(model_folder(settings, tier))
        early = msgspec.structs.replace(settings, folder=settings.early_folder)
        small = read_manifest(model_folder(early, tier))
        for what in _SAME:
            if getattr(small, what) != getattr(large, what):
                raise ArtifactError(
                    f"{settings.early_folder} has another {what} than the model that it stands in "
                    "for: callers would be answered in two ways"
                )
