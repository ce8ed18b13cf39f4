"""Small releases, and the life of a device: installs, trials, ways back, and sudden ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from runtime.adapters.artifacts import describe_file
from runtime.adapters.model_folders import describe_release
from runtime.adapters.model_store import ModelStore, Started
from runtime.core.activation import assign, confirm, roll_back, set_factory, stage
from runtime.core.floors import raise_floor, raise_metadata_floors
from runtime.core.releases import Fault, Record, Release
from runtime.errors import ArtifactError
from runtime.manifest import Member, ModelFile, ModelManifest, encode_manifest
from runtime.messages import TensorSpec, Tier
from runtime.ports_files import FileSystem

SLOT, OTHER = "edge", "other"
NOW_S = 1_800_000_000.0
CHUNK_BYTES = 400
SHARED = b"what all releases have in common"


@dataclass(frozen=True)
class Made:
    """A release with its contents, by digest."""

    release: Release
    contents: dict[str, bytes]

    def files(self) -> Iterator[tuple[ModelFile, bytes]]:
        for digest, file in self.release.blobs.items():
            yield file, self.contents[digest]


def made(version: int, *, name: str = "tiny", files: dict[str, bytes] | None = None) -> Made:
    """Version ``version``, with a file of its own and one that it shares with all others."""
    given = files or {"own.onnx": b"weights of version %d" % version, "shared.onnx": SHARED}
    manifest = ModelManifest(
        name=name,
        version=str(version),
        tier=Tier.EDGE,
        files={one: describe_file(contents) for one, contents in given.items()},
        members=(Member("one", next(iter(given))),),
        inputs=(TensorSpec("x", "FP32", (-1, 3)),),
        outputs=(TensorSpec("logits", "FP32", (-1, 2)),),
        labels=("no", "yes"),
        accept_at=0.5,
    )
    text = encode_manifest(manifest)
    release = describe_release(text, version, "manifest")
    return Made(release, {describe_file(one).sha256: one for one in (text, *given.values())})


def fetch(store: ModelStore, wanted: Made) -> None:
    """What a downloader does: goes on where the last one ended, and once more from the start."""
    for file, contents in wanted.files():
        if store.blobs.has(file):
            continue
        try:
            _fetch_file(store, file, contents)
        except ArtifactError:
            _fetch_file(store, file, contents)


def _fetch_file(store: ModelStore, file: ModelFile, contents: bytes) -> None:
    offset = store.blobs.offset_bytes(file)
    while offset < file.size_bytes:
        piece = contents[offset : offset + CHUNK_BYTES]
        offset = store.blobs.append(file, offset, piece)
    store.blobs.finish(file)


def install(store: ModelStore, wanted: Made, seq: int, slot: str = SLOT) -> None:
    """Assigned, fetched and put on trial."""
    store.commit(assign(store.record, slot, wanted.release, seq=seq))
    fetch(store, wanted)
    store.commit(stage(store.record, slot, wanted.release, seq=seq))


def tried(store: ModelStore, slot: str = SLOT) -> Started:
    """Started with the trial, which is confirmed."""
    started = store.start(slot, NOW_S)
    assert started.selection.generation is not None
    store.commit(confirm(store.record, slot, started.selection.generation))
    return started


class KilledError(BaseException):
    """The process has ended here; what it wrote is in the page cache."""


@dataclass
class Journal:
    """What a device has been told: every record whose commit returned, every piece kept."""

    records: dict[int, Record] = field(default_factory=lambda: {0: Record()})
    commits: int = 0
    pieces: dict[str, int] = field(default_factory=dict)


class WatchedStore(ModelStore):
    """Writes down what it has promised."""

    def __init__(self, files: FileSystem, journal: Journal) -> None:
        super().__init__(files)
        self.journal = journal
        self._seen()
        blobs, append, finish = self.blobs, self.blobs.append, self.blobs.finish

        def watched(file: ModelFile, offset_bytes: int, chunk: bytes) -> int:
            size = append(file, offset_bytes, chunk)
            journal.pieces[file.sha256] = size
            return size

        def finished(file: ModelFile) -> None:
            # Between two folders a rename is not one step: a cut there may cost the file.
            journal.pieces.pop(file.sha256, None)
            finish(file)

        blobs.append, blobs.finish = watched, finished  # type: ignore[method-assign]

    def commit(self, record: Record) -> None:
        super().commit(record)
        self._seen()

    def _seen(self) -> None:
        self.journal.commits = self.record.commits
        self.journal.records[self.record.commits] = self.record


def life(
    open_store: Callable[[], ModelStore], kill_at: Callable[[str, str], None] | None = None
) -> None:
    """All that happens to a device, from its first start on.

    ``kill_at`` arranges that the process is killed before the next operation of that name on that
    path; where it is None nobody is killed.
    """
    with open_store() as store:
        first = made(1)
        fetch(store, first)
        store.commit(set_factory(store.record, SLOT, first.release))
        store.start(SLOT, NOW_S)
        install(store, made(2), 1)
        tried(store)
        store.commit(raise_floor(store.record, "tiny", 2))
        store.commit(raise_metadata_floors(store.record, {"root": 1, "timestamp": 4}))
        install(store, made(3), 2)
        install(store, made(3), 1, OTHER)
        tried(store)
        tried(store, OTHER)
        store.collect(NOW_S)
        install(store, made(4), 3)
        for _ in range(4):
            store.start(SLOT, NOW_S + 10_000)
        store.collect(NOW_S)

    def cut(what: str, path: str, work: Callable[[ModelStore], None]) -> None:
        store = open_store()
        if kill_at is None:
            work(store)
        else:
            kill_at(what, path)
            try:
                work(store)
            except KilledError:
                pass
            else:
                raise AssertionError(f"there was no {what} of {path} to be killed at")
        store.close()

    fifth = made(5)
    own = fifth.release.files["own.onnx"].sha256
    cut("sync_file", f"partial/{own}", lambda store: install(store, fifth, 4))
    cut("sync_folder", "blobs", lambda store: install(store, fifth, 4))
    with open_store() as store:
        install(store, fifth, 4)
        tried(store)
    back = lambda store: store.commit(roll_back(store.record, SLOT, Fault.OPERATOR))  # noqa: E731
    cut("sync_folder", "", back)
    with open_store() as store:
        store.collect(NOW_S)
        store.start(SLOT, NOW_S)
        install(store, made(6), 5)
        tried(store)
        store.collect(NOW_S)
