"""The parts around the controller: keys, the catalogue, what is sent, the service as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace
from securesystemslib.signer import CryptoSigner
from structlog.testing import capture_logs

from cloud_tier.keys import new_key, write_key
from cloud_tier.rollouts.catalogue import CatalogueReader
from cloud_tier.rollouts.keys import PASSPHRASE, load_signer
from cloud_tier.rollouts.requests import settings_of
from cloud_tier.rollouts.sending import Post
from cloud_tier.rollouts.service import rolling_out
from cloud_tier.settings import CloudSettings, RolloutSettings
from fakes.catalogue import Cloud, newest
from fakes.clock import FakeClock
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.blob_source import FolderRepository
from runtime.adapters.clock import SystemClock
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.metrics import TierMetrics
from runtime.assignments import Assignment, Do
from runtime.common_settings import StateSettings
from runtime.core.rollout_events import Announce
from runtime.errors import RolloutError, SecurityError, StartError, StorageError
from runtime.ports import Message
from runtime.update_settings import RepositorySettings


class TestKeys:
    def test_a_key_signs(self, tmp_path: Path) -> None:
        key = new_key()
        file = write_key(tmp_path, "rollout", key, None)

        assert load_signer(file.path).public_key.keyid == key[1].public_key.keyid

    def test_a_passphrase_comes_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write_key(tmp_path, "rollout", new_key(), b"secret")
        monkeypatch.delenv(PASSPHRASE, raising=False)
        with pytest.raises(StartError, match=f"passphrase is wrong.*{PASSPHRASE}"):
            load_signer(file.path)
        monkeypatch.setenv(PASSPHRASE, "secret")

        assert load_signer(file.path)

    def test_what_is_no_key_of_ours_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / f"rollout-{'0' * 16}.pem"
        with pytest.raises(StartError, match="cannot be read"):
            load_signer(path)
        path.write_bytes(b"nothing")
        path.chmod(0o644)
        with pytest.raises(StartError, match="others may use the key"):
            load_signer(path)
        path.chmod(0o600)
        with pytest.raises(StartError, match="cannot be opened"):
            load_signer(path)
        path.write_bytes(b" " * 20_000)
        with pytest.raises(StartError, match="has more than"):
            load_signer(path)
        other = generate_private_key(SECP256R1())
        path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(StartError, match="holds no Ed25519 key"):
            load_signer(path)


class TestCatalogue:
    @pytest.fixture
    def cloud(self, tmp_path: Path) -> Cloud:
        cloud = Cloud(tmp_path / "repository")
        for version in (1, 2):
            cloud.publish(version)
        return cloud

    @pytest.fixture
    def reader(self, cloud: Cloud) -> CatalogueReader:
        return CatalogueReader(FolderRepository(cloud.folder))

    async def test_versions_are_found_also_after_keys_were_exchanged(
        self, cloud: Cloud, reader: CatalogueReader
    ) -> None:
        cloud.rotate("root")
        cloud.rotate("targets")

        assert (await reader.entry("m", 1)).version == 1
        assert (await reader.entry("m", 0)).version == 2

    async def test_a_region_has_versions_of_its_own(
        self, cloud: Cloud, reader: CatalogueReader
    ) -> None:
        cloud.add_region("eu")
        cloud.publish(1, region="eu")

        assert (await reader.entry("m", 0, "eu")).path == "region/eu/m/1.json"

    async def test_what_was_withdrawn_is_not_rolled_out(
        self, cloud: Cloud, reader: CatalogueReader
    ) -> None:
        with cloud.open() as repository:
            repository.withdraw("m/2.json", "bad", cloud.signers)

        with pytest.raises(RolloutError, match=r"published are m/1\.json"):
            await reader.entry("m", 2)

    async def test_what_was_changed_does_not_verify(
        self, cloud: Cloud, reader: CatalogueReader
    ) -> None:
        file = cloud.folder / newest(cloud, "targets")
        file.write_bytes(file.read_bytes().replace(b"m/2.json", b"m/3.json"))

        with pytest.raises(SecurityError):
            await reader.paths()

    @pytest.mark.parametrize("name", ["metadata/timestamp.json", "metadata/1.root.json"])
    async def test_what_is_missing_is_named(
        self, name: str, cloud: Cloud, reader: CatalogueReader
    ) -> None:
        (cloud.folder / name).unlink()

        with pytest.raises(StorageError, match=f"has no {name}"):
            await reader.paths()


class TestPost:
    @pytest.fixture
    async def bus(self) -> AsyncIterator[MemoryBus]:
        bus = MemoryBus(MemoryBroker(), client_id="cloud")
        yield bus
        await bus.close()

    async def test_what_could_not_be_sent_is_sent_with_the_next_step(self, bus: MemoryBus) -> None:
        clock, heard = FakeClock(), list[Message]()
        post = Post(bus, CryptoSigner.generate_ed25519(), region="cloud", clock=clock)
        one = Assignment("d", "eu", 3, Do.WITHDRAW, "r", 0.0)
        assert post.send([one]) == 0
        post.announce(Announce("eu", "m/2.json", "canary", 0.0))
        bus.subscribe(topics.assignment_below("cloud", "eu"), heard.append, qos=1)
        bus.subscribe(topics.announcement("cloud", "eu"), heard.append, qos=1)
        await bus.start()
        await bus.wait_connected(10)

        sent = [post.send([one]), post.send([one])]
        post.flush()
        post.flush()
        await eventually(lambda: len(heard) == 2)
        late = list[Message]()
        bus.subscribe("tierwise/v1/cloud/+/eu/#", late.append, qos=1)
        await eventually(lambda: len(late) == 2)
        clock.advance(61)
        again = [post.send([one]), post.send([]), post.send([replace(one, seq=4)])]

        assert sent == [1, 0]
        assert again == [1, 0, 1]
        assert {message.topic for message in late} == {message.topic for message in heard}


class TestService:
    async def test_without_a_key_there_are_no_rollouts(self) -> None:
        async with rolling_out(CloudSettings(cloud="c"), _Parts(), _bus()) as rollouts:  # type: ignore[arg-type]
            assert rollouts is None

    def test_a_key_without_a_repository_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"needs updates\.repository"):
            CloudSettings(cloud="c", rollouts=RolloutSettings(key_file="k"))

    async def test_it_drives_by_itself_and_says_once_that_it_cannot(self, tmp_path: Path) -> None:
        Cloud(tmp_path / "repository")
        file = write_key(tmp_path, "rollout", new_key(), None)
        settings = CloudSettings(
            cloud="c",
            state=StateSettings(folder=str(tmp_path / "state")),
            updates=RepositorySettings(repository=str(tmp_path / "repository")),
            rollouts=RolloutSettings(key_file=str(file.path), tick_interval_s=0.05),
        )
        with capture_logs() as lines:
            async with rolling_out(settings, _Parts(), _bus()) as rollouts:  # type: ignore[arg-type]
                assert rollouts is not None
                store = rollouts.controller.store
                good = store.file
                store.file = _Broken()  # type: ignore[assignment]
                await eventually(lambda: _events(lines, "rollouts.failed"))
                store.file = good
                await eventually(lambda: _events(lines, "rollouts.recovered"))

        assert len(_events(lines, "rollouts.failed")) == 1


def test_plans_know_maintenance_windows() -> None:
    settings = settings_of({"windows": {"eu": [{"from_s": 0.0, "to_s": 3600.0}]}, "shares": [1.0]})

    assert settings.windows["eu"][0].is_open(60.0)
    assert settings.alpha_shares == (1.0,)


def _bus() -> MemoryBus:
    return MemoryBus(MemoryBroker(), client_id="c")


def _events(lines: object, name: str) -> list[object]:
    assert isinstance(lines, list)
    return [line for line in lines if line["event"] == name]


class _Parts:
    metrics = TierMetrics("cloud")
    clock = SystemClock()
    epoch = 1


class _Broken:
    async def run(self, work: object) -> object:
        raise StorageError(f"no {work}")
