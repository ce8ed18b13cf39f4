"""Keys that sign assignments: the catalogue's owners name them, and take their power away again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets

from cloud_tier.keys import load_rollout_signer, new_key, write_key
from fakes.catalogue import Cloud, Device, LyingMirror, list_online, newest, resigned
from runtime.adapters.assignment_signatures import signed, verified
from runtime.assignments import Assignment, Do
from runtime.catalogue import ROLLOUT_ROLE
from runtime.errors import SecurityError, StartError

ASSIGNMENT = Assignment("d", "eu", 1, Do.ROLL_BACK, "r", 1e9)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    cloud = Cloud(tmp_path / "repository", may_assign=True)
    cloud.publish(1)
    return cloud


def accepts(device: Device, signer: CryptoSigner) -> bool:
    payload = signed(ASSIGNMENT, signer)
    try:
        verified(payload, device.catalogue.rollout_keys, device="d", region="eu")
    except SecurityError:
        return False
    return True


def relisted(cloud: Cloud, mirror: LyingMirror, change: Any) -> None:
    """Targets after a change, signed by their owners."""

    def anew(signed: Targets) -> None:
        signed.version += 1
        change(signed)

    contents = resigned((cloud.folder / newest(cloud, "targets")).read_bytes(), cloud.targets, anew)
    version = Metadata[Targets].from_bytes(contents).signed.version
    list_online(cloud, mirror, {"targets": (version, contents)}, cloud.online)


def test_nobody_is_believed_before_the_first_refresh(cloud: Cloud, device: Device) -> None:
    assert device.catalogue.rollout_keys == {}
    assert not accepts(device, cloud.rollout)


def test_the_key_that_is_named_signs_and_the_others_do_not(cloud: Cloud, device: Device) -> None:
    device.catalogue.refresh()

    assert device.catalogue.rollout_keys == {
        cloud.rollout.public_key.keyid: cloud.rollout.public_key
    }
    assert accepts(device, cloud.rollout)
    assert not any(accepts(device, one) for one in (cloud.targets, cloud.online, *cloud.roots))


def test_it_outlives_a_restart_and_the_expiry_of_the_catalogue(
    cloud: Cloud, device: Device
) -> None:
    device.catalogue.refresh()

    device.clock.advance(400 * 86_400)
    device.restart()

    assert not device.catalogue.may_fetch
    assert accepts(device, cloud.rollout)


def test_an_exchanged_key_stands_for_nothing_after_a_refresh(cloud: Cloud, device: Device) -> None:
    device.catalogue.refresh()
    old = cloud.rollout
    cloud.rotate(ROLLOUT_ROLE)

    device.catalogue.refresh()

    assert not accepts(device, old)
    assert accepts(device, cloud.rollout)
    assert device.catalogue.paths() == ("m/1.json",)


def test_a_thief_of_the_targets_keys_names_nobody_after_their_exchange(
    cloud: Cloud, device: Device, mirror: LyingMirror
) -> None:
    thief = CryptoSigner.generate_ed25519()
    relisted(cloud, mirror, lambda targets: targets.add_key(thief.public_key, ROLLOUT_ROLE))
    device.catalogue.refresh()
    assert accepts(device, thief)
    mirror.instead.clear()
    cloud.rotate("targets")
    cloud.rotate("online")

    device.catalogue.refresh()

    assert not accepts(device, thief)
    assert accepts(device, cloud.rollout)


def test_an_older_catalogue_does_not_bring_an_old_key_back(
    cloud: Cloud, device: Device, mirror: LyingMirror
) -> None:
    before, old = cloud.snapshot(), cloud.rollout
    cloud.rotate(ROLLOUT_ROLE)
    device.catalogue.refresh()
    mirror.only = before

    with pytest.raises(SecurityError):
        device.catalogue.refresh()

    assert not accepts(device, old)


def test_the_rollout_key_publishes_nothing(
    cloud: Cloud, device: Device, mirror: LyingMirror
) -> None:
    device.catalogue.refresh()
    true = Metadata[Targets].from_file(str(cloud.folder / newest(cloud, "targets")))
    evil = Metadata(Targets())
    evil.signed.targets = dict.fromkeys(
        ["evil/1.json", "region/eu/evil/1.json", "rollout"], true.signed.targets["m/1.json"]
    )
    evil.sign(cloud.rollout)
    contents = evil.to_bytes()
    list_online(cloud, mirror, {ROLLOUT_ROLE: (1, contents)}, cloud.online)

    device.catalogue.refresh()

    assert device.catalogue.paths() == ("m/1.json",)


def test_a_region_names_nobody(cloud: Cloud, mirror: LyingMirror, tmp_path: Path) -> None:
    region = cloud.add_region("eu")
    own = CryptoSigner.generate_ed25519()

    def name(signed: Targets) -> None:
        signed.version += 1
        role = DelegatedRole(ROLLOUT_ROLE, [], 1, terminating=True, paths=["*"])
        signed.delegations = Delegations({}, {ROLLOUT_ROLE: role})
        signed.add_key(own.public_key, ROLLOUT_ROLE)

    contents = resigned((cloud.folder / newest(cloud, "region-eu")).read_bytes(), region, name)
    version = Metadata[Targets].from_bytes(contents).signed.version
    list_online(cloud, mirror, {"region-eu": (version, contents)}, cloud.online)
    device = Device(tmp_path / "in-eu", mirror, cloud.root, regions=("eu",))

    refreshed = device.catalogue.refresh()
    device.store.close()

    assert refreshed.problems == {}
    assert refreshed.versions["region-eu"] == version
    assert not accepts(device, own)
    assert not accepts(device, region)
    assert accepts(device, cloud.rollout)


def two_have_to_sign(targets: Any) -> None:
    targets.delegations.roles[ROLLOUT_ROLE].threshold = 2


def another_kind_of_key(targets: Any) -> None:
    targets.add_key(CryptoSigner.generate_ecdsa().public_key, ROLLOUT_ROLE)
    targets.revoke_key(targets.delegations.roles[ROLLOUT_ROLE].keyids[0], ROLLOUT_ROLE)


def a_key_that_is_not_there(targets: Any) -> None:
    targets.delegations.roles[ROLLOUT_ROLE].keyids = ["0" * 64]


@pytest.mark.parametrize("change", [two_have_to_sign, another_kind_of_key, a_key_that_is_not_there])
def test_what_is_not_understood_names_nobody(
    cloud: Cloud, device: Device, mirror: LyingMirror, change: Any
) -> None:
    relisted(cloud, mirror, change)

    device.catalogue.refresh()

    assert device.catalogue.rollout_keys == {}


class TestRepositoryOfBefore:
    @pytest.fixture
    def cloud(self, tmp_path: Path) -> Cloud:
        cloud = Cloud(tmp_path / "repository")
        cloud.publish(1)
        return cloud

    def test_it_goes_on_and_gets_a_key_when_it_is_asked_for(
        self, cloud: Cloud, device: Device
    ) -> None:
        device.catalogue.refresh()
        assert device.catalogue.rollout_keys == {}
        cloud.publish(2)
        cloud.add_region("eu")
        with pytest.raises(StartError, match="add-rollout"):
            cloud.rotate(ROLLOUT_ROLE)

        cloud.add_rollout()
        cloud.publish(3)
        device.catalogue.refresh()

        assert accepts(device, cloud.rollout)
        assert device.catalogue.paths() == ("m/1.json", "m/2.json", "m/3.json")
        with pytest.raises(StartError, match="rotate rollout"):
            cloud.add_rollout()


class TestFile:
    @pytest.mark.parametrize("passphrase", [None, b"word"])
    def test_a_key_signs_from_its_file(self, tmp_path: Path, passphrase: bytes | None) -> None:
        key = new_key()
        file = write_key(tmp_path, ROLLOUT_ROLE, key, passphrase)

        signer = load_rollout_signer(file.path, passphrase)

        keys: dict[str, Key] = {key[1].public_key.keyid: key[1].public_key}
        assert verified(signed(ASSIGNMENT, signer), keys, device="d", region="eu") == ASSIGNMENT

    @pytest.mark.parametrize("passphrase", [None, b"another"])
    def test_a_wrong_passphrase_is_said(self, tmp_path: Path, passphrase: bytes | None) -> None:
        file = write_key(tmp_path, ROLLOUT_ROLE, new_key(), b"word")

        with pytest.raises(StartError, match="passphrase"):
            load_rollout_signer(file.path, passphrase)

    def test_the_key_of_another_role_assigns_nothing(self, tmp_path: Path) -> None:
        file = write_key(tmp_path, "targets", new_key(), None)

        with pytest.raises(StartError, match="no key for assignments"):
            load_rollout_signer(file.path)

    def test_another_key_under_its_name_is_refused(self, tmp_path: Path) -> None:
        one = write_key(tmp_path / "a", ROLLOUT_ROLE, new_key(), None)
        other = write_key(tmp_path / "b", ROLLOUT_ROLE, new_key(), None)
        other.path.replace(one.path)

        with pytest.raises(StartError, match="holds the key"):
            load_rollout_signer(one.path)

    def test_a_file_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(StartError, match="cannot be read"):
            load_rollout_signer(tmp_path / f"rollout-{'0' * 16}.pem")
