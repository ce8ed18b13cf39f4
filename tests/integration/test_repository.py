"""The repository of the catalogue: what is published holds, whatever happens to its disk."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from cloud_tier.history import HISTORY, read_history
from cloud_tier.keys import ONLINE
from cloud_tier.new_repository import create_repository
from cloud_tier.repository import Repository
from cloud_tier.repository_files import first_root, read_entry, read_signed
from cloud_tier.rotation import make_root, rotate
from fakes.catalogue import Cloud, Device, LyingMirror, contents_of, entry, newest, resigned
from fakes.simulated_files import SimulatedFiles
from runtime.errors import ArtifactError, NoRoomError, ReleaseError, SecurityError, StartError


def simulated(cloud: Cloud) -> SimulatedFiles:
    """The folder's files on a disk whose power can be cut."""
    image: dict[str, object] = {}
    for path, contents in cloud.snapshot().items():
        *folders, name = path.split("/")
        place = image
        for folder in folders:
            place = place.setdefault(folder, {})  # type: ignore[assignment]
        place[name] = contents
    for folder in ("blobs", "partial", "targets"):
        image.setdefault(folder, {})
    return SimulatedFiles(image)  # type: ignore[arg-type]


def published(files: SimulatedFiles, cloud: Cloud) -> list[str]:
    """What holds, every entry and every blob of it read and verified."""
    paths = read_signed(files, cloud.root).paths()
    entries = [read_entry(files, paths, path) for path in sorted(paths)]
    for one in entries:
        for file in one.release("cpu").blobs.values():
            contents = files.read(f"blobs/{file.sha256}", 0, file.size_bytes + 1)
            assert len(contents) == file.size_bytes
    return [one.path for one in entries]


class TestVersions:
    @pytest.mark.parametrize("version", [1, 2])
    def test_they_only_go_up(self, cloud: Cloud, version: int) -> None:
        cloud.publish(2)

        with pytest.raises(ReleaseError, match="the next one is 3"):
            cloud.publish(version)

    def test_what_was_withdrawn_never_comes_back(self, cloud: Cloud) -> None:
        with cloud.open() as repository:
            repository.withdraw("m/1.json", "too warm", cloud.signers)

        with pytest.raises(ReleaseError, match="the next one is 2"):
            cloud.publish(1)

    def test_models_and_regions_count_for_themselves(self, cloud: Cloud) -> None:
        cloud.add_region("eu")

        assert cloud.publish(1, model="other") == "other/1.json"
        assert cloud.publish(1, region="eu") == "region/eu/m/1.json"

    def test_a_region_that_nobody_publishes_for_is_refused(self, cloud: Cloud) -> None:
        with pytest.raises(StartError, match="add-region us"):
            cloud.publish(1, region="us")


class TestHistory:
    def test_it_says_who_did_what_when_and_why(self, cloud: Cloud) -> None:
        with cloud.open() as repository:
            repository.withdraw("m/1.json", "too warm", cloud.signers)

        created, added, withdrawn = read_history(cloud.files)
        assert (created.action, added.action) == ("created", "published")
        assert (withdrawn.action, withdrawn.path) == ("yanked", "m/1.json")
        assert (withdrawn.by, withdrawn.reason) == ("test", "too warm")
        assert withdrawn.at.startswith("20")

    def test_a_torn_line_is_left_out_and_the_next_one_is_whole(self, cloud: Cloud) -> None:
        with (cloud.folder / HISTORY).open("ab") as file:
            file.write(b'{"at": "20')

        cloud.publish(2)

        assert [one.path for one in read_history(cloud.files)] == ["", "m/1.json", "m/2.json"]

    @pytest.mark.parametrize("reason", ["", "  \n"])
    def test_nothing_is_withdrawn_without_a_reason(self, cloud: Cloud, reason: str) -> None:
        with cloud.open() as repository, pytest.raises(StartError, match="--reason"):
            repository.withdraw("m/1.json", reason, cloud.signers)

    def test_what_is_not_published_cannot_be_withdrawn(self, cloud: Cloud) -> None:
        with cloud.open() as repository, pytest.raises(ReleaseError, match="is not published"):
            repository.withdraw("m/7.json", "why not", cloud.signers)


