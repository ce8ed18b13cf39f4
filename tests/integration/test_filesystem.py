from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from runtime.adapters.filesystem import LocalFiles


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "root")


def test_files_are_written_read_and_named(files: LocalFiles) -> None:
    files.make_folder("a")
    files.make_folder("a")
    files.write("a/one", b"123")
    files.append("a/one", b"456")
    files.append("a/two", b"x")
    files.link("a/one", "a/three")
    files.rename("a/two", "two")
    files.write("two", b"")
    files.set_read_only("a/one")
    files.sync_file("a/one")
    files.sync_folder("a")
    files.sync_folder("")

    assert files.read("a/one", 0, 99) == b"123456"
    assert files.read("a/three", 2, 2) == b"34"
    assert files.read("a/one", 99, 9) == b""
    assert files.names("a") == ["one", "three"]
    assert files.size_bytes("a/one") == 6
    assert files.size_bytes("two") == 0
    assert stat.S_IMODE(files.full_path("a/one").stat().st_mode) == 0o444
    assert files.modified_s("two") > 1_600_000_000
    assert files.free_bytes() > 0
    for name in ("one", "three"):
        files.unlink(f"a/{name}")
    files.remove_folder("a")
    assert files.size_bytes("a/one") is None
    assert files.size_bytes("a") is None


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a/..", "x\0y"])
def test_paths_do_not_leave_the_folder(files: LocalFiles, path: str) -> None:
    with pytest.raises(ValueError, match="inside the folder"):
        files.write(path, b"x")
    with pytest.raises(ValueError, match="inside the folder"):
        files.size_bytes(path)


def test_links_to_elsewhere_are_neither_read_nor_written(files: LocalFiles, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    files.full_path("link").symlink_to(outside)

    assert files.size_bytes("link") is None
    for attempt in (
        lambda: files.read("link", 0, 9),
        lambda: files.append("link", b"x"),
        lambda: files.write("link", b"x"),
        lambda: files.sync_file("link"),
    ):
        with pytest.raises(OSError, match="symbolic links") as error:
            attempt()
        assert error.value.errno == errno.ELOOP
    assert outside.read_bytes() == b"secret"


def test_one_process_has_the_lock(files: LocalFiles, tmp_path: Path) -> None:
    other = LocalFiles(tmp_path / "root")

    assert files.lock("lock")
    assert not files.lock("lock")
    assert not other.lock("lock")
    files.unlock()
    files.unlock()
    assert other.lock("lock")
    other.unlock()


def test_a_lock_that_cannot_be_had_is_an_error(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)

    with pytest.raises(OSError, match="No locks"):
        files.lock("lock")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_synced_folders_is_used_all_the_same(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    files.write("one", b"x")

    def refuse(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)

    files.sync_folder("")
    with pytest.raises(OSError, match=os.strerror(code)):
        files.sync_file("one")


def test_a_sync_that_fails_is_an_error(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(OSError, match="Input/output"):
        files.sync_folder("")
