"""The mirror of model files as a part of the gateway: from settings to store, server, schedule."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from regional_gateway.entries import Entries, LocalMirror, UnverifiedEntries, VerifiedEntries
from regional_gateway.mirror import Mirror, MirrorOptions
from regional_gateway.mirror_store import MirrorStore
from regional_gateway.prefetching import Prefetcher
from runtime.adapters.blob_server import BlobServer, ServerLimits
from runtime.adapters.blob_transfer import TransferLimits, client_session
from runtime.adapters.delta_maker import DeltaMaker
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.model_blobs import storing
from runtime.adapters.model_store import ModelStore
from runtime.adapters.trust import TrustedCatalogue
from runtime.errors import SecurityError, StartError
from runtime.ports import Clock
from runtime.update_settings import MirrorSettings


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A mirror that runs, the server in front of it, and what it knows of the catalogue."""

    mirror: Mirror
    server: BlobServer
    entries: Entries


@asynccontextmanager
async def mirrored(
    settings: MirrorSettings,
    state: Path,
    clock: Clock,
    regions: Collection[str] = (),
    *,
    metrics: TierMetrics,
) -> AsyncIterator[Mirrored | None]:
    """The mirror, refreshed until it is left; None where there is to be none.

    Raises:
        StartError: another process has its folder, or ``updates.root`` is no root.
        StorageError: its folder cannot be used.
    """
    if not settings.upstream_url:
        yield None
        return
    folder = Path(settings.folder) if settings.folder else state / "updates"
    options = MirrorOptions(
        refresh_s=settings.refresh_interval_s,
        transfer=TransferLimits(max_bytes_per_s=settings.upstream_max_bytes_per_s),
    )
    async with AsyncExitStack() as stack:
        store = MirrorStore.at(folder, max_bytes=settings.max_bytes)
        stack.callback(store.close)
        session = await stack.enter_async_context(client_session())
        mirror = Mirror(
            store, session, settings.upstream_url, clock, options, metrics=metrics.transfers
        )
        stack.push_async_callback(mirror.close)
        deltas = None
        if settings.delta_max_bytes:
            deltas = DeltaMaker(mirror, folder / "deltas", max_bytes=settings.delta_max_bytes)
            stack.push_async_callback(deltas.close)
        refreshing = asyncio.create_task(mirror.run(), name="mirror.refresh")
        stack.push_async_callback(_ended, refreshing)
        entries = _entries(settings, folder / "trust", mirror, stack, clock=clock, regions=regions)
        limits = ServerLimits(settings.max_bytes_per_s, settings.max_transfers)
        server = BlobServer(mirror, clock, limits, deltas, metrics=metrics.transfers)
        yield Mirrored(mirror, server, entries)


@asynccontextmanager
async def prefetching(prefetcher: Prefetcher) -> AsyncIterator[None]:
    """Lets it fetch until left."""
    task = asyncio.create_task(prefetcher.run(), name="mirror.prefetch")
    try:
        yield
    finally:
        await _ended(task)


def _entries(
    settings: MirrorSettings,
    folder: Path,
    mirror: Mirror,
    stack: AsyncExitStack,
    *,
    clock: Clock,
    regions: Collection[str],
) -> Entries:
    if not settings.root:
        return UnverifiedEntries(mirror)
    try:
        root = Path(settings.root).read_bytes()
    except OSError as error:
        raise StartError(
            f"updates.root {settings.root} cannot be read: {error.strerror or error}"
        ) from error
    with storing(f"{folder} cannot be used"):
        files = [LocalFiles(folder / name) for name in ("floors", "catalogue")]
    floors = ModelStore(files[0])
    stack.callback(floors.close)
    try:
        catalogue = TrustedCatalogue(
            files[1],
            floors,
            LocalMirror(mirror, asyncio.get_running_loop()),
            root=root,
            clock=clock,
            # A gateway has a clock that is set; when its package was built it does not know.
            build_s=0.0,
            regions=regions,
        )
    except SecurityError as error:
        raise StartError(f"updates.root {settings.root} is no signed root: {error}") from error
    return VerifiedEntries(catalogue)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
