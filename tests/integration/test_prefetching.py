"""What is announced is at the gateway before a device asks for it, and stays there."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from fakes import blobs
from fakes.assigned import Desk, Gateway, assigned, retained
from fakes.blobs import Counted, source
from fakes.catalogue import Cloud, Device, entry
from fakes.mirrors import GONE
from fakes.waiting import eventually
from regional_gateway.entries import digests_of
from regional_gateway.prefetching import Prefetcher
from regional_gateway.updates import Mirrored, mirrored, prefetching
from runtime import topics
from runtime.adapters.blob_client import Wanted
from runtime.adapters.clock import SystemClock
from runtime.adapters.http_mirror import HttpMirror
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.off_loop import in_thread
from runtime.assignments import Announcement, encode
from runtime.errors import StartError
from runtime.update_settings import MirrorSettings


@dataclass
class Stage:
    """A cloud with a repository, a gateway with a mirror of it, and their two brokers."""

    cloud: Cloud
    source: Counted
    updates: Mirrored
    gateway: Gateway
    desk: Desk
    device: Desk
    url: str
    above: AsyncExitStack

    def announce(self, *paths: str, region: str = "r", to: str = "r") -> None:
        payload = encode(Announcement(region, paths))
        self.desk.bus.publish(retained(topics.announcement("cloud", to), payload))

    def counted(self, result: str) -> float:
        text = self.gateway.metrics.render()[0].decode()
        line = f'tierwise_regional_prefetches_total{{result="{result}"}} '
        return sum(
            float(one.removeprefix(line)) for one in text.splitlines() if one.startswith(line)
        )

    def has(self, version: int) -> bool:
        """Whether all files of a version have arrived from above."""
        asked = set(self.source.requests)
        return all(f"GET /updates/blobs/{one}" in asked for one in digests_of(entry(version)))


@asynccontextmanager
async def stage(
    tmp_path: Path,
    stack: AsyncExitStack,
    cloud: Cloud,
    *,
    is_verified: bool = True,
    below: tuple[str, ...] = (),
    **settings: object,
) -> AsyncIterator[Stage]:
    root = tmp_path / "root.json"
    root.write_bytes(cloud.root)
    above, here = MemoryBroker(), MemoryBroker()
    desk = await Desk(above, "nothing").start(stack)
    device = await Desk(here, "tierwise/v1/r/#", name="device").start(stack)
    gateway = Gateway(above, here, tmp_path / "control", below=below)
    above_stack = await stack.enter_async_context(AsyncExitStack())
    counted = await above_stack.enter_async_context(source(cloud.folder))
    chosen = MirrorSettings(
        upstream_url=counted.url,
        root=str(root) if is_verified else "",
        refresh_interval_s=3600,
        **settings,  # type: ignore[arg-type]
    )
    updates = await stack.enter_async_context(
        mirrored(
            chosen,
            tmp_path / "state",
            SystemClock(),
            ("r", *below),
            metrics=TierMetrics("regional"),
        )
    )
    assert updates is not None
    # The schedule's own first refresh is over: what follows comes from announcements.
    await eventually(lambda: "GET /updates/metadata/timestamp.json" in counted.requests)
    prefetcher = Prefetcher(
        updates.mirror,
        updates.entries,
        gateway.bus,
        region="r",
        metrics=gateway.metrics.relays,
        assigned=gateway.relay.paths,
        below=below,
        max_wait_s=0.05,
    )
    gateway.relay.watch(prefetcher.wake)
    prefetcher.listen(gateway.up_bus, "cloud")
    await stack.enter_async_context(prefetching(prefetcher))
    await gateway.start(stack)
    app = web.Application()
    updates.server.add_routes(app)
    url = await stack.enter_async_context(serving(app, "127.0.0.1", 0))
    yield Stage(cloud, counted, updates, gateway, desk, device, url, above_stack)


both = pytest.mark.parametrize("is_verified", [True, False])


@both
async def test_after_the_prefetch_devices_need_no_cloud(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path, is_verified: bool
) -> None:
    cloud.publish(2)
    async with stage(tmp_path, stack, cloud, is_verified=is_verified) as one:
        one.announce("m/2.json")
        await eventually(lambda: one.counted("complete") == 1)
        await one.above.aclose()
        shutil.rmtree(cloud.folder)

        device = Device(tmp_path / "device", HttpMirror([one.url]), cloud.root)
        await in_thread(device.catalogue.refresh)
        found = await in_thread(device.catalogue.entry, "m/2.json")
        async with blobs.Device(tmp_path / "blobs", one.url) as arriving:
            release = found.release("cpu")
            report = await arriving.client.fetch([Wanted(f) for f in release.blobs.values()])
        device.store.close()

    assert found == entry(2)
    assert report.is_complete


@both
async def test_what_is_published_after_the_last_refresh_is_found_all_the_same(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path, is_verified: bool
) -> None:
    async with stage(tmp_path, stack, cloud, is_verified=is_verified) as one:
        one.announce("m/2.json")
        await eventually(lambda: one.counted("incomplete") > 0)
        assert one.counted("complete") == 0

        cloud.publish(2)

        await eventually(lambda: one.counted("complete") == 1)
        assert one.has(2)
        assert not one.has(1)


@both
async def test_a_region_s_own_entries_are_fetched_too(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path, is_verified: bool
) -> None:
    cloud.add_region("r")
    path = cloud.publish(1, model="head", region="r")
    async with stage(tmp_path, stack, cloud, is_verified=is_verified) as one:
        one.announce(path, "m/1.json")

        await eventually(lambda: one.counted("complete") == 1)


async def test_what_is_prefetched_or_assigned_is_pinned_and_released_when_it_is_cleared(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path
) -> None:
    cloud.publish(2)
    async with stage(tmp_path, stack, cloud) as one:
        pins = one.updates.mirror._store._pins
        one.announce("m/2.json")
        one.desk.say(assigned(1, path="m/1.json"))
        await eventually(lambda: pins.get("assignments") == digests_of(entry(1)))
        await eventually(lambda: pins.get("prefetch") == digests_of(entry(2)))

        one.desk.say(b"")
        one.desk.bus.publish(retained(topics.announcement("cloud", "r"), b""))

        await eventually(lambda: not pins["assignments"] and not pins["prefetch"])


async def test_what_the_catalogue_does_not_name_is_not_fetched(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path
) -> None:
    async with stage(tmp_path, stack, cloud) as one:
        one.announce("m/9.json", "../../etc/passwd", "m/1.json")
        await eventually(lambda: one.counted("incomplete") >= 2)

        assert one.has(1)
        assert not [asked for asked in one.source.requests if "passwd" in asked]


async def test_a_catalogue_that_does_not_verify_leads_to_nothing(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path
) -> None:
    other = Cloud(tmp_path / "other")
    other.publish(1)
    (cloud.folder / "metadata").rename(tmp_path / "true")
    (other.folder / "metadata").rename(cloud.folder / "metadata")
    async with stage(tmp_path, stack, cloud) as one:
        one.announce("m/1.json")

        await eventually(lambda: one.counted("incomplete") >= 2)
        assert not one.has(1)


@pytest.mark.parametrize(
    "payload", [b"garbage", encode(Announcement("elsewhere", ("m/1.json",))), b"x" * 20_000]
)
async def test_what_is_no_announcement_is_counted(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path, payload: bytes
) -> None:
    async with stage(tmp_path, stack, cloud) as one:
        one.desk.bus.publish(retained(topics.announcement("cloud", "r"), payload))

        await eventually(lambda: one.counted("malformed") == 1)
        assert not one.has(1)


async def test_announcements_for_regions_below_are_met_and_passed_on(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path
) -> None:
    async with stage(tmp_path, stack, cloud, below=("plant",)) as one:
        one.announce("m/1.json", region="plant", to="plant")

        await eventually(lambda: one.counted("complete") == 1)
        topic = topics.announcement("r", "plant")
        await eventually(lambda: topic in one.device.heard)
        assert one.device.heard[topic] == encode(Announcement("plant", ("m/1.json",)))


@pytest.mark.parametrize("root", ["missing.json", "garbage.json"])
async def test_a_root_that_is_none_is_a_start_error(tmp_path: Path, root: str) -> None:
    (tmp_path / "garbage.json").write_bytes(b"{}")
    settings = MirrorSettings(upstream_url=GONE, root=str(tmp_path / root))

    with pytest.raises(StartError, match=r"updates\.root"):
        async with mirrored(
            settings, tmp_path / "state", SystemClock(), metrics=TierMetrics("regional")
        ):
            raise AssertionError


@both
async def test_what_cannot_be_looked_up_without_the_cloud_is_incomplete(
    cloud: Cloud, stack: AsyncExitStack, tmp_path: Path, is_verified: bool
) -> None:
    async with stage(tmp_path, stack, cloud, is_verified=is_verified) as one:
        await one.above.aclose()
        one.announce("m/1.json", "m/9.json")

        await eventually(lambda: one.counted("incomplete") >= 2)
        assert one.counted("complete") == 0
