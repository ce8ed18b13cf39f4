"""Attacks on the catalogue, through the mirror that a device asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from structlog.testing import capture_logs

from fakes.catalogue import (
    TIMESTAMP,
    Cloud,
    Device,
    LyingMirror,
    contents_of,
    entry,
    entry_file,
    forge_targets,
    forged_timestamp,
    later,
    list_online,
    newest,
    refused_because,
    resigned,
)
from runtime.adapters.trust_bundle import BUNDLE
from runtime.errors import (
    FetchError,
    MissingFileError,
    ReleaseError,
    SecurityError,
    TierwiseError,
)


class TestHonest:
    def test_a_fresh_device_learns_what_is_published(self, device: Device) -> None:
        refreshed = device.catalogue.refresh()

        assert refreshed.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
        assert device.catalogue.entries() == {"m/1.json": entry(1)}
        assert device.floors == refreshed.versions

    def test_a_device_that_is_up_to_date_asks_for_two_files(
        self, device: Device, mirror: LyingMirror
    ) -> None:
        device.catalogue.refresh()
        mirror.asked.clear()

        device.catalogue.refresh()

        assert mirror.asked == ["metadata/2.root.json", TIMESTAMP]

    def test_what_was_verified_is_there_after_a_restart_without_a_mirror(
        self, device: Device, mirror: LyingMirror
    ) -> None:
        device.catalogue.refresh()
        device.catalogue.entry("m/1.json")
        mirror.only = {}

        device.restart()

        assert device.catalogue.entries() == {"m/1.json": entry(1)}
        assert device.catalogue.versions["targets"] == 2

    def test_what_was_withdrawn_is_gone(self, cloud: Cloud, device: Device) -> None:
        device.catalogue.refresh()
        device.catalogue.entry("m/1.json")
        with cloud.open() as repository:
            repository.withdraw("m/1.json", "too warm", cloud.signers)

        device.catalogue.refresh()

        with pytest.raises(ReleaseError, match="not in the catalogue"):
            device.catalogue.entry("m/1.json")
        assert list((device.folder / "catalogue" / "entries").iterdir()) == []

    def test_nothing_is_known_before_the_first_refresh(self, device: Device) -> None:
        assert device.catalogue.versions == {}
        assert device.catalogue.paths() == ()
        assert not device.catalogue.may_fetch
        with pytest.raises(ReleaseError):
            device.catalogue.entry("m/1.json")

    def test_an_entry_that_has_rotted_is_fetched_again(self, device: Device) -> None:
        device.catalogue.refresh()
        device.catalogue.entry("m/1.json")
        (file,) = (device.folder / "catalogue" / "entries").iterdir()
        file.write_bytes(bytes(file.stat().st_size))

        assert device.catalogue.entry("m/1.json") == entry(1)


class TestRollback:
    def test_yesterdays_files_are_refused(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        yesterday = cloud.snapshot()
        cloud.publish(2)
        device.catalogue.refresh()
        mirror.only = yesterday

        assert refused_because(device) == "rollback"
        assert device.catalogue.paths() == ("m/1.json", "m/2.json")

    def test_a_fresh_device_cannot_know_and_takes_them_until_they_expire(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        mirror.only = cloud.snapshot()
        cloud.publish(2)

        device.catalogue.refresh()

        assert device.catalogue.paths() == ("m/1.json",)

    @pytest.mark.parametrize("left", [b"", b"{", None])
    def test_they_are_refused_by_the_floors_where_the_power_has_taken_the_metadata(
        self, cloud: Cloud, device: Device, mirror: LyingMirror, left: bytes | None
    ) -> None:
        yesterday = cloud.snapshot()
        cloud.publish(2)
        device.catalogue.refresh()
        file = device.folder / "catalogue" / BUNDLE
        file.unlink() if left is None else file.write_bytes(left)
        mirror.only = yesterday
        device.restart()

        assert refused_because(device) == "rollback"
        assert device.catalogue.paths() == ()

    def test_an_older_file_that_is_put_back_on_the_disk_is_not_believed(
        self, cloud: Cloud, device: Device
    ) -> None:
        device.catalogue.refresh()
        file = device.folder / "catalogue" / BUNDLE
        before = file.read_bytes()
        cloud.publish(2)
        device.catalogue.refresh()
        file.write_bytes(before)

        device.restart()

        assert device.catalogue.paths() == ()
        device.catalogue.refresh()
        assert device.catalogue.paths() == ("m/1.json", "m/2.json")

    def test_a_new_root_is_not_forgotten(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        yesterday = cloud.snapshot()
        cloud.rotate("online")
        device.catalogue.refresh()
        (device.folder / "catalogue" / BUNDLE).unlink()
        mirror.only = yesterday
        device.restart()

        assert refused_because(device) == "rollback"

    def test_a_thief_of_old_keys_cannot_hide_the_root_that_ended_them(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        """The power has taken the metadata; the thief signs newer ones under the old root."""
        list_online(cloud, mirror, {}, cloud.online, jump=100)
        mirror.instead["metadata/2.root.json"] = None
        lies = dict(mirror.instead)
        mirror.instead.clear()
        cloud.rotate("online")
        device.catalogue.refresh()
        (device.folder / "catalogue" / BUNDLE).unlink()
        mirror.instead = lies
        device.restart()

        assert refused_because(device) == "rollback"
        assert device.catalogue.paths() == ()


class TestForged:
    def test_a_timestamp_of_an_unknown_key(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        stranger = CryptoSigner.generate_ed25519()
        mirror.instead[TIMESTAMP] = forged_timestamp(cloud, later, stranger)

        assert refused_because(device) == "unsigned"

    def test_a_root_of_unknown_keys(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        stranger = CryptoSigner.generate_ed25519()
        mirror.instead["metadata/2.root.json"] = resigned(cloud.root, stranger, later)

        assert refused_because(device) == "unsigned"

    def test_a_root_that_fewer_than_the_threshold_have_signed(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        mirror.instead["metadata/2.root.json"] = resigned(cloud.root, cloud.roots[0], later)

        assert refused_because(device) == "unsigned"

    def test_targets_with_stolen_online_keys(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        device.catalogue.refresh()
        forge_targets(cloud, mirror, cloud.online, online=cloud.online)

        assert refused_because(device) == "unsigned"
        assert device.catalogue.paths() == ("m/1.json",)

    @pytest.mark.parametrize(
        ("path", "contents"),
        [
            (TIMESTAMP, b"\x00\xff garbage"),
            (TIMESTAMP, b"[" * 15_000),
            (TIMESTAMP, b'{"signed": 1}'),
            (TIMESTAMP, b""),
            ("metadata/2.root.json", b"<html>login</html>"),
        ],
    )
    def test_garbage(self, device: Device, mirror: LyingMirror, path: str, contents: bytes) -> None:
        mirror.instead[path] = contents

        assert refused_because(device) == "malformed"

    def test_a_root_of_the_package_that_is_none_is_refused_at_once(
        self, cloud: Cloud, mirror: LyingMirror, tmp_path: Path
    ) -> None:
        text = json.loads(cloud.root)
        text["signed"]["version"] = 7

        with pytest.raises(SecurityError):
            Device(tmp_path / "other", mirror, json.dumps(text).encode())


class TestMixed:
    @pytest.mark.parametrize("role", ["snapshot", "targets"])
    def test_old_metadata_under_a_new_name(
        self, cloud: Cloud, device: Device, mirror: LyingMirror, role: str
    ) -> None:
        old = (cloud.folder / newest(cloud, role)).read_bytes()
        cloud.publish(2)
        mirror.instead[newest(cloud, role)] = old

        assert refused_because(device) == "mismatch"

    @pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
    def test_a_file_that_is_withheld_is_no_attack_but_an_outage(
        self, cloud: Cloud, device: Device, mirror: LyingMirror, role: str
    ) -> None:
        device.catalogue.refresh()
        cloud.publish(2)
        path = TIMESTAMP if role == "timestamp" else newest(cloud, role)
        mirror.instead[path] = None

        with pytest.raises(MissingFileError):
            device.catalogue.refresh()

        assert device.catalogue.paths() == ("m/1.json",)
        device.restart()
        assert device.catalogue.paths() == ("m/1.json",)
        mirror.instead.clear()
        device.catalogue.refresh()
        assert device.catalogue.paths() == ("m/1.json", "m/2.json")

    @pytest.mark.parametrize(
        "path", [TIMESTAMP, "metadata/2.root.json", "metadata/2.snapshot.json"]
    )
    def test_endless_metadata_are_cut_off(
        self, device: Device, mirror: LyingMirror, path: str
    ) -> None:
        mirror.endless.add(path)

        assert refused_because(device) == "too_long"

    def test_empty_pieces_for_ever_are_an_outage(self, device: Device, mirror: LyingMirror) -> None:
        mirror.instead[TIMESTAMP] = b""
        device.catalogue._mirror = EmptyPieces()

        with pytest.raises(FetchError, match="empty pieces"):
            device.catalogue.refresh()


class EmptyPieces:
    def read(self, path: str) -> Iterator[bytes]:
        del path
        while True:
            yield b""


class TestEntries:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda contents: contents.replace(b'"m"', b'"n"'), "mismatch"),
            (lambda contents: contents[:-1], "mismatch"),
            (lambda _: b"", "mismatch"),
            (lambda contents: contents + b" ", "too_long"),
        ],
        ids=["same length", "too short", "empty", "too long"],
    )
    def test_another_entry_than_was_signed_for(
        self,
        cloud: Cloud,
        device: Device,
        mirror: LyingMirror,
        change: Callable[[bytes], bytes],
        expected: str,
    ) -> None:
        device.catalogue.refresh()
        mirror.instead[entry_file(cloud)] = change

        with pytest.raises(SecurityError) as caught:
            device.catalogue.entry("m/1.json")

        assert caught.value.because == expected
        mirror.instead.clear()
        assert device.catalogue.entry("m/1.json") == entry(1)

    def test_an_endless_entry(self, cloud: Cloud, device: Device, mirror: LyingMirror) -> None:
        device.catalogue.refresh()
        mirror.endless.add(entry_file(cloud))

        with pytest.raises(SecurityError, match="too_long"):
            device.catalogue.entry("m/1.json")

    def test_an_entry_that_is_withheld(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        device.catalogue.refresh()
        mirror.instead[entry_file(cloud)] = None

        with pytest.raises(MissingFileError):
            device.catalogue.entry("m/1.json")

    def test_an_old_model_with_its_own_valid_signature_is_refused(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        """A signature over files alone would accept it."""
        cloud.publish(2)
        device.catalogue.refresh()
        mirror.instead[entry_file(cloud, 2)] = (cloud.folder / entry_file(cloud, 1)).read_bytes()

        with pytest.raises(SecurityError):
            device.catalogue.entry("m/2.json")

    def test_another_model_in_place_of_this_one_is_refused(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        """A signature that does not say of which model it speaks would accept it."""
        cloud.publish(1, model="n")
        device.catalogue.refresh()
        (other,) = cloud.folder.glob("targets/n/*.json")
        mirror.instead[entry_file(cloud)] = other.read_bytes()

        with pytest.raises(SecurityError):
            device.catalogue.entry("m/1.json")


def test_attacks_and_outages_are_logged_apart(device: Device, mirror: LyingMirror) -> None:
    with capture_logs() as logs:
        for lie in (b"garbage", None):
            mirror.instead[TIMESTAMP] = lie
            with pytest.raises(TierwiseError):
                device.catalogue.refresh()

    events = {one["event"]: one["log_level"] for one in logs}
    assert events == {"catalogue.tampered": "error", "catalogue.not_refreshed": "warning"}


def test_the_files_of_the_fakes_are_those_of_the_entry() -> None:
    one = entry(3)

    assert set(contents_of(one)) == set(one.release("cpu").blobs)
