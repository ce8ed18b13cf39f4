"""Time, exchanged keys and regions: what a device goes on believing, and what no longer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from tuf.api.metadata import Metadata, Targets

from fakes.catalogue import (
    DAY_S,
    NOW_S,
    TIMESTAMP,
    Cloud,
    Device,
    LyingMirror,
    entry,
    forge_targets,
    forged_timestamp,
    list_online,
    newest,
    refused_because,
    resigned,
)
from fakes.clock import FakeClock
from runtime.adapters.trust_bundle import BUNDLE
from runtime.adapters.trust_time import SIGNED_AT
from runtime.errors import (
    ExpiredError,
    MissingFileError,
    SecurityError,
)

IN_2040_S = 2_208_988_800.0


class TestTime:
    @pytest.mark.parametrize("days", [7, 14, 180, 365])
    def test_what_has_expired_by_the_devices_clock_is_refused(
        self, device: Device, days: int
    ) -> None:
        device.catalogue.refresh()
        device.catalogue.entry("m/1.json")
        device.clock.advance(days * DAY_S)

        with pytest.raises(ExpiredError):
            device.catalogue.refresh()

        assert not device.catalogue.may_fetch
        assert device.catalogue.entries() == {"m/1.json": entry(1)}
        device.restart()
        assert device.catalogue.entries() == {"m/1.json": entry(1)}

    @pytest.mark.parametrize(
        ("role", "days", "renewed"),
        [("timestamp", 8, ()), ("targets", 181, ("online",)), ("root", 366, ("targets",))],
    )
    def test_each_role_expires_for_itself(
        self, tmp_path: Path, role: str, days: float, renewed: tuple[str, ...]
    ) -> None:
        old = Cloud(tmp_path / "old", NOW_S - days * DAY_S)
        old.clock.set_wall_s(NOW_S)
        for other in renewed:
            old.renew(other)
        device = Device(tmp_path / "d", LyingMirror(old.folder), old.root)

        with pytest.raises(ExpiredError, match=role):
            device.catalogue.refresh()

        device.store.close()

    def test_a_snapshot_expires_for_itself(self, tmp_path: Path) -> None:
        def fresh(signed: Any) -> None:
            signed.version += 1
            signed.expires += dt.timedelta(days=15)

        old = Cloud(tmp_path / "old", NOW_S - 15 * DAY_S)
        mirror = LyingMirror(old.folder)
        mirror.instead[TIMESTAMP] = forged_timestamp(old, fresh, old.online)
        device = Device(tmp_path / "d", mirror, old.root)

        with pytest.raises(ExpiredError, match="snapshot"):
            device.catalogue.refresh()

        device.store.close()

    def test_new_entries_are_not_fetched_by_what_has_expired(self, device: Device) -> None:
        device.catalogue.refresh()
        device.clock.advance(8 * DAY_S)

        with pytest.raises(ExpiredError):
            device.catalogue.entry("m/1.json")

    def test_a_clock_in_1970_is_overruled_by_the_latest_signing_time(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        """Frozen: the last timestamp that this device has not seen, served when it has expired."""
        cloud.publish(2)
        frozen = cloud.snapshot()
        cloud.clock.advance(6 * DAY_S)
        cloud.renew("targets")
        device.clock = FakeClock(wall_s=0.0)
        device.restart()
        device.catalogue.refresh()
        assert device.store.record.verified_time_s == NOW_S + 6 * DAY_S
        with device.store as store:
            forgotten = {"metadata_floors": {}, "verified_time_s": NOW_S + 8 * DAY_S}
            store.commit(replace(store.record, **forgotten))
        (device.folder / "catalogue" / BUNDLE).unlink()
        mirror.only = frozen
        device.start()

        with pytest.raises(ExpiredError, match="timestamp"):
            device.catalogue.refresh()

    def test_a_clock_in_2040_stops_what_is_new_and_nothing_else(self, device: Device) -> None:
        device.catalogue.refresh()
        device.catalogue.entry("m/1.json")
        device.clock.set_wall_s(IN_2040_S)

        with pytest.raises(ExpiredError, match="clock"):
            device.catalogue.refresh()

        assert device.catalogue.entry("m/1.json") == entry(1)
        device.clock.set_wall_s(NOW_S)
        device.catalogue.refresh()

    @pytest.mark.parametrize("signed_at", [IN_2040_S, -1, "soon", None, True, 2**60])
    def test_a_signing_time_that_cannot_be_is_not_believed(
        self, cloud: Cloud, device: Device, mirror: LyingMirror, signed_at: object
    ) -> None:
        def lie(signed: Any) -> None:
            signed.version += 1
            value = int(signed_at) if isinstance(signed_at, float) else signed_at
            signed.unrecognized_fields[SIGNED_AT] = value

        device.clock.set_wall_s(0.0)
        mirror.instead[TIMESTAMP] = forged_timestamp(cloud, lie, cloud.online)

        device.catalogue.refresh()

        assert device.store.record.verified_time_s == 0.0

    def test_a_clock_that_may_be_right_is_not_overtaken(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        def lie(signed: Any) -> None:
            signed.version += 1
            signed.unrecognized_fields[SIGNED_AT] = int(NOW_S + 300 * DAY_S)

        mirror.instead[TIMESTAMP] = forged_timestamp(cloud, lie, cloud.online)

        device.catalogue.refresh()

        assert device.store.record.verified_time_s == NOW_S


class TestRotation:
    def fast_forward(self, cloud: Cloud, device: Device, mirror: LyingMirror) -> None:
        list_online(cloud, mirror, {}, cloud.online, jump=2**31)
        device.catalogue.refresh()
        mirror.instead.clear()
        cloud.renew()

    def test_after_fast_forward_the_device_is_stuck(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        self.fast_forward(cloud, device, mirror)

        assert refused_because(device) == "rollback"

    def test_other_online_keys_lead_out_of_it(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        self.fast_forward(cloud, device, mirror)
        cloud.rotate("online")

        device.catalogue.refresh()

        assert device.floors["timestamp"] < 100
        cloud.publish(2)
        device.catalogue.refresh()
        assert "m/2.json" in device.catalogue.paths()

    def test_also_where_the_new_root_has_come_alone_at_first(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        self.fast_forward(cloud, device, mirror)
        cloud.rotate("online")
        mirror.instead[TIMESTAMP] = None
        with pytest.raises(MissingFileError):
            device.catalogue.refresh()
        assert device.floors["root"] == 2
        mirror.instead.clear()
        device.restart()

        device.catalogue.refresh()

        assert device.catalogue.paths() == ("m/1.json",)

    def test_the_thief_of_the_old_keys_is_refused_afterwards(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        device.catalogue.refresh()
        stolen = cloud.online
        cloud.rotate("online")
        list_online(cloud, mirror, {}, stolen, jump=5)

        assert refused_because(device) == "unsigned"

    def test_all_root_keys_are_exchanged(self, cloud: Cloud, device: Device) -> None:
        device.catalogue.refresh()
        cloud.rotate("root")
        cloud.rotate("targets")
        cloud.publish(2)

        refreshed = device.catalogue.refresh()

        assert refreshed.versions["root"] == 3
        assert device.catalogue.entry("m/2.json") == entry(2)

    def test_what_stolen_targets_keys_have_signed_is_dropped_with_the_new_root(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        forge_targets(cloud, mirror, cloud.targets, online=cloud.online)
        device.catalogue.refresh()
        assert "evil/1.json" in device.catalogue.paths()
        mirror.instead.clear()
        cloud.rotate("targets")
        mirror.instead[TIMESTAMP] = None

        with pytest.raises(MissingFileError):
            device.catalogue.refresh()

        assert device.catalogue.paths() == ()
        device.restart()
        assert device.catalogue.paths() == ()

    def test_other_online_keys_leave_what_was_verified(
        self, cloud: Cloud, device: Device, mirror: LyingMirror
    ) -> None:
        device.catalogue.refresh()
        cloud.rotate("online")
        mirror.instead[TIMESTAMP] = None

        with pytest.raises(MissingFileError):
            device.catalogue.refresh()

        device.restart()
        assert device.catalogue.paths() == ("m/1.json",)

    def test_a_newer_root_comes_with_a_newer_package(self, cloud: Cloud, device: Device) -> None:
        device.catalogue.refresh()
        cloud.rotate("online")
        device.root = (cloud.folder / "metadata/2.root.json").read_bytes()

        device.restart()
        device.catalogue.refresh()

        assert device.catalogue.paths() == ("m/1.json",)


class TestRegions:
    @pytest.fixture
    def regional(self, cloud: Cloud, mirror: LyingMirror, tmp_path: Path) -> Iterator[Device]:
        cloud.add_region("eu")
        cloud.publish(1, model="head", region="eu")
        device = Device(tmp_path / "regional", mirror, cloud.root, regions=("eu",))
        yield device
        device.store.close()

    def test_a_device_of_the_region_has_its_entries(self, regional: Device, device: Device) -> None:
        regional.catalogue.refresh()
        device.catalogue.refresh()

        assert regional.catalogue.paths() == ("m/1.json", "region/eu/head/1.json")
        assert regional.catalogue.entry("region/eu/head/1.json").region == "eu"
        assert device.catalogue.paths() == ("m/1.json",)
        regional.restart()
        assert len(regional.catalogue.entries()) == 2

    @pytest.mark.parametrize("path", ["m/1.json", "m/9.json", "region/us/m/1.json", "region/eu/x"])
    def test_a_delegate_does_not_reach_outside_of_its_region(
        self, cloud: Cloud, regional: Device, mirror: LyingMirror, path: str
    ) -> None:
        """With the online keys stolen as well."""
        role = "region-eu"

        def reach(signed: Targets) -> None:
            signed.version += 1
            (own,) = signed.targets.values()
            signed.targets[path] = own

        contents = (cloud.folder / newest(cloud, role)).read_bytes()
        forged = resigned(contents, cloud.regions["eu"], reach)
        version = Metadata[Targets].from_bytes(forged).signed.version
        list_online(cloud, mirror, {role: (version, forged)}, cloud.online)

        regional.catalogue.refresh()

        assert regional.catalogue.paths() == ("m/1.json", "region/eu/head/1.json")
        assert regional.catalogue.entry("m/1.json") == entry(1)

    def test_a_region_that_fails_leaves_the_rest(
        self, cloud: Cloud, regional: Device, mirror: LyingMirror
    ) -> None:
        mirror.instead[newest(cloud, "region-eu")] = b"{}"

        with capture_logs() as logs:
            refreshed = regional.catalogue.refresh()

        assert isinstance(refreshed.problems["eu"], SecurityError)
        assert regional.catalogue.paths() == ("m/1.json",)
        assert "catalogue.region_left_out" in [one["event"] for one in logs]

    def test_a_region_that_has_expired_leaves_the_rest(
        self, cloud: Cloud, regional: Device
    ) -> None:
        regional.catalogue.refresh()
        later_s = NOW_S + 91 * DAY_S
        cloud.clock.set_wall_s(later_s)
        cloud.renew("targets")
        regional.clock.set_wall_s(later_s)

        refreshed = regional.catalogue.refresh()

        assert isinstance(refreshed.problems["eu"], ExpiredError)
        assert regional.catalogue.paths() == ("m/1.json",)

    def test_a_region_without_a_delegation_has_nothing(
        self, cloud: Cloud, mirror: LyingMirror, tmp_path: Path
    ) -> None:
        device = Device(tmp_path / "us", mirror, cloud.root, regions=("us",))

        assert device.catalogue.refresh().problems == {}
        assert device.catalogue.paths() == ("m/1.json",)
        device.store.close()
