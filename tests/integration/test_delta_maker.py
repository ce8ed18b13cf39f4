"""Deltas on demand: one at a time, kept within a quota, and never made twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.blobs import file_of, noise, publish
from fakes.waiting import eventually
from runtime.adapters.blob_source import FolderRepository
from runtime.adapters.delta_maker import MAX_QUEUE, NOT_WORTHWHILE, DeltaMaker
from runtime.delta import apply_delta
from runtime.errors import OverloadedError, StorageError

OLD = noise(100_000)
NEWS = [OLD[:90_000] + noise(10_000, seed) for seed in range(2, 5)]
UNRELATED = noise(100_000, seed=9)
OLD_FILE, *NEW_FILES = map(file_of, (OLD, *NEWS))


@pytest.fixture
async def maker(tmp_path: Path) -> AsyncIterator[DeltaMaker]:
    publish(tmp_path / "published", OLD, *NEWS, UNRELATED)
    maker = DeltaMaker(
        FolderRepository(tmp_path / "published"),
        tmp_path / "deltas",
        max_bytes=25_000,
        wait_s=15.0,
    )
    yield maker
    await maker.close()


async def made(maker: DeltaMaker, number: int) -> bytes:
    async with maker.open(OLD_FILE.sha256, NEW_FILES[number].sha256) as found:
        assert not isinstance(found, str), found
        return await found.read(0, found.size_bytes)


async def test_many_who_ask_at_once_get_the_same_one(maker: DeltaMaker) -> None:
    deltas = await asyncio.gather(*(made(maker, 0) for _ in range(20)))

    file = NEW_FILES[0]
    new = apply_delta(OLD, deltas[0], sha256=file.sha256, size_bytes=file.size_bytes)
    assert new == NEWS[0]
    assert len(set(deltas)) == 1
    assert maker.num_made == 1


async def test_what_is_kept_stays_within_its_quota_and_outlives_a_restart(
    maker: DeltaMaker, tmp_path: Path
) -> None:
    """Two of about ten thousand bytes fit."""
    await made(maker, 0)
    await made(maker, 1)
    await made(maker, 0)
    await made(maker, 2)
    again = DeltaMaker(
        FolderRepository(tmp_path / "published"), tmp_path / "deltas", max_bytes=25_000
    )

    await made(again, 0)
    await made(again, 2)

    assert sum(path.stat().st_size for path in (tmp_path / "deltas").iterdir()) <= 25_000
    assert (maker.num_made, again.num_made) == (3, 0)
    await again.close()


async def test_one_that_is_not_worthwhile_is_not_tried_again(maker: DeltaMaker) -> None:
    for _ in range(2):
        async with maker.open(OLD_FILE.sha256, file_of(UNRELATED).sha256) as found:
            assert found == NOT_WORTHWHILE
    assert maker.num_made == 1


@pytest.mark.parametrize("which", ["old", "new"])
async def test_a_file_that_is_unknown_is_named(maker: DeltaMaker, which: str) -> None:
    pair = {"old": OLD_FILE.sha256, "new": NEW_FILES[0].sha256} | {which: "0" * 64}

    async with maker.open(pair["old"], pair["new"]) as found:
        assert found == f"the {which} file is unknown here"


async def test_who_would_have_to_wait_is_told_and_the_queue_has_an_end(
    maker: DeltaMaker,
) -> None:
    maker._wait_s = 0.01
    async with maker._one_at_a_time:
        asked = [
            asyncio.create_task(anext(maker.open(f"{number:064x}", OLD_FILE.sha256).gen))
            for number in range(MAX_QUEUE + 1)
        ]
        ends = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(end, OverloadedError) for end in ends)
    assert sum("deltas are being made" in str(end) for end in ends) == 1


async def test_at_the_close_nobody_waits_on(maker: DeltaMaker) -> None:
    async with maker._one_at_a_time:
        waiting = asyncio.create_task(made(maker, 0))
        await eventually(lambda: maker._jobs)
        await maker.close()

        with pytest.raises(StorageError, match="no deltas are made any more"):
            await waiting


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot hold deltas"):
        DeltaMaker(FolderRepository(tmp_path), tmp_path / "file", max_bytes=1)
