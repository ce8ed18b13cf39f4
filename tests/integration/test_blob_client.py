"""A device downloads from mirrors that nobody trusts, over real HTTP."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import blobs as deeds
from fakes.blobs import Deed, Device, Hostile, file_of, noise, publish, source
from fakes.waiting import eventually
from runtime.adapters.blob_client import DownloadOptions, Wanted
from runtime.adapters.blob_report import How
from runtime.adapters.blob_transfer import TransferLimits
from runtime.core.mirrors import Patience, Trouble
from runtime.errors import UnavailableError

CONTENTS = noise(400_000)
FILE = file_of(CONTENTS)
OLD = CONTENTS[:200_000] + noise(20_000, seed=5) + CONTENTS[220_000:]

HOSTILE: dict[Deed, Trouble] = {
    deeds.flips_a_bit: Trouble.DIGEST_MISMATCH,
    deeds.truncates: Trouble.CUT,
    deeds.ends_early: Trouble.CUT,
    deeds.withholds: Trouble.WITHHELD,
    deeds.replays_another: Trouble.DIGEST_MISMATCH,
    deeds.says_another_tag: Trouble.OTHER_FILE,
    deeds.forbids: Trouble.FORBIDDEN,
    deeds.shows_a_page: Trouble.PAGE,
    deeds.redirects: Trouble.REDIRECTED,
    deeds.drips: Trouble.STALLED,
    deeds.hangs: Trouble.STALLED,
    deeds.never_ends: Trouble.TOO_LONG,
    deeds.says_a_wrong_length: Trouble.WRONG_LENGTH,
    deeds.says_a_wrong_range: Trouble.WRONG_RANGE,
    deeds.encodes: Trouble.UNEXPECTED,
    deeds.fails: Trouble.SERVER_FAILED,
}
every_deed = pytest.mark.parametrize(
    ("deed", "trouble"), HOSTILE.items(), ids=[deed.__name__ for deed in HOSTILE]
)


@pytest.fixture
async def good(tmp_path: Path) -> AsyncIterator[str]:
    publish(tmp_path / "good", CONTENTS, OLD)
    async with source(tmp_path / "good") as counted:
        yield counted.url


class TestHostileGateway:
    @every_deed
    async def test_the_second_mirror_has_the_right_bytes(
        self, deed: Deed, trouble: Trouble, good: str, tmp_path: Path
    ) -> None:
        hostile = Hostile(CONTENTS, deed)
        async with (
            hostile.serving() as bad,
            Device(tmp_path / "device", bad, good) as device,
        ):
            report = await device.client.fetch([Wanted(FILE)])

            assert device.contents(FILE) == CONTENTS
        (one,) = report.files
        assert (one.how, one.mirror) == (How.FULL, good)
        assert {it.trouble for it in one.setbacks if it.mirror == bad} == {trouble}
        # As many bytes as were asked for, whatever was sent.
        assert one.wire_bytes <= one.attempts * (FILE.size_bytes + 65_536)

    @every_deed
    async def test_alone_it_ends_in_a_named_error(
        self, deed: Deed, trouble: Trouble, tmp_path: Path
    ) -> None:
        hostile = Hostile(CONTENTS, deed)
        async with hostile.serving() as bad, Device(tmp_path / "device", bad) as device:
            report = await device.client.fetch([Wanted(FILE), Wanted(file_of(b"next"))])

            assert not device.blobs.has(FILE)
        assert [one.how for one in report.files] == [How.FAILED, How.NOT_TRIED]
        assert report.files[0].setbacks[-1].trouble is trouble
        assert hostile.num_requests == report.files[0].attempts <= 4
        with pytest.raises(UnavailableError, match=trouble.value):
            report.raise_for_failure()

    async def test_nobody_there_is_another_mirrors_turn(self, good: str, tmp_path: Path) -> None:
        async with Device(tmp_path / "device", "http://127.0.0.1:9", good) as device:
            report = await device.client.fetch([Wanted(FILE)])

        assert report.is_complete
        assert {one.trouble for one in report.files[0].setbacks} == {Trouble.UNREACHABLE}

    async def test_an_endless_body_takes_no_memory(self, tmp_path: Path) -> None:
        hostile = Hostile(CONTENTS, deeds.never_ends)
        async with hostile.serving() as bad, Device(tmp_path / "device", bad) as device:
            tracemalloc.start()
            try:
                report = await device.client.fetch([Wanted(FILE)])
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()

        assert not report.is_complete
        assert most < 10 * FILE.size_bytes

    async def test_bytes_that_an_earlier_mirror_has_spoilt_are_fetched_anew(
        self, good: str, tmp_path: Path
    ) -> None:
        async with Device(tmp_path / "device", good) as device:
            device.blobs.append(FILE, 0, noise(100_000, seed=3))

            report = await device.client.fetch([Wanted(FILE)])

            assert device.contents(FILE) == CONTENTS
        (one,) = report.files
        assert [it.trouble for it in one.setbacks] == [Trouble.DIGEST_MISMATCH]
        assert one.attempts == 2


class TestResume:
    @settings(max_examples=20)
    @given(cuts=st.lists(st.integers(min_value=0, max_value=len(CONTENTS)), max_size=4))
    async def test_cut_anywhere_every_byte_comes_once(self, cuts: list[int]) -> None:
        left = sorted(cuts)

        async def cuts_there(
            hostile: Hostile, request: web.Request, contents: bytes
        ) -> web.StreamResponse:
            start = request.http_range.start or 0
            assert request.headers["If-Match"] == f'"{FILE.sha256}"'
            size, end = len(contents), max(left.pop(0), start) if left else len(contents)
            headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
            response = web.StreamResponse(status=206 if start else 200, headers=headers)
            response.content_length = size - start
            await response.prepare(request)
            await hostile.write(response, contents[start:end])
            if end < size:
                assert request.transport is not None
                request.transport.close()
            return response

        patience = DownloadOptions(Patience(tries=9), min_wait_s=0.001, max_wait_s=0.002)
        with TemporaryDirectory() as folder:
            hostile = Hostile(CONTENTS, cuts_there)
            async with (
                hostile.serving() as url,
                Device(Path(folder) / "device", url, options=patience) as device,
            ):
                report = await device.client.fetch([Wanted(FILE)])

                assert device.contents(FILE) == CONTENTS
        assert report.wire_bytes == FILE.size_bytes

    async def test_a_server_without_ranges_is_read_from_the_start(self, tmp_path: Path) -> None:
        async def ignores(_: Hostile, __: web.Request, contents: bytes) -> web.StreamResponse:
            return web.Response(body=contents)

        hostile = Hostile(CONTENTS, ignores)
        async with hostile.serving() as url, Device(tmp_path / "device", url) as device:
            device.blobs.append(FILE, 0, CONTENTS[:123_456])

            report = await device.client.fetch([Wanted(FILE)])

        assert report.is_complete
        assert report.wire_bytes == FILE.size_bytes

    async def test_cancelled_it_goes_on_where_it_was(self, good: str, tmp_path: Path) -> None:
        slow = TransferLimits(max_bytes_per_s=1_000_000)
        async with Device(tmp_path / "device", good, limits=slow) as device:
            fetching = asyncio.create_task(device.client.fetch([Wanted(FILE)]))
            await eventually(lambda: device.transfer.received_bytes > 50_000)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            kept = device.blobs.offset_bytes(FILE)
        async with Device(tmp_path / "device", good) as device:
            report = await device.client.fetch([Wanted(FILE)])

            assert device.contents(FILE) == CONTENTS
        assert kept >= 50_000
        assert report.wire_bytes == FILE.size_bytes - kept

    async def test_progress_is_told(self, good: str, tmp_path: Path) -> None:
        told: list[int] = []
        async with Device(tmp_path / "device", good) as device:
            await device.client.fetch([Wanted(FILE)], lambda _file, size: told.append(size))

        assert told == sorted(told)
        assert told[-1] == FILE.size_bytes

    async def test_what_is_here_costs_nothing(self, good: str, tmp_path: Path) -> None:
        async with Device(tmp_path / "device", good) as device:
            await device.client.fetch([Wanted(FILE)])

            report = await device.client.fetch([Wanted(FILE), Wanted(FILE)])

        assert [one.how for one in report.files] == [How.HERE, How.HERE]
        assert report.wire_bytes == 0