class TestPublishers:
    def test_there_is_one_at_a_time(self, cloud: Cloud) -> None:
        with cloud.open(), pytest.raises(StartError, match="somebody else"):
            cloud.open()

        cloud.publish(2)

    def test_with_too_few_keys_nothing_is_written(self, cloud: Cloud) -> None:
        before = cloud.snapshot()
        without = {key: one for key, one in cloud.signers.items() if one is not cloud.targets}

        with cloud.open() as repository:
            with pytest.raises(StartError, match="1 of 1 keys"):
                repository.add(entry(2), contents_of(entry(2)), without)
            assert list(repository.paths()) == ["m/1.json"]

        assert cloud.snapshot() == before

    def test_other_contents_than_the_entry_says_are_refused(self, cloud: Cloud) -> None:
        wrong = dict.fromkeys(contents_of(entry(2)), b"something else")

        with cloud.open() as repository, pytest.raises(ArtifactError):
            repository.add(entry(2), wrong, cloud.signers)

        with cloud.open() as repository:
            assert list(repository.paths()) == ["m/1.json"]

    def test_contents_that_are_missing_are_refused(self, cloud: Cloud) -> None:
        with cloud.open() as repository, pytest.raises(ArtifactError, match="neither given"):
            repository.add(entry(2), {}, cloud.signers)

    def test_a_folder_with_a_repository_is_not_made_one(self, cloud: Cloud) -> None:
        before = cloud.snapshot()

        with pytest.raises(StartError, match="already"):
            create_repository(cloud.files, cloud.root, cloud.signers, clock=cloud.clock, by="test")

        assert cloud.snapshot() == before

    def test_an_empty_folder_is_no_repository(self, cloud: Cloud, tmp_path: Path) -> None:
        cloud.folder = tmp_path / "empty"
        cloud.folder.mkdir()

        with pytest.raises(StartError, match="keys init"):
            cloud.open()
        with pytest.raises(StartError, match="keys init"):
            first_root(cloud.files)


class TestTampered:
    """Whoever can write to the folder does not get their model signed with the next one."""

    def test_targets_of_another_key(self, cloud: Cloud) -> None:
        path = cloud.folder / newest(cloud, "targets")
        stranger = CryptoSigner.generate_ed25519()
        path.write_bytes(resigned(path.read_bytes(), stranger, lambda signed: signed.targets))

        with pytest.raises(SecurityError):
            cloud.publish(2)

    def test_another_repository_altogether(self, cloud: Cloud, tmp_path: Path) -> None:
        other = Cloud(tmp_path / "other")
        cloud.folder = other.folder

        with pytest.raises(StartError, match="do not follow"):
            cloud.publish(2)

    def test_a_root_that_does_not_follow(self, cloud: Cloud, tmp_path: Path) -> None:
        other = Cloud(tmp_path / "other")
        (cloud.folder / "metadata/2.root.json").write_bytes(other.root)

        with pytest.raises(StartError, match="do not follow"):
            cloud.publish(2)

    def test_an_entry_that_was_exchanged_is_found(self, cloud: Cloud) -> None:
        (path,) = cloud.folder.glob("targets/m/*.json")
        path.write_bytes(path.read_bytes().replace(b'"m"', b'"n"'))

        with cloud.open() as repository, pytest.raises(SecurityError):
            repository.entry("m/1.json")


