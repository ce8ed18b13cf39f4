"""A gateway's mirror: fetched once, served to many, also while nobody is above."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fakes.blobs import HASTY, QUICK, Counted, Device, file_of, noise, publish, source
from fakes.mirrors import GONE, OPTIONS, get, region
from fakes.simulated_files import SimulatedFiles
from fakes.waiting import eventually
from regional_gateway.mirror import Mirror, MirrorOptions
from regional_gateway.mirror_store import MirrorStore
from runtime.adapters.blob_client import Wanted
from runtime.adapters.blob_server import ServerLimits
from runtime.adapters.blob_transfer import TransferLimits, client_session
from runtime.adapters.clock import SystemClock
from runtime.core.mirrors import Trouble
from runtime.errors import NoRoomError, StartError

CONTENTS = noise(400_000)
FILE = file_of(CONTENTS)


@pytest.fixture
async def above(tmp_path: Path) -> AsyncIterator[Counted]:
    publish(tmp_path / "cloud", CONTENTS)
    async with source(tmp_path / "cloud") as counted:
        yield counted


def blob_url(base: str, sha256: str = FILE.sha256) -> str:
    return f"{base}/updates/blobs/{sha256}"


def num_fetched(above: Counted) -> int:
    return above.requests.count(f"GET /updates/blobs/{FILE.sha256}")


class TestFiles:
    async def test_two_hundred_devices_are_one_fetch(self, above: Counted, tmp_path: Path) -> None:
        many = ServerLimits(max_transfers=200)
        async with (
            region(tmp_path / "mirror", above.url, limits=many) as one,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):

            async def ask() -> bytes:
                async with session.get(blob_url(one.url)) as response:
                    return await response.read()

            bodies = await asyncio.gather(*(ask() for _ in range(200)))

        assert set(bodies) == {CONTENTS}
        assert num_fetched(above) == 1

    async def test_it_serves_on_when_the_cloud_is_gone(self, tmp_path: Path) -> None:
        publish(tmp_path / "cloud", CONTENTS)
        async with source(tmp_path / "cloud") as above, client_session() as session:
            store = MirrorStore.at(tmp_path / "mirror", max_bytes=10_000_000)
            mirror = Mirror(store, session, above.url, SystemClock(), OPTIONS)
            assert await mirror.prefetch([FILE.sha256]) == {}
            await mirror.close()
            store.close()
        async with region(tmp_path / "mirror", GONE) as one:
            assert await get(blob_url(one.url)) == (200, CONTENTS)
            # What it has not is refused at once, so that a device asks another mirror.
            assert (await get(blob_url(one.url, "0" * 64)))[0] == 502

    async def test_the_cloud_dies_in_the_middle_and_the_rest_comes_later(
        self, tmp_path: Path
    ) -> None:
        slow = MirrorOptions(download=HASTY, transfer=TransferLimits(max_bytes_per_s=2_000_000))
        publish(tmp_path / "cloud", large := noise(4_000_000))
        file = file_of(large)
        async with source(tmp_path / "cloud") as above, client_session() as session:
            store = MirrorStore.at(tmp_path / "mirror", max_bytes=10_000_000)
            mirror = Mirror(store, session, above.url, SystemClock(), slow)
            pulling = asyncio.create_task(mirror.prefetch([file.sha256]))
            await eventually(lambda: store.blobs.offset_bytes(file) > 0)
            # The mirror ends in the middle, and the cloud with it.
            await mirror.close()
            assert file.sha256 in await pulling
            store.close()
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url) as one,
        ):
            kept = one.store.blobs.offset_bytes(file)
            assert await get(blob_url(one.url, file.sha256)) == (200, large)
            assert above.server is not None
            assert above.server.sent_bytes == len(large) - kept
        assert kept > 0

    async def test_what_nobody_knows_is_asked_once(self, above: Counted, tmp_path: Path) -> None:
        async with region(tmp_path / "mirror", above.url) as one:
            statuses = [(await get(blob_url(one.url, "0" * 64)))[0] for _ in range(3)]

        assert statuses == [404] * 3
        assert above.requests == [f"HEAD /updates/blobs/{'0' * 64}"]

    async def test_a_prefetch_says_what_is_missing(self, above: Counted, tmp_path: Path) -> None:
        async with region(tmp_path / "mirror", above.url) as one:
            missed = await one.mirror.prefetch([FILE.sha256, "0" * 64, FILE.sha256])
            assert missed == {"0" * 64: "the tier above does not know it"}
        async with region(tmp_path / "mirror", GONE) as one:
            missed = await one.mirror.prefetch([FILE.sha256, "0" * 64])
            assert list(missed) == ["0" * 64]
            assert "no connection" in missed["0" * 64]
        assert num_fetched(above) == 1

    async def test_a_gateway_of_gateways_is_a_mirror_of_a_mirror(
        self, above: Counted, tmp_path: Path
    ) -> None:
        hasty = MirrorOptions(wait_s=0.01, download=HASTY, transfer=QUICK)
        async with (
            region(tmp_path / "upper", above.url, options=hasty) as upper,
            region(tmp_path / "lower", upper.url, options=hasty) as lower,
            Device(tmp_path / "device", lower.url) as device,
        ):
            report = await device.client.fetch([Wanted(FILE)])

            assert device.contents(FILE) == CONTENTS
        assert report.is_complete
        assert num_fetched(above) == 1

    async def test_a_device_that_would_wait_for_long_is_told_to_come_again(
        self, above: Counted, tmp_path: Path
    ) -> None:
        options = MirrorOptions(
            wait_s=0.05, download=HASTY, transfer=TransferLimits(max_bytes_per_s=1_000_000)
        )
        async with (
            region(tmp_path / "mirror", above.url, options=options) as one,
            Device(tmp_path / "device", one.url) as device,
        ):
            report = await device.client.fetch([Wanted(FILE)])

            assert device.contents(FILE) == CONTENTS
        assert {it.trouble for it in report.files[0].setbacks} == {Trouble.BUSY}
        assert num_fetched(above) == 1

    async def test_another_file_from_above_reaches_nobody(self, tmp_path: Path) -> None:
        publish(tmp_path / "cloud", CONTENTS)
        (tmp_path / "cloud" / "blobs" / FILE.sha256).write_bytes(noise(400_000, seed=2))
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url) as one,
        ):
            assert (await get(blob_url(one.url)))[0] == 502
            assert one.store.file(FILE.sha256) is None

    async def test_a_rotten_file_is_fetched_anew(self, above: Counted, tmp_path: Path) -> None:
        async with region(tmp_path / "mirror", above.url) as one:
            await get(blob_url(one.url))
        path = tmp_path / "mirror" / "blobs" / FILE.sha256
        path.chmod(0o644)
        path.write_bytes(noise(400_000, seed=3))

        async with region(tmp_path / "mirror", above.url) as one:
            assert await get(blob_url(one.url)) == (200, CONTENTS)
        assert num_fetched(above) == 2


class TestQuota:
    async def test_the_least_recently_used_goes_never_what_is_pinned(self, tmp_path: Path) -> None:
        contents = [noise(100_000, seed) for seed in range(4)]
        files = publish(tmp_path / "cloud", *contents)
        first, second, third, fourth = (file.sha256 for file in files)
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url, max_bytes=300_000) as one,
        ):
            one.mirror.pin("assignments", [first])
            for sha256 in (first, second, third):
                await get(blob_url(one.url, sha256))
            await get(blob_url(one.url, second))

            await get(blob_url(one.url, fourth))

            everything = (first, second, third, fourth)
            kept = [sha256 for sha256 in everything if one.store.file(sha256)]
            assert kept == [first, second, fourth]
            assert one.store.used_bytes == 300_000

    async def test_where_all_is_pinned_there_is_no_room_and_nothing_is_lost(
        self, tmp_path: Path
    ) -> None:
        files = publish(tmp_path / "cloud", noise(100_000, 1), noise(100_000, 2))
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url, max_bytes=150_000) as one,
        ):
            first, second = (file.sha256 for file in files)

            missed = await one.mirror.prefetch([first, second])

            assert list(missed) == [second]
            assert "do not fit into the mirror" in missed[second]
            assert (await get(blob_url(one.url, second)))[0] == 507
            assert (await get(blob_url(one.url, first)))[0] == 200

    async def test_a_full_disk_is_told_and_passes(self, above: Counted) -> None:
        files = SimulatedFiles()
        async with region(files, above.url) as one:

            def full(what: str, path: str) -> None:
                if what == "append" and path.startswith("partial"):
                    raise OSError(errno.ENOSPC, "no space left")

            files.on_step = full
            assert (await get(blob_url(one.url)))[0] == 507
            files.on_step = lambda _what, _path: None

            assert await get(blob_url(one.url)) == (200, CONTENTS)

    async def test_the_disk_keeps_its_reserve(self, above: Counted) -> None:
        async with region(SimulatedFiles(free_bytes=1000), above.url) as one:
            assert (await get(blob_url(one.url)))[0] == 507
        assert num_fetched(above) == 0

    async def test_one_folder_is_one_mirrors(self, tmp_path: Path) -> None:
        store = MirrorStore.at(tmp_path, max_bytes=1)
        with pytest.raises(StartError, match="another process has the mirror"):
            MirrorStore.at(tmp_path, max_bytes=1)
        store.close()
        MirrorStore.at(tmp_path, max_bytes=1).close()

    def test_documents_have_a_bound_of_their_own(self) -> None:
        store = MirrorStore(SimulatedFiles(), max_bytes=1)
        size = 20 << 20
        store.keep_document("metadata/1.root.json", bytes(size))
        store.keep_document("metadata/1.snapshot.json", bytes(size))
        store.keep_document("metadata/2.snapshot.json", bytes(size))
        store.keep_document("metadata/3.snapshot.json", bytes(size), {"metadata/2.snapshot.json"})

        assert store.document("metadata/1.snapshot.json") is None
        assert store.document("metadata/1.root.json") is not None
        with pytest.raises(NoRoomError):
            store.keep_document(
                "metadata/4.snapshot.json",
                bytes(size),
                {"metadata/2.snapshot.json", "metadata/3.snapshot.json"},
            )
