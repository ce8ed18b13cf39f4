"""Metadata through a gateway's mirror: followable as a whole, also in an outage."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fakes.blobs import file_of, publish, source
from fakes.mirrors import GONE, get, region
from fakes.waiting import eventually
from regional_gateway.mirror import MirrorOptions
from regional_gateway.mirror_store import MirrorStore
from runtime.errors import UnavailableError


def metadata(**versions: int) -> bytes:
    return json.dumps(
        {"signed": {"meta": {f"{name}.json": {"version": v} for name, v in versions.items()}}}
    ).encode()


def publish_version(folder: Path, version: int) -> bytes:
    timestamp = metadata(snapshot=version)
    documents = {
        "metadata/1.root.json": b"root",
        f"metadata/{version}.targets.json": b"targets %d" % version,
        f"metadata/{version}.snapshot.json": metadata(targets=version),
        "metadata/timestamp.json": timestamp,
    }
    publish(folder, **documents)
    return timestamp


class TestDocuments:
    async def test_whoever_sees_a_timestamp_can_follow_it_without_the_cloud(
        self, tmp_path: Path
    ) -> None:
        timestamp = publish_version(tmp_path / "cloud", 1)
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url) as one,
        ):
            await one.mirror.refresh()
        async with region(tmp_path / "mirror", GONE) as one:
            base = f"{one.url}/updates/metadata"
            assert await get(f"{base}/timestamp.json") == (200, timestamp)
            assert (await get(f"{base}/1.snapshot.json"))[0] == 200
            assert await get(f"{base}/1.targets.json") == (200, b"targets 1")
            assert await get(f"{base}/1.root.json") == (200, b"root")
            # That there is no next root is what a client has to hear.
            assert (await get(f"{base}/2.root.json"))[0] == 404
            with pytest.raises(UnavailableError):
                await one.mirror.refresh()

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda folder: (folder / "2.snapshot.json").unlink(),
            lambda folder: (folder / "2.targets.json").unlink(),
            lambda folder: (folder / "2.snapshot.json").write_bytes(b"{}"),
            lambda folder: (folder / "timestamp.json").write_bytes(b"\xff"),
            lambda folder: (folder / "timestamp.json").write_bytes(bytes(5 << 20)),
            lambda folder: (folder / "timestamp.json").write_bytes(
                b'{"signed": {"meta": {"../../x.json": {"version": 1}}}}'
            ),
        ],
    )
    async def test_the_last_good_one_stays_until_all_of_the_next_is_here(
        self, spoil: object, tmp_path: Path
    ) -> None:
        assert callable(spoil)
        first = publish_version(tmp_path / "cloud", 1)
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url) as one,
        ):
            await one.mirror.refresh()
            second = publish_version(tmp_path / "cloud", 2)
            spoil(tmp_path / "cloud" / "metadata")
            url = f"{one.url}/updates/metadata/timestamp.json"

            with pytest.raises(UnavailableError):
                await one.mirror.refresh()
            assert await get(url) == (200, first)
            publish_version(tmp_path / "cloud", 2)
            await one.mirror.refresh()
            assert await get(url) == (200, second)

    async def test_what_is_said_of_a_document_has_to_hold(self, tmp_path: Path) -> None:
        """A damaged document that came in on somebody's request does not stay for ever."""
        publish_version(tmp_path / "cloud", 1)
        snapshot = metadata(targets=1)
        said = {
            "version": 1,
            "length": len(snapshot),
            "hashes": {"sha256": file_of(snapshot).sha256},
        }
        timestamp = json.dumps({"signed": {"meta": {"snapshot.json": said}}}).encode()
        spoilt = snapshot.replace(b"1", b"2")
        publish(
            tmp_path / "cloud",
            **{"metadata/timestamp.json": timestamp, "metadata/1.snapshot.json": spoilt},
        )
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url) as one,
        ):
            url = f"{one.url}/updates/metadata/1.snapshot.json"
            assert await get(url) == (200, spoilt)
            with pytest.raises(UnavailableError, match="something else"):
                await one.mirror.refresh()
            publish(tmp_path / "cloud", **{"metadata/1.snapshot.json": snapshot})

            await one.mirror.refresh()

            assert await get(url) == (200, snapshot)

    async def test_it_refreshes_by_itself(self, tmp_path: Path) -> None:
        publish_version(tmp_path / "cloud", 1)
        options = MirrorOptions(refresh_s=0.02)
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url, options=options) as one,
        ):
            running = asyncio.create_task(one.mirror.run())
            await eventually(lambda: one.store.document("metadata/1.targets.json"))
            second = publish_version(tmp_path / "cloud", 2)

            await eventually(lambda: one.store.document("metadata/timestamp.json") == second)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    async def test_a_target_that_is_not_what_its_name_says_reaches_nobody(
        self, tmp_path: Path
    ) -> None:
        path = f"targets/{'0' * 64}.manifest.json"
        publish(tmp_path / "cloud", **{path: b"something else"})
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url) as one,
        ):
            assert (await get(f"{one.url}/updates/{path}"))[0] == 502

    async def test_a_target_that_may_change_is_the_last_good_one_in_an_outage(
        self, tmp_path: Path
    ) -> None:
        publish(tmp_path / "cloud", **{"targets/notes.txt": b"first"})
        async with (
            source(tmp_path / "cloud") as above,
            region(tmp_path / "mirror", above.url) as one,
        ):
            url = f"{one.url}/updates/targets/notes.txt"
            await get(url)
            publish(tmp_path / "cloud", **{"targets/notes.txt": b"second"})
            assert await get(url) == (200, b"second")
        async with region(tmp_path / "mirror", GONE) as one:
            assert await get(f"{one.url}/updates/targets/notes.txt") == (200, b"second")
            assert (await get(f"{one.url}/updates/targets/other.txt"))[0] == 502


def test_the_disk_has_what_the_mirror_says(tmp_path: Path) -> None:
    store = MirrorStore.at(tmp_path, max_bytes=1)
    store.keep_document("metadata/1.root.json", b"root")
    store.close()

    assert [one.name for one in (tmp_path / "documents").iterdir()] == ["metadata%1.root.json"]