class TestDisk:
    def add(self, cloud: Cloud, files: SimulatedFiles) -> None:
        with Repository(files, cloud.root, clock=cloud.clock, by="test") as repository:
            repository.add(entry(2), contents_of(entry(2)), cloud.signers)

    def test_a_full_disk_at_any_step_leaves_what_held_and_the_next_try_works(
        self, cloud: Cloud
    ) -> None:
        steps = self.steps(cloud)
        for at in range(steps):
            files = simulated(cloud)
            self.fail_at(files, at, OSError(errno.ENOSPC, "No space left on device"))

            with pytest.raises(NoRoomError):
                self.add(cloud, files)

            files.on_step = lambda _what, _path: None
            holds = published(files, cloud)
            assert holds in (["m/1.json"], ["m/1.json", "m/2.json"])
            new = entry(max(len(holds), len(read_history(files)) - 1) + 1)
            with Repository(files, cloud.root, clock=cloud.clock, by="test") as repository:
                repository.add(new, contents_of(new), cloud.signers)
            assert new.path in published(files, cloud)

    def test_a_cut_of_the_power_at_any_step_leaves_the_catalogue_before_or_after(
        self, cloud: Cloud
    ) -> None:
        chance = random.Random(0)
        for at in range(self.steps(cloud)):
            files = simulated(cloud)
            self.fail_at(files, at, PowerCut())

            with pytest.raises(PowerCut):
                self.add(cloud, files)

            for image in files.crashes(chance):
                holds = published(SimulatedFiles(image), cloud)
                assert holds in (["m/1.json"], ["m/1.json", "m/2.json"])

    def test_what_was_published_is_in_the_history_after_a_loss_of_power(self, cloud: Cloud) -> None:
        files = simulated(cloud)

        self.add(cloud, files)

        for image in files.crashes(random.Random(0)):
            left = SimulatedFiles(image)
            assert read_history(left)[-1].path == "m/2.json"
            assert published(left, cloud) == ["m/1.json", "m/2.json"]

    def steps(self, cloud: Cloud) -> int:
        files, steps = simulated(cloud), list[str]()
        files.on_step = lambda what, path: steps.append(f"{what} {path}")
        self.add(cloud, files)
        assert any("timestamp" in one for one in steps[-3:])
        return len(steps)

    def fail_at(self, files: SimulatedFiles, at: int, error: BaseException) -> None:
        count = iter(range(10_000))

        def step(_what: str, _path: str) -> None:
            if next(count) >= at:
                raise error

        files.on_step = step


class PowerCut(BaseException):
    pass


class TestRotation:
    def test_what_was_broken_off_is_seen_and_finished(self, cloud: Cloud, tmp_path: Path) -> None:
        before = (cloud.folder / "metadata/timestamp.json").read_bytes()
        cloud.rotate("targets")
        (cloud.folder / "metadata/timestamp.json").write_bytes(before)

        with cloud.open() as repository:
            assert repository.signed.is_interrupted
        cloud.renew("targets")

        cloud.publish(2)
        device = Device(tmp_path / "d", LyingMirror(cloud.folder), cloud.root)
        assert device.catalogue.refresh().versions["root"] == 2
        device.store.close()

    def test_a_key_that_the_role_does_not_have_cannot_be_taken_from_it(self, cloud: Cloud) -> None:
        with cloud.open() as repository, pytest.raises(StartError, match="is no key of root"):
            rotate(repository, "root", added=[], removed=["f" * 64], signers=cloud.signers)

    def test_a_role_keeps_as_many_keys_as_have_to_sign(self, cloud: Cloud) -> None:
        removed = [one.public_key.keyid for one in cloud.roots[:2]]

        with cloud.open() as repository, pytest.raises(StartError, match="2 have to sign"):
            rotate(repository, "root", added=[], removed=removed, signers=cloud.signers)

    def test_one_old_root_key_is_not_enough(self, cloud: Cloud) -> None:
        new = [CryptoSigner.generate_ed25519() for _ in range(3)]
        removed = [one.public_key.keyid for one in cloud.roots]
        cloud.roots = cloud.roots[:1]

        with cloud.open() as repository, pytest.raises((SecurityError, StartError)):
            rotate(repository, "root", added=new, removed=removed, signers=cloud.signers)

        assert not (cloud.folder / "metadata/2.root.json").exists()

    @pytest.mark.parametrize("threshold", [0, 3])
    def test_a_threshold_that_cannot_be_reached_is_refused(
        self, cloud: Cloud, threshold: int
    ) -> None:
        with cloud.open() as repository, pytest.raises(StartError, match="--threshold"):
            make_root(
                cloud.roots[:2],
                cloud.targets,
                cloud.online,
                threshold=threshold,
                now=repository.now,
            )

    def test_renewing_moves_the_expiry_dates(self, cloud: Cloud) -> None:
        before = json.loads((cloud.folder / "metadata/timestamp.json").read_bytes())
        cloud.clock.advance(86_400)

        cloud.renew(ONLINE)

        after = json.loads((cloud.folder / "metadata/timestamp.json").read_bytes())
        assert after["signed"]["expires"] > before["signed"]["expires"]
        assert after["signed"]["version"] == before["signed"]["version"] + 1
