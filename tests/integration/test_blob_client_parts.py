"""A download's deltas, its room on the disk, and its pace, over real HTTP."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from fakes.blobs import Device, Hostile, file_of, noise, publish, source
from fakes.installs import made
from fakes.simulated_files import SimulatedFiles
from fakes.waiting import eventually
from runtime.adapters.blob_client import BlobClient, DownloadOptions, Wanted
from runtime.adapters.blob_report import How
from runtime.adapters.blob_server import ServerLimits
from runtime.adapters.blob_source import FolderRepository
from runtime.adapters.blob_transfer import TransferLimits
from runtime.adapters.delta_maker import DeltaMaker
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.model_store import ModelStore
from runtime.core.mirrors import Trouble
from runtime.delta import make_delta
from runtime.errors import NoRoomError

CONTENTS = noise(400_000)
FILE = file_of(CONTENTS)
OLD = CONTENTS[:200_000] + noise(20_000, seed=5) + CONTENTS[220_000:]


@pytest.fixture
async def good(tmp_path: Path) -> AsyncIterator[str]:
    publish(tmp_path / "good", CONTENTS, OLD)
    async with source(tmp_path / "good") as counted:
        yield counted.url


class TestDelta:
    async def test_it_takes_less_and_gives_the_same(self, tmp_path: Path) -> None:
        publish(tmp_path / "good", CONTENTS, OLD)
        maker = DeltaMaker(
            FolderRepository(tmp_path / "good"), tmp_path / "deltas", max_bytes=1 << 20
        )
        async with source(tmp_path / "good", deltas=maker) as counted:
            # Making a delta takes a process, which a busy machine takes long to start.
            limits = TransferLimits(patience_s=10.0, min_bytes_per_s=1)
            async with Device(tmp_path / "device", counted.url, limits=limits) as device:
                device.blobs.put(file_of(OLD), OLD)

                report = await device.client.fetch([Wanted(FILE, file_of(OLD))])

                assert device.contents(FILE) == CONTENTS
            await maker.close()
        (one,) = report.files
        assert one.how is How.DELTA
        assert 0 < one.wire_bytes < 0.2 * FILE.size_bytes

    @pytest.mark.parametrize(
        "delta",
        [
            b"",
            b"not a delta",
            make_delta(noise(100, seed=8), CONTENTS)[:50_000],
            make_delta(OLD, noise(400_000, seed=6))[:9_000],
            make_delta(OLD, bytes(400_000)),
            make_delta(OLD, CONTENTS)[:-7],
            make_delta(OLD, CONTENTS) + b"more",
        ],
    )
    async def test_whatever_is_wrong_with_it_the_full_file_follows(
        self, delta: bytes, tmp_path: Path
    ) -> None:
        async def honest(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
            return web.Response(body=contents)

        hostile = Hostile(CONTENTS, honest, delta=delta)
        async with hostile.serving() as url, Device(tmp_path / "device", url) as device:
            device.blobs.put(file_of(OLD), OLD)

            report = await device.client.fetch([Wanted(FILE, file_of(OLD))])

            assert device.contents(FILE) == CONTENTS
        (one,) = report.files
        assert one.how is How.FULL
        assert [it.trouble for it in one.setbacks] == [Trouble.BAD_DELTA]

    async def test_one_that_is_still_being_made_is_waited_for(self, tmp_path: Path) -> None:
        publish(tmp_path / "good", CONTENTS, OLD)
        repository = FolderRepository(tmp_path / "good")
        maker = DeltaMaker(repository, tmp_path / "deltas", max_bytes=1 << 20, wait_s=0.001)
        patient = DownloadOptions(min_wait_s=1.0, max_wait_s=2.0)
        async with (
            source(tmp_path / "good", deltas=maker) as counted,
            Device(tmp_path / "device", counted.url, options=patient) as device,
        ):
            device.blobs.put(file_of(OLD), OLD)

            report = await device.client.fetch([Wanted(FILE, file_of(OLD))])

            await maker.close()
        assert report.files[0].how is How.DELTA
        assert report.files[0].attempts > 1

    async def test_one_that_is_larger_than_worthwhile_is_not_even_read(
        self, tmp_path: Path
    ) -> None:
        async def honest(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
            return web.Response(body=contents)

        hostile = Hostile(CONTENTS, honest, delta=bytes(50_000_000))
        async with hostile.serving() as url, Device(tmp_path / "device", url) as device:
            device.blobs.put(file_of(OLD), OLD)

            report = await device.client.fetch([Wanted(FILE, file_of(OLD))])

        assert report.is_complete
        assert report.wire_bytes == FILE.size_bytes


class TestRoom:
    async def test_it_is_asked_for_first(self, good: str, tmp_path: Path) -> None:
        def refuse(num_bytes: int) -> None:
            raise NoRoomError(f"{num_bytes} do not fit")

        async with Device(tmp_path / "device", good, check_room=refuse) as device:
            with pytest.raises(NoRoomError, match="400000 do not fit"):
                await device.client.fetch([Wanted(FILE)])
            assert device.transfer.received_bytes == 0

    async def test_a_disk_that_fills_up_is_no_mirrors_fault(self, good: str) -> None:
        files = SimulatedFiles()

        def full(what: str, path: str) -> None:
            if what == "append" and path.startswith("partial"):
                raise OSError(errno.ENOSPC, "no space left")

        files.on_step = full
        async with Device(files, good) as device:
            with pytest.raises(NoRoomError, match="no space left"):
                await device.client.fetch([Wanted(FILE)])
            files.on_step = lambda _what, _path: None

            report = await device.client.fetch([Wanted(FILE)])

            assert device.contents(FILE) == CONTENTS
        assert report.is_complete

    async def test_a_store_takes_a_release(self, tmp_path: Path) -> None:
        wanted = made(1)
        publish(tmp_path / "good", *wanted.contents.values())
        async with (
            source(tmp_path / "good") as counted,
            Device(tmp_path / "unused", "http://unused") as device,
        ):
            with ModelStore(LocalFiles(tmp_path / "store"), reserve_bytes=0) as store:
                client = BlobClient(
                    device.transfer, store.blobs, [counted.url], check_room=store.check_bytes
                )
                files = [Wanted(file) for file in wanted.release.blobs.values()]

                report = await client.fetch(files)

                assert store.missing(wanted.release) == ()
        assert report.is_complete


class TestPacing:
    async def test_no_more_than_so_many_at_once_and_all_come_in_the_end(
        self, tmp_path: Path
    ) -> None:
        publish(tmp_path / "good", CONTENTS)
        limits = ServerLimits(max_bytes_per_s=4_000_000, max_transfers=2)
        async with source(tmp_path / "good", limits=limits) as counted:
            patient = TransferLimits(patience_s=10, min_bytes_per_s=1000)

            async def one(number: int) -> int:
                async with Device(tmp_path / str(number), counted.url, limits=patient) as device:
                    report = await device.client.fetch([Wanted(FILE)])
                assert report.is_complete
                return sum(it.trouble is Trouble.BUSY for it in report.files[0].setbacks)

            busy = await asyncio.gather(*map(one, range(6)))

        assert sum(busy) > 0

    async def test_a_device_that_reads_nothing_is_cut_off(self, tmp_path: Path) -> None:
        large = noise(30_000_000)
        (file,) = publish(tmp_path / "good", large)
        limits = ServerLimits(max_transfers=1, write_timeout_s=0.2)
        async with source(tmp_path / "good", limits=limits) as counted:
            port = int(counted.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(f"GET /updates/blobs/{file.sha256} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert counted.server is not None
            places = counted.server._files
            await eventually(lambda: places.num_transfers == 1)

            await eventually(lambda: places.num_transfers == 0)

            writer.close()
            del reader
