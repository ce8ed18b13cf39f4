"""The mirror of model files as a part of the gateway: from settings to store, server, schedule."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from regional_gateway.mirror import Mirror, MirrorOptions
from regional_gateway.mirror_store import MirrorStore
from runtime.adapters.blob_server import BlobServer, ServerLimits
from runtime.adapters.blob_transfer import TransferLimits, client_session
from runtime.adapters.delta_maker import DeltaMaker
from runtime.ports import Clock
from runtime.update_settings import MirrorSettings


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A mirror that runs, and the server in front of it."""

    mirror: Mirror
    server: BlobServer


@asynccontextmanager
async def mirrored(
    settings: MirrorSettings, state: Path, clock: Clock
) -> AsyncIterator[Mirrored | None]:
    """The mirror, refreshed until it is left; None where there is to be none.

    Raises:
        StartError: another process has its folder.
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
        mirror = Mirror(store, session, settings.upstream_url, clock, options)
        stack.push_async_callback(mirror.close)
        deltas = None
        if settings.delta_max_bytes:
            deltas = DeltaMaker(mirror, folder / "deltas", max_bytes=settings.delta_max_bytes)
            stack.push_async_callback(deltas.close)
        refreshing = asyncio.create_task(mirror.run(), name="mirror.refresh")
        stack.push_async_callback(_ended, refreshing)
        limits = ServerLimits(settings.max_bytes_per_s, settings.max_transfers)
        yield Mirrored(mirror, BlobServer(mirror, clock, limits, deltas))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
