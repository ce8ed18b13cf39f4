from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.models import manifest_of, model_folder
from runtime.adapters import artifacts
from runtime.adapters.artifacts import open_model, read_manifest, write_artifact, write_model
from runtime.errors import ArtifactError

DIES_BEFORE_RENAMING = """
import os, pathlib, sys
from runtime.adapters.artifacts import write_artifact

pathlib.Path.replace = lambda *_: os._exit(9)
write_artifact(pathlib.Path(sys.argv[1]), b"new")
"""
CONTENTS = b"the whole model file"
FILES = {"tiny.onnx": CONTENTS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_folder(tmp_path / "tiny", FILES)
    return tmp_path / "tiny"


def test_a_whole_folder_opens(folder: Path) -> None:
    model = open_model(folder)

    assert model.manifest == manifest_of(FILES)
    assert model.read_verified("tiny.onnx") == CONTENTS


def test_a_truncated_file_is_refused(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(CONTENTS[:-5])

    with pytest.raises(
        ArtifactError, match=r"tiny/tiny\.onnx is truncated: expected 20 bytes, found 15\. .*again"
    ):
        open_model(folder)


def test_an_empty_file_is_refused(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(b"")

    with pytest.raises(ArtifactError, match="truncated: expected 20 bytes, found 0"):
        open_model(folder)


def test_a_longer_file_is_refused(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(CONTENTS + b"and more")

    with pytest.raises(ArtifactError, match="too long: expected 20 bytes, found 28"):
        open_model(folder)


def test_a_file_of_the_same_length_with_another_digest_is_refused(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(CONTENTS.upper())

    with pytest.raises(ArtifactError, match=r"expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        open_model(folder)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n  <html><body>Please log in"])
def test_a_page_saved_in_place_of_a_model_is_named_as_such(folder: Path, page: bytes) -> None:
    (folder / "tiny.onnx").write_bytes(page)

    with pytest.raises(ArtifactError, match=r"tiny\.onnx is an HTML page"):
        open_model(folder)


def test_a_git_lfs_pointer_is_named_as_such(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(ArtifactError, match="git lfs pull"):
        open_model(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "tiny.onnx").unlink()

    with pytest.raises(ArtifactError, match=r"tiny/tiny\.onnx is missing"):
        open_model(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(CONTENTS)
    (folder / "tiny.onnx").unlink()
    (folder / "tiny.onnx").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ArtifactError, match=r"is a link out of its folder, to .*elsewhere"):
        open_model(folder)


def test_a_link_inside_the_folder_is_fine(folder: Path) -> None:
    (folder / "tiny.onnx").rename(folder / "stored")
    (folder / "tiny.onnx").symlink_to("stored")

    assert open_model(folder).read_verified("tiny.onnx") == CONTENTS


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)

    assert open_model(tmp_path / "current").read_verified("tiny.onnx") == CONTENTS


def test_a_loop_of_links_is_refused(folder: Path) -> None:
    (folder / "tiny.onnx").unlink()
    (folder / "tiny.onnx").symlink_to("tiny.onnx")

    with pytest.raises(ArtifactError, match=r"tiny\.onnx"):
        open_model(folder)


def test_a_folder_or_pipe_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "tiny.onnx").unlink()
    os.mkfifo(folder / "tiny.onnx")

    with pytest.raises(ArtifactError, match="not a regular file"):
        open_model(folder)


def test_a_file_that_changes_after_opening_is_refused_when_read(folder: Path) -> None:
    model = open_model(folder)
    (folder / "tiny.onnx").write_bytes(CONTENTS.upper())

    with pytest.raises(ArtifactError, match="another digest"):
        model.read_verified("tiny.onnx")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="absent is not a folder; a model folder was expected"):
        open_model(tmp_path / "absent")


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        read_manifest(tmp_path)


def test_a_page_in_place_of_the_manifest_is_named_as_such(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"<html>404</html>")

    with pytest.raises(ArtifactError, match=r"manifest\.json is an HTML page"):
        read_manifest(folder)


def test_a_huge_manifest_is_not_read_to_its_end(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b" " * (artifacts.MAX_MANIFEST_BYTES + 1))

    with pytest.raises(ArtifactError, match="not a manifest"):
        read_manifest(folder)


def test_writing_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"

    write_artifact(path, b"old")
    write_artifact(path, b"new")

    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_artifact(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    monkeypatch.setattr(Path, step, fail, raising=False)

    with pytest.raises(ArtifactError, match="file could not be written: No space left on device"):
        write_artifact(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    """A killed process runs no clean-up; what it leaves behind is not taken for the file."""
    path = tmp_path / "file"
    write_artifact(path, b"old")

    ended = subprocess.run([sys.executable, "-c", DIES_BEFORE_RENAMING, str(path)], check=False)

    assert ended.returncode == 9
    assert path.read_bytes() == b"old"
    leftover = next(entry for entry in tmp_path.iterdir() if entry != path)
    assert leftover.name.startswith(".file.")
    assert leftover.read_bytes() == b"new"


def test_files_that_the_manifest_does_not_list_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the files that the manifest lists"):
        write_model(tmp_path / "m", manifest_of(FILES), {"tiny.onnx": b"other"})

    assert not (tmp_path / "m").exists()


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(artifacts, "write_artifact", lambda path, _: written.append(path.name))

    write_model(tmp_path, manifest_of(FILES), FILES)

    assert written == ["tiny.onnx", "manifest.json"]
