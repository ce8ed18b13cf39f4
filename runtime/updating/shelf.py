"""The models that a device keeps: which of them answers at a start, and how each is loaded.

Rules of this file:
  * what came with the package is on record, so that there is always a way back to it; it is taken
    over once, and a start costs no more than reading its manifest;
  * a release that does not load is given up, and the next in line is loaded;
  * what answers a share of the requests is loaded before anything is answered, so that a key has
    the same release after a restart;
  * thresholds and policy travel with a model: a release answers by its own policy where that names
    this model, else by its manifest's threshold. What the settings say of a policy and a threshold
    is about the model of the settings.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from runtime.adapters.artifacts import read_manifest, sha256_of
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.model_store import ModelStore
from runtime.adapters.off_loop import in_thread
from runtime.adapters.policy_file import open_gearbox
from runtime.catalogue import POLICY_NAME
from runtime.common_settings import ModelSettings
from runtime.core.activation import ran_well, set_factory, stopped_cleanly
from runtime.core.gearbox import Gearbox
from runtime.core.obeying import give_up
from runtime.core.releases import Fault, Record, Release, Slot, Split
from runtime.core.selection import Origin
from runtime.errors import (
    ArtifactError,
    BackendError,
    PolicyError,
    StartError,
    StorageError,
)
from runtime.exchange.loading import load_gearbox, load_model_as, model_folder
from runtime.local_model import LocalModel
from runtime.logs import get_logger
from runtime.manifest import MANIFEST_NAME
from runtime.ports import Clock
from runtime.updating.counting import Usual, Watch, WatchedModel
from runtime.updating.place import Place

STORE = "models"
# What came with the package is older than all that is published.
FACTORY_VERSION = 0
UNUSABLE = (ArtifactError, BackendError, PolicyError, StartError)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to answer; ``generation`` is that of its trial."""

    release: str
    model: WatchedModel
    gearbox: Gearbox
    generation: int | None = None


