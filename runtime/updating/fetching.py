"""The catalogue and the files of a release, for a device: from mirrors that nobody trusts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key

from runtime.adapters.blob_client import BlobClient, DownloadOptions, Wanted
from runtime.adapters.blob_transfer import Transfer, TransferLimits, client_session
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.off_loop import in_thread
from runtime.adapters.trust import TrustedCatalogue
from runtime.adapters.update_metrics import UpdateMetrics
from runtime.core.mirrors import Trouble
from runtime.core.obeying import answering
from runtime.core.releases import Release
from runtime.core.trusted_time import time_floor_s, trusted_now_s
from runtime.errors import ExpiredError, StartError, TierwiseError
from runtime.ports import Clock
from runtime.ports_files import Mirror
from runtime.updating.place import Place
from runtime.updating.shelf import Shelf
from runtime.version import BUILT_S

CATALOGUE = "catalogue"
Keys = Callable[[TrustedCatalogue], Mapping[str, Key]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where metadata comes from, and which public keys may sign assignments."""

    mirror: Mirror
    keys: Keys
    build_s: float = BUILT_S
    options: DownloadOptions | None = None
    limits: TransferLimits | None = None


class Fetcher:
    """Looks up what is signed for, and fetches it.

    Raises:
        StartError: the root of the settings cannot be read.
    """

    def __init__(
        self,
        place: Place,
        shelf: Shelf,
        sources: Sources,
        *,
        clock: Clock,
        metrics: UpdateMetrics,
    ) -> None:
        self._place, self._shelf, self._sources = place, shelf, sources
        self._clock, self._metrics = clock, metrics
        self._catalogue: TrustedCatalogue | None = None
        root = Path(place.updates.root)
        try:
            self._root = root.read_bytes()
        except OSError as error:
            raise StartError(
                f"the root of the catalogue {root} cannot be read: {error.strerror}; set "
                "updates.root to the file that came with this device"
            ) from error

    @property
    def catalogue(self) -> TrustedCatalogue:
        """What was verified.

        Raises:
            RuntimeError: ``open`` has not been called.
        """
        if self._catalogue is None:
            raise RuntimeError("the catalogue is not open")
        return self._catalogue

    def open(self) -> None:
        """Reads what was verified before; blocks.

        Raises:
            SecurityError: the root of the settings is none.
            StorageError: the folder cannot be used.
        """
        if self._catalogue is None:
            self._catalogue = TrustedCatalogue(
                LocalFiles(Path(self._place.state.folder) / CATALOGUE),
                self._shelf.store,
                self._sources.mirror,
                root=self._root,
                clock=self._clock,
                build_s=self._sources.build_s,
                regions=(self._place.identity.region,),
            )

    def keys(self) -> Mapping[str, Key]:
        """Who may sign assignments."""
        return self._sources.keys(self.catalogue)

    def now_s(self) -> float:
        """What time it is at least, in seconds since 1970."""
        floor_s = time_floor_s(self._shelf.store.record, self._sources.build_s)
        return trusted_now_s(self._clock.wall_s(), floor_s)

    async def refresh(self) -> None:
        """Asks for what is new; the errors of ``TrustedCatalogue.refresh``."""
        try:
            await in_thread(self.catalogue.refresh)
        except TierwiseError as error:
            self._metrics.count_refresh(error.code)
            raise
        self._metrics.count_refresh("fresh")

    async def fetch(self, release: Release) -> None:
        """Fetches the files of a release that are not here; goes on where it was ended before.

        Raises:
            ExpiredError: what is signed has expired; nothing new is fetched by it.
            NoRoomError: it does not fit.
            StorageError: the disk failed.
            UnavailableError: no mirror has it now.
        """
        store, slot = self._shelf.store, self._shelf.slot
        missing = await in_thread(store.missing, release)
        if missing and not self.catalogue.may_fetch:
            raise ExpiredError("the catalogue has expired: nothing new is fetched by it")
        base = answering(slot)
        old = base.files if base else {}
        wanted = [Wanted(release.manifest)]
        wanted += [Wanted(file, old.get(name)) for name, file in release.files.items()]
        async with client_session() as session:
            transfer = Transfer(session, self._clock, self._sources.limits)
            client = BlobClient(
                transfer,
                store.blobs,
                self._place.updates.urls,
                check_room=store.check_bytes,
                options=self._sources.options,
            )
            try:
                report = await client.fetch(wanted)
            finally:
                self._metrics.count_downloaded(transfer.received_bytes)
        for one in report.files:
            if any(it.trouble is Trouble.DIGEST_MISMATCH for it in one.setbacks):
                self._metrics.count_refusal(Trouble.DIGEST_MISMATCH)
        report.raise_for_failure()
