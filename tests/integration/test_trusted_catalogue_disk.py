"""A device whose disk fails, or loses its power, in a refresh; and a folder as a mirror."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from fakes.catalogue import NOW_S, Cloud, Device
from fakes.simulated_files import SimulatedFiles
from runtime.adapters.folder_mirror import FolderMirror
from runtime.adapters.trust import TrustedCatalogue
from runtime.errors import FetchError, MissingFileError, NoRoomError, StartError


def catalogue(device: Device, files: SimulatedFiles) -> TrustedCatalogue:
    return TrustedCatalogue(
        files,
        device.store,
        device.mirror,
        root=device.root,
        clock=device.clock,
        build_s=NOW_S - 86_400,
    )


class PowerCut(BaseException):
    pass


def failing(files: SimulatedFiles, at: int, error: BaseException) -> None:
    count = iter(range(1_000))

    def step(_what: str, _path: str) -> None:
        if next(count) >= at:
            raise error

    files.on_step = step


@pytest.fixture
def known(device: Device) -> SimulatedFiles:
    """The disk after a first refresh."""
    files = SimulatedFiles()
    one = catalogue(device, files)
    one.refresh()
    one.entry("m/1.json")
    for folder in ("", "entries"):
        files.sync_folder(folder)
    return files


@pytest.mark.parametrize("at", range(4))
def test_a_full_disk_leaves_what_was_verified(
    cloud: Cloud, device: Device, known: SimulatedFiles, at: int
) -> None:
    one = catalogue(device, known)
    cloud.publish(2)
    failing(known, at, OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(NoRoomError):
        one.refresh()

    assert one.paths() == ("m/1.json",)
    known.on_step = lambda _what, _path: None
    one.refresh()
    assert one.paths() == ("m/1.json", "m/2.json")


@pytest.mark.parametrize("at", range(4))
def test_a_cut_of_the_power_leaves_the_catalogue_before_or_after(
    cloud: Cloud, device: Device, known: SimulatedFiles, at: int
) -> None:
    one = catalogue(device, known)
    cloud.publish(2)
    failing(known, at, PowerCut())

    with pytest.raises(PowerCut):
        one.refresh()

    for image in known.crashes(random.Random(0)):
        after = catalogue(device, SimulatedFiles(image))
        assert after.paths() in (("m/1.json",), ("m/1.json", "m/2.json"))


def test_what_a_refresh_has_returned_for_outlives_a_loss_of_power(
    cloud: Cloud, device: Device, known: SimulatedFiles
) -> None:
    cloud.publish(2)
    catalogue(device, known).refresh()

    for image in known.crashes(random.Random(0)):
        assert catalogue(device, SimulatedFiles(image)).paths() == ("m/1.json", "m/2.json")


class TestFolderMirror:
    def test_it_reads_in_pieces(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x" * 100_000)

        pieces = list(FolderMirror(tmp_path).read("file"))

        assert [len(one) for one in pieces] == [65_536, 34_464]

    @pytest.mark.parametrize("path", ["nothing", "../up", "/etc/passwd", "folder"])
    def test_it_has_nothing_else(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "folder").mkdir()

        with pytest.raises(MissingFileError):
            list(FolderMirror(tmp_path).read(path))

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/etc/passwd")

        with pytest.raises(FetchError):
            list(FolderMirror(tmp_path).read("link"))

    def test_there_has_to_be_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StartError):
            FolderMirror(tmp_path / "nothing")
