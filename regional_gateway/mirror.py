"""A pull-through mirror: what devices of a region ask for is fetched from above once, and kept.

Rules of this file:
  * a file is fetched once, whoever asks for it and however many; who would have to wait for long is
    told to come again;
  * what arrives is verified against its digest before anybody gets a byte of it;
  * without the tier above it serves what it has; what it has not is refused at once, not late;
  * that the tier above does not know a file is remembered for a moment, so that strangers' digests
    are no load there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from prometheus_client import CollectorRegistry

from regional_gateway.mirror_documents import MirrorDocuments
from regional_gateway.mirror_store import MirroredFile, MirrorStore
from runtime.adapters.blob_client import BlobClient, DownloadOptions, Wanted
from runtime.adapters.blob_transfer import Transfer, TransferError, TransferLimits
from runtime.adapters.off_loop import in_thread
from runtime.adapters.transfer_metrics import TransferMetrics
from runtime.core.mirrors import Patience, Trouble
from runtime.errors import OverloadedError, TierwiseError, UnavailableError
from runtime.logs import get_logger
from runtime.manifest import ModelFile
from runtime.ports import Clock
from runtime.ports_updates import OpenBlob

MAX_UNKNOWN = 1024


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """``wait_s`` is how long a request waits for its file to arrive before it is sent away.

    ``max_pulls`` files arrive at a time, ``max_queue`` may be asked for; what the tier above does
    not know is not asked again for ``unknown_s``.
    """

    wait_s: float = 5.0
    max_pulls: int = 2
    max_queue: int = 64
    unknown_s: float = 10.0
    refresh_s: float = 300.0
    transfer: TransferLimits = field(default_factory=TransferLimits)
    download: DownloadOptions = field(
        default_factory=lambda: DownloadOptions(Patience(tries=3, rounds=1, busy_waits=30))
    )


class Mirror:
    """Implements ``Repository`` on top of a store and the tier above (``upstream``, a base URL)."""

    def __init__(
        self,
        store: MirrorStore,
        session: aiohttp.ClientSession,
        upstream: str,
        clock: Clock,
        options: MirrorOptions | None = None,
        *,
        metrics: TransferMetrics | None = None,
    ) -> None:
        self._metrics = metrics or TransferMetrics("tierwise", CollectorRegistry())
        self._store, self._session, self._clock = store, session, clock
        self._upstream = upstream.rstrip("/")
        self._options = options or MirrorOptions()
        self._documents = MirrorDocuments(store, self._transfer, f"{self._upstream}/updates")
        self._pulls: dict[str, asyncio.Task[bool]] = {}
        self._places = asyncio.Semaphore(self._options.max_pulls)
        self._unknown: dict[str, float] = {}
        self._log = get_logger(upstream=self._upstream)
        self.num_pulls = 0

    @asynccontextmanager
    async def open(self, sha256: str, *, only_here: bool = False) -> AsyncIterator[OpenBlob | None]:
        """See the port; it may be fetched for this."""
        with self._store.serving(sha256):
            file = await self._here(sha256)
            if file is None and not only_here and await self._pulled(sha256):
                file = self._store.file(sha256)
            yield None if file is None else _Served(MirroredFile(self._store.blobs, file))

    async def document(self, path: str) -> bytes | None:
        """See the port."""
        return await self._documents.document(path)

    def pin(self, owner: str, digests: Collection[str]) -> None:
        """Never gives these up while ``owner`` names them; replaces what it has named before."""
        self._store.pin(owner, digests)

    async def prefetch(self, digests: Collection[str]) -> Mapping[str, str]:
        """Pins these as the prefetch list, and fetches what is not here; before a window opens.

        Returns:
            why not, for each digest that is not here afterwards.
        """
        self.pin("prefetch", digests)
        missed: dict[str, str] = {}
        for sha256 in dict.fromkeys(digests):
            try:
                if await self._here(sha256) is None and not await self._pulled(
                    sha256, patient=True
                ):
                    missed[sha256] = "the tier above does not know it"
            except (UnavailableError, OverloadedError) as error:
                missed[sha256] = str(error)
        return missed

    async def run(self) -> None:
        """Refreshes metadata until cancelled; a failure is logged once, and so is the recovery."""
        is_well = True
        while True:
            try:
                await self._documents.refresh()
            except (UnavailableError, OverloadedError) as error:
                if is_well:
                    self._log.warning("metadata.not_refreshed", error=str(error))
                is_well = False
            else:
                if not is_well:
                    self._log.info("metadata.refreshed_again")
                is_well = True
            # Gateways that start together do not ask together.
            jitter = random.uniform(0.9, 1.1)  # noqa: S311
            await asyncio.sleep(self._options.refresh_s * jitter)

    async def refresh(self) -> None:
        """Fetches the newest metadata now.

        Raises:
            UnavailableError: it is not to be had; what was here stays in force.
        """
        await self._documents.refresh()

    async def close(self) -> None:
        """Ends what is arriving; it goes on there in the next life."""
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    async def _here(self, sha256: str) -> ModelFile | None:
        file = self._store.file(sha256)
        if file is None or await in_thread(self._store.is_intact, file):
            return file
        self._store.forget(file)
        return None

    async def _pulled(self, sha256: str, *, patient: bool = False) -> bool:
        """Whether it is here now; False where the tier above does not know it."""
        if self._clock.monotonic_s() < self._unknown.get(sha256, float("-inf")):
            return False
        pull = self._pulls.get(sha256)
        if pull is None:
            if len(self._pulls) >= self._options.max_queue:
                raise OverloadedError(
                    f"{len(self._pulls)} files are arriving: come again later",
                    retry_after_ms=self._options.wait_s * 1000,
                )
            pull = asyncio.create_task(self._pull(sha256), name=f"pull.{sha256[:12]}")
            self._pulls[sha256] = pull
            pull.add_done_callback(self._ended(sha256))
        done, _ = await asyncio.wait({pull}, timeout=None if patient else self._options.wait_s)
        if not done:
            raise OverloadedError(
                f"{sha256} is on its way: come again later",
                retry_after_ms=self._options.wait_s * 1000,
            )
        if pull.cancelled():
            raise UnavailableError("the mirror is closing: ask another one")
        return pull.result()

    def _ended(self, sha256: str) -> Callable[[asyncio.Task[bool]], None]:
        def note(pull: asyncio.Task[bool]) -> None:
            del self._pulls[sha256]
            error = None if pull.cancelled() else pull.exception()
            if pull.cancelled() or error is not None:
                self._metrics.count_pull("failed")
            if isinstance(error, TierwiseError):
                self._log.warning("pull.failed", sha256=sha256, error=str(error))
            elif error is not None:
                self._log.error("pull.crashed", sha256=sha256, exc_info=error)

        return note

    async def _pull(self, sha256: str) -> bool:
        async with self._places:
            url = f"{self._upstream}/updates/blobs/{sha256}"
            transfer = self._transfer()
            try:
                size_bytes = await transfer.size_bytes(url, sha256)
            except TransferError as error:
                if error.trouble is Trouble.WITHHELD:
                    self._note_unknown(sha256)
                    self._metrics.count_pull("unknown")
                    return False
                if error.trouble is Trouble.BUSY:
                    raise OverloadedError(
                        f"{sha256} is on its way to the tier above: come again later",
                        retry_after_ms=error.retry_after_s * 1000,
                    ) from error
                raise
            file = ModelFile(sha256, size_bytes)
            with self._store.arriving(file):
                self.num_pulls += 1
                client = BlobClient(
                    transfer,
                    self._store.blobs,
                    [self._upstream],
                    check_room=lambda _num_bytes: None,
                    options=self._options.download,
                )
                report = await client.fetch([Wanted(file)])
            report.raise_for_failure()
            self._metrics.count_pull("complete", report.wire_bytes)
            self._log.info("file.mirrored", sha256=sha256, wire_bytes=report.wire_bytes)
            return True

    def _note_unknown(self, sha256: str) -> None:
        self._unknown[sha256] = self._clock.monotonic_s() + self._options.unknown_s
        while len(self._unknown) > MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    def _transfer(self) -> Transfer:
        return Transfer(self._session, self._clock, self._options.transfer)


class _Served:
    """A mirrored file, read in threads."""

    def __init__(self, file: MirroredFile) -> None:
        self._file = file

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    async def read(self, offset_bytes: int, limit_bytes: int) -> bytes:
        return await in_thread(self._file.read_now, offset_bytes, limit_bytes)
