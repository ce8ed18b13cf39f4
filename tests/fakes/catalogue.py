"""A cloud with real keys and a real repository in a folder, and mirrors that lie about it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Targets

from cloud_tier.keys import ONLINE, Signers
from cloud_tier.new_repository import create_repository
from cloud_tier.repository import Repository
from cloud_tier.rotation import add_region, add_rollout, make_root, rotate
from fakes.clock import FakeClock
from runtime.adapters.artifacts import describe_file
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.folder_mirror import FolderMirror
from runtime.adapters.model_store import ModelStore
from runtime.adapters.trust import TrustedCatalogue
from runtime.catalogue import CatalogueEntry, Variant
from runtime.errors import MissingFileError, SecurityError
from runtime.messages import Tier
from runtime.ports_files import Mirror

TIMESTAMP = "metadata/timestamp.json"
DAY_S = 86_400.0
# python-tuf has no clock but that of the machine, so this is where all stories begin.
NOW_S = float(int(time.time()))


def entry(version: int, *, model: str = "m", region: str | None = None) -> CatalogueEntry:
    """One of two files, which ``contents_of`` has."""
    name = f"{model} {version}".encode()
    files = {"manifest.json": describe_file(b"manifest of " + name), "m.onnx": describe_file(name)}
    return CatalogueEntry(model, version, Tier.EDGE, {"cpu": Variant(files)}, region=region)


def contents_of(one: CatalogueEntry) -> dict[str, bytes]:
    name = f"{one.model} {one.version}".encode()
    return {describe_file(each).sha256: each for each in (b"manifest of " + name, name)}


class Cloud:
    """A repository with 2 of 3 root keys; ``clock`` is the publisher's."""

    def __init__(self, folder: Path, now_s: float = NOW_S, *, may_assign: bool = False) -> None:
        self.folder = folder
        self.clock = FakeClock(wall_s=now_s)
        self.roots = [CryptoSigner.generate_ed25519() for _ in range(3)]
        self.targets = CryptoSigner.generate_ed25519()
        self.online = CryptoSigner.generate_ed25519()
        self.rollout = CryptoSigner.generate_ed25519()
        self.regions: dict[str, CryptoSigner] = {}
        now = dt.datetime.fromtimestamp(int(now_s), dt.UTC)
        self.root = make_root(self.roots, self.targets, self.online, threshold=2, now=now)
        create_repository(
            self.files,
            self.root,
            self.signers,
            clock=self.clock,
            by="test",
            rollout=self.rollout.public_key if may_assign else None,
        )

    @property
    def files(self) -> LocalFiles:
        return LocalFiles(self.folder)

    @property
    def signers(self) -> Signers:
        own = [*self.roots, self.targets, self.online, *self.regions.values()]
        return {one.public_key.keyid: one for one in own}

    def open(self) -> Repository:
        return Repository(self.files, self.root, clock=self.clock, by="test")

    def publish(self, version: int, **more: Any) -> str:
        """The path of the new entry."""
        new = entry(version, **more)
        with self.open() as repository:
            repository.add(new, contents_of(new), self.signers)
        return new.path

    def renew(self, role: str = ONLINE) -> None:
        with self.open() as repository:
            repository.renew(role, self.signers)

    def rotate(self, role: str, new: Sequence[CryptoSigner] | None = None) -> None:
        """Exchanges all keys of a role."""
        old = {
            ONLINE: [self.online],
            "targets": [self.targets],
            "rollout": [self.rollout],
            "root": self.roots,
        }[role]
        new = new or [CryptoSigner.generate_ed25519() for _ in old]
        with self.open() as repository:
            rotate(
                repository,
                role,
                added=new,
                removed=[one.public_key.keyid for one in old],
                signers=self.signers,
            )
        if role == ONLINE:
            (self.online,) = new
        elif role == "targets":
            (self.targets,) = new
        elif role == "rollout":
            (self.rollout,) = new
        else:
            self.roots = list(new)

    def add_rollout(self) -> None:
        with self.open() as repository:
            add_rollout(repository, self.rollout.public_key, self.signers)

    def add_region(self, region: str) -> CryptoSigner:
        self.regions[region] = CryptoSigner.generate_ed25519()
        with self.open() as repository:
            add_region(repository, region, self.regions[region], self.signers)
        return self.regions[region]

    def snapshot(self) -> dict[str, bytes]:
        """All files as they are now, by path."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }


Change = Callable[[bytes], bytes]


class LyingMirror:
    """The folder's files, but for those that ``instead`` says something else about.

    A value of None withholds the file; a function changes it. ``asked`` are the paths so far.
    """

    def __init__(self, folder: Path) -> None:
        self._true: Mirror = FolderMirror(folder)
        self.instead: dict[str, bytes | Change | None] = {}
        self.endless: set[str] = set()
        self.only: dict[str, bytes] | None = None
        self.asked: list[str] = []

    def read(self, path: str) -> Iterator[bytes]:
        self.asked.append(path)
        if path in self.endless:
            while True:
                yield b" " * 4096
        lie = self.instead.get(path, self._true)
        if self.only is not None:
            lie = self.only.get(path)
        if lie is self._true:
            yield from self._true.read(path)
        elif lie is None:
            raise MissingFileError(f"{path} is not there")
        elif callable(lie):
            yield from _pieces(lie(b"".join(self._true.read(path))))
        else:
            assert isinstance(lie, bytes)
            yield from _pieces(lie)


@dataclass
class Device:
    """A device with its store, its own clock, and the root that it came with."""

    folder: Path
    mirror: Mirror
    root: bytes
    clock: FakeClock = field(default_factory=lambda: FakeClock(wall_s=NOW_S))
    build_s: float = NOW_S - 30 * DAY_S
    regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Starts, again."""
        self.store = ModelStore(LocalFiles(self.folder / "models"))
        self.catalogue = TrustedCatalogue(
            LocalFiles(self.folder / "catalogue"),
            self.store,
            self.mirror,
            root=self.root,
            clock=self.clock,
            build_s=self.build_s,
            regions=self.regions,
        )

    def restart(self) -> None:
        self.store.close()
        self.start()

    @property
    def floors(self) -> dict[str, int]:
        return self.store.record.metadata_floors


