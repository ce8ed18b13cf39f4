from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fakes.blobs import publish
from runtime.adapters.blob_source import FolderRepository, FsspecRepository, open_repository
from runtime.errors import StartError, StorageError
from runtime.ports_updates import MAX_DOCUMENT_BYTES

DIGEST = "0" * 64


def test_a_folder_and_a_url_are_told_apart(tmp_path: Path) -> None:
    assert isinstance(open_repository(str(tmp_path)), FolderRepository)
    assert isinstance(open_repository("memory://published"), FsspecRepository)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="nowhere"):
        open_repository(str(tmp_path / "nowhere"))


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)

    with pytest.raises(StartError, match=r"tierwise\[fsspec\]"):
        open_repository("memory://published")


def test_without_the_scheme_s_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(StartError, match=r"tierwise\[s3\]"):
        open_repository("s3://bucket/published")


def test_a_scheme_that_nobody_knows_is_named() -> None:
    with pytest.raises(StartError, match="nonsense"):
        open_repository("nonsense://published")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
async def test_what_is_no_file_is_not_there(kind: str, tmp_path: Path) -> None:
    publish(tmp_path)
    path = tmp_path / "blobs" / DIGEST
    {"folder": os.mkdir, "pipe": os.mkfifo}[kind](path)

    async with FolderRepository(tmp_path).open(DIGEST) as found:
        assert found is None


async def test_a_document_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = "metadata/1.root.json"
    publish(tmp_path, **{path: bytes(MAX_DOCUMENT_BYTES + 1)})

    with pytest.raises(StorageError, match="more than"):
        await FolderRepository(tmp_path).document(path)


@pytest.mark.parametrize("path", ["metadata/../blobs/x.json", "blobs/x", "targets/../../secret"])
async def test_a_path_that_leads_elsewhere_is_not_opened(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")

    assert await FolderRepository(tmp_path / "published").document(path) is None
    assert await FsspecRepository(f"file://{tmp_path}/published").document(path) is None