class Shelf:
    """The one slot of a device's model store; nothing is opened before ``load``."""

    def __init__(self, place: Place, clock: Clock, metrics: TierMetrics) -> None:
        self._place, self._clock, self._metrics = place, clock, metrics
        self.tier = place.identity.tier
        self._log = get_logger()
        limits = place.updates
        self._usual = Usual(limits.max_slowdown, limits.latency_floor_ms)
        self._store: ModelStore | None = None
        self.name, self._factory = "", ""
        # What was in no arm of a split, whichever model has answered it.
        self.apart = Watch("", usual=self._usual)
        self.first: Loaded | None = None
        self.second: Loaded | None = None
        self._split: Split | None = None

    @property
    def store(self) -> ModelStore:
        """The open store.

        Raises:
            RuntimeError: ``load`` has not been called.
        """
        if self._store is None:
            raise RuntimeError("the model store is not open")
        return self._store

    @property
    def slot(self) -> Slot:
        """As committed."""
        return self.store.record.slot(self.name)

    async def load(self) -> tuple[LocalModel, Gearbox]:
        """Opens the store and loads what is to answer: trial, current, previous or factory.

        Raises:
            ArtifactError: not even the model of the settings can be used.
            PolicyError: the policy of the settings cannot be used with it.
            StartError: another process has the store, or its record is damaged.
            StorageError: the store cannot be opened.
        """
        await in_thread(self._open)
        try:
            self.first = first = await self._first()
            try:
                self.second = await self._second()
            except BaseException:
                first.model.close()
                raise
        except BaseException:
            await in_thread(self.close)
            raise
        return self.first.model, self.first.gearbox

    async def load_release(
        self, release: Release, folder: Path, generation: int | None = None
    ) -> Loaded:
        """A release that the store has laid out, verified and warm.

        Raises:
            ArtifactError: its files are not what they should be, or no model.
            BackendError: it does not run.
            StartError: a process of it ended at its start.
        """
        settings = replace(self._place.model, folder=str(folder), accept_at=None)
        model = await self._model(settings, release.name)
        gearbox = await asyncio.to_thread(self._gearbox, release, folder, model)
        return Loaded(release.name, model, gearbox, generation)

    async def commit(self, record: Record) -> None:
        """Commits, off the event loop; the errors of ``ModelStore.commit``."""
        await in_thread(self.store.commit, record)

    async def load_kept(self, release: Release) -> Loaded:
        """A release of the record that is not on trial; the errors of ``load_release``.

        Raises:
            StorageError: it cannot be laid out.
        """
        if release.name == self._factory:
            return await self._packaged()
        return await self.load_release(release, await in_thread(self.store.folder, release))

    async def note_ran_well(self) -> None:
        """What serves has run for the crash window."""
        record = ran_well(self.store.record, self.name)
        if record != self.store.record:
            await self.commit(record)

    def stop(self) -> None:
        """Ends on purpose: notes that this was no crash, and gives the store back."""
        if self._store is None:
            return
        try:
            record = stopped_cleanly(self._store.record, self.name)
            if record != self._store.record:
                self._store.commit(record)
        except StorageError as error:
            self._log.error("record.not_written", error=str(error))
        self.close()

    def close(self) -> None:
        """Gives the store back; safe to call twice."""
        if self._store is not None:
            self._store.close()

    def _open(self) -> None:
        folder = model_folder(self._place.model, self.tier)
        self.name = read_manifest(folder).name
        self._factory = sha256_of((folder / MANIFEST_NAME).read_bytes())
        self._store = store = ModelStore(
            LocalFiles(Path(self._place.state.folder) / STORE),
            quota_bytes=self._place.updates.quota_bytes,
        )
        known = self.slot.factory
        if known is not None and known.name == self._factory:
            return
        try:
            release = store.import_folder(folder, FACTORY_VERSION)
            store.commit(set_factory(store.record, self.name, release))
        except StorageError as error:
            # It is still loaded from where it is.
            self._log.error("factory.not_kept", error=str(error))
        except BaseException:
            store.close()
            raise

    async def _first(self) -> Loaded:
        while True:
            started = await in_thread(self.store.start, self.name, self._clock.wall_s())
            # Not that of the record: where an attempt could not be counted it is not loaded.
            self._split = started.selection.split
            selection, release = started.selection, started.selection.release
            for one in selection.given_up:
                self._log.error("release.given_up", version=one.version, fault=one.fault)
            if release is None or started.folder is None or selection.origin is Origin.FACTORY:
                return await self._packaged()
            if selection.is_below_floor:
                self._log.warning("release.below_floor", version=release.version)
            try:
                return await self.load_release(release, started.folder, selection.generation)
            except UNUSABLE as error:
                self._log.error("release.not_loaded", version=release.version, error=str(error))
            record = give_up(self.store.record, self.name, release, Fault.LOAD_FAILED)
            try:
                await self.commit(record)
            except StorageError as error:
                self._log.error("record.not_written", error=str(error))
                return await self._packaged()

    async def _second(self) -> Loaded | None:
        """What answers a share of the requests, where the record says so and it can be had."""
        split = self._split
        if split is None:
            return None
        release = split.release
        try:
            folder = await in_thread(self.store.folder, release)
            return await self.load_release(release, folder, split.trial.generation)
        except StorageError as error:
            self._log.error("release.not_laid_out", version=release.version, error=str(error))
            return None
        except UNUSABLE as error:
            self._log.error("release.not_loaded", version=release.version, error=str(error))
        try:
            await self.commit(give_up(self.store.record, self.name, release, Fault.LOAD_FAILED))
        except StorageError as error:
            self._log.error("record.not_written", error=str(error))
        return None

    async def _packaged(self) -> Loaded:
        """The model of the settings, as it would be without a store."""
        settings = self._place.model
        model = await self._model(settings, self._factory)
        try:
            gearbox = await load_gearbox(
                self._place.escalation.policy, settings, self.tier, model.manifest
            )
        except BaseException:
            model.close()
            raise
        return Loaded(self._factory, model, gearbox)

    async def _model(self, settings: ModelSettings, release: str) -> WatchedModel:
        model = await load_model_as(
            WatchedModel,
            settings,
            self.tier,
            self._clock,
            self._metrics,
        )
        model.watch, model.apart = Watch(release, usual=self._usual), self.apart
        return model

    def _gearbox(self, release: Release, folder: Path, model: WatchedModel) -> Gearbox:
        """The gears that come with a release, else those of the settings if they fit."""
        own = [folder / POLICY_NAME] if POLICY_NAME in release.files else []
        stated = self._place.escalation.policy
        for path in (*own, *([Path(stated)] if stated else [])):
            with contextlib.suppress(PolicyError):
                return open_gearbox(path, self.tier, model.manifest)
            self._log.warning("policy.not_for_this_model", path=str(path), release=release.name)
        return Gearbox(self.tier)