def resigned(contents: bytes, signer: CryptoSigner, change: Callable[[Any], None]) -> bytes:
    """Metadata after a change, signed by that key alone."""
    metadata: Metadata[Any] = Metadata.from_bytes(contents)
    change(metadata.signed)
    metadata.sign(signer)
    return metadata.to_bytes()


def _pieces(contents: bytes) -> Iterator[bytes]:
    yield from (contents[at : at + 4096] for at in range(0, len(contents), 4096))


def newest(cloud: Cloud, role: str) -> str:
    numbers = [
        int(path.name.split(".")[0]) for path in cloud.folder.glob(f"metadata/*.{role}.json")
    ]
    return f"metadata/{max(numbers)}.{role}.json"


def forged_timestamp(cloud: Cloud, change: Callable[[Any], None], signer: CryptoSigner) -> bytes:
    return resigned((cloud.folder / TIMESTAMP).read_bytes(), signer, change)


def later(signed: Any) -> None:
    signed.version += 1


def forge_targets(
    cloud: Cloud, mirror: LyingMirror, signer: CryptoSigner, *, online: CryptoSigner
) -> None:
    """New targets with a new model by ``signer``, listed by whoever has the online keys."""
    read = {role: (cloud.folder / newest(cloud, role)).read_bytes() for role in ("targets",)}

    def add(signed: Targets) -> None:
        signed.version += 1
        signed.targets["evil/1.json"] = next(iter(signed.targets.values()))

    targets = resigned(read["targets"], signer, add)
    version = Metadata[Targets].from_bytes(targets).signed.version
    list_online(cloud, mirror, {"targets": (version, targets)}, online)


def list_online(
    cloud: Cloud,
    mirror: LyingMirror,
    files: dict[str, tuple[int, bytes]],
    online: CryptoSigner,
    jump: int = 1,
) -> None:
    def snap(signed: Any) -> None:
        signed.version += jump
        for role, (version, contents) in files.items():
            signed.meta[f"{role}.json"] = MetaFile.from_data(version, contents, ["sha256"])

    snapshot = resigned((cloud.folder / newest(cloud, "snapshot")).read_bytes(), online, snap)
    number = Metadata.from_bytes(snapshot).signed.version

    def stamp(signed: Any) -> None:
        signed.version += jump
        signed.snapshot_meta = MetaFile.from_data(number, snapshot, ["sha256"])

    mirror.instead[TIMESTAMP] = forged_timestamp(cloud, stamp, online)
    mirror.instead[f"metadata/{number}.snapshot.json"] = snapshot
    for role, (version, contents) in files.items():
        mirror.instead[f"metadata/{version}.{role}.json"] = contents


def entry_file(cloud: Cloud, version: int = 1) -> str:
    (found,) = cloud.folder.glob(f"targets/m/*.{version}.json")
    return str(found.relative_to(cloud.folder))


def refused_because(device: Device) -> str:
    """Which rule a refresh breaks."""
    with pytest.raises(SecurityError) as caught:
        device.catalogue.refresh()
    return caught.value.because
