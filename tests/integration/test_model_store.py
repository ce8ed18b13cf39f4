from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.installs import NOW_S, OTHER, SHARED, SLOT, Made, fetch, install, made, tried
from fakes.simulated_files import SimulatedFiles
from runtime.adapters import model_record
from runtime.adapters.artifacts import open_model, write_model
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.model_blobs import blob_path
from runtime.adapters.model_folders import describe_release
from runtime.adapters.model_garbage import PARTIAL_MAX_AGE_S
from runtime.adapters.model_record import COPY, STATE
from runtime.adapters.model_store import ModelStore
from runtime.core.activation import assign, confirm, fail, roll_back, set_factory, stage
from runtime.core.releases import Fault
from runtime.core.selection import Origin
from runtime.errors import ArtifactError, NoRoomError, ReleaseError, StartError, StorageError
from runtime.manifest import decode_manifest

V1, V2, V3 = made(1), made(2), made(3)
OWN = V2.release.files["own.onnx"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def serving(files: LocalFiles | SimulatedFiles, *wanted: Made, **options: int) -> ModelStore:
    store = ModelStore(files, **options)
    for seq, one in enumerate(wanted, start=1):
        install(store, one, seq)
        tried(store)
    return store


def write_folder(folder: Path, wanted: Made) -> Path:
    manifest = decode_manifest(wanted.contents[wanted.release.name], "manifest")
    files = {name: wanted.contents[one.sha256] for name, one in wanted.release.files.items()}
    write_model(folder, manifest, files)
    return folder


def test_an_ordinary_folder_is_taken_over_and_laid_out_again(root: Path, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", V1)
    with ModelStore(LocalFiles(root)) as store:
        release = store.import_folder(source, 1)
        store.commit(stage(store.record, SLOT, release, seq=1))

        started = store.start(SLOT, NOW_S)

    assert release == V1.release
    assert started.folder is not None
    assert open_model(started.folder).read_verified("shared.onnx") == SHARED
    mode = (root / blob_path(release.manifest)).stat().st_mode
    assert stat.S_IMODE(mode) == 0o444


def test_two_slots_share_their_files(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        install(store, V2, 1, OTHER)
        tried(store, OTHER)

        # Two manifests, two files of their own, one that both have.
        assert len(list((root / "blobs").iterdir())) == 5
        store.commit(set_factory(store.record, SLOT, V2.release))
        store.commit(roll_back(store.record, SLOT, Fault.OPERATOR))
        store.collect(NOW_S)

        assert store.start(OTHER, NOW_S).selection.release == V2.release


def test_a_second_writer_is_told_who_is_in_its_way(root: Path) -> None:
    with (
        ModelStore(LocalFiles(root)),
        pytest.raises(StartError, match="another process has the model store"),
    ):
        ModelStore(LocalFiles(root))

    ModelStore(LocalFiles(root)).close()


def test_a_store_that_could_not_be_opened_is_not_kept_locked(root: Path) -> None:
    serving(LocalFiles(root), V1).close()
    for name in (STATE, COPY):
        (root / name).write_bytes(b"{}")
    for _ in range(2):
        with pytest.raises(StartError, match=r"not known: .*state\.json is damaged.*Move state"):
            ModelStore(LocalFiles(root))
    for name in (STATE, COPY):
        (root / name).unlink()

    with ModelStore(LocalFiles(root)) as store:
        install(store, V1, 1)
        assert tried(store).selection.release == V1.release


@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_damaged_record_is_taken_from_its_copy_and_repaired(
    root: Path, damage: bytes | None
) -> None:
    with serving(LocalFiles(root), V1, V2) as store:
        record = store.record
    (root / STATE).unlink()
    if damage is not None:
        (root / STATE).write_bytes(damage)

    with ModelStore(LocalFiles(root)) as store:
        assert store.record == record

    assert (root / STATE).read_bytes() == (root / COPY).read_bytes()


def test_a_rotten_file_is_found_when_it_is_loaded_and_the_previous_release_serves(
    root: Path,
) -> None:
    with serving(LocalFiles(root), V1, V2) as store:
        path = root / blob_path(OWN)
        path.chmod(0o644)
        contents = bytearray(path.read_bytes())
        contents[3] ^= 1
        path.write_bytes(contents)

        started = store.start(SLOT, NOW_S)

        assert started.selection.origin is Origin.PREVIOUS
        assert started.selection.release == V1.release
        assert started.lost == (OWN.sha256,)
        # Nothing of it is kept, so that it can be fetched anew.
        assert store.missing(V2.release) == (OWN,)
        fetch(store, V2)
        assert store.start(SLOT, NOW_S).selection.release == V2.release


def test_a_trial_whose_file_is_lost_is_given_up(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        install(store, V2, 2)
        (root / blob_path(OWN)).unlink()

        started = store.start(SLOT, NOW_S)

        assert started.selection.release == V1.release
        assert [one.fault for one in store.record.slot(SLOT).bad] == [Fault.FILES_LOST]


def test_a_damaged_folder_of_a_release_is_made_anew(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        folder = store.folder(V1.release)
        (folder / "own.onnx").unlink()
        (folder / "own.onnx").write_bytes(b"another")

        started = store.start(SLOT, NOW_S)

        assert started.folder == folder
        open_model(folder)


def test_without_links_a_folder_has_bytes_of_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(LocalFiles, "link", refuse)
    with serving(LocalFiles(root), V1) as store:
        folder = store.start(SLOT, NOW_S).folder

    assert folder is not None
    assert open_model(folder).read_verified("shared.onnx") == SHARED


def test_an_attempt_beside_what_serves(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        install(store, V2, 2)
        for attempt in (1, 2, 3):
            started = store.begin_attempt(SLOT)
            trial = store.record.slot(SLOT).trial
            assert trial is not None
            assert trial.attempts == attempt
            assert started.selection.release == V2.release
            assert started.folder is not None

        started = store.begin_attempt(SLOT)

        assert started.folder is None
        assert [one.fault for one in started.selection.given_up] == [Fault.ATTEMPTS]
        with pytest.raises(ReleaseError):
            store.begin_attempt(SLOT)


def test_an_attempt_with_a_lost_file_is_given_up(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        install(store, V2, 2)
        (root / blob_path(OWN)).unlink()

        started = store.begin_attempt(SLOT)

        assert (started.folder, started.lost) == (None, (OWN.sha256,))
        assert [one.fault for one in started.selection.given_up] == [Fault.FILES_LOST]


def test_nothing_is_installed_whose_files_are_not_all_here(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        with pytest.raises(ArtifactError, match="2 of its files are not here; fetch them first"):
            store.commit(stage(store.record, SLOT, V2.release, seq=2))

        assert store.record.slot(SLOT).trial is None


def test_a_record_made_from_an_older_one_is_not_committed(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        old = assign(store.record, SLOT, V2.release, seq=2)
        store.commit(assign(store.record, SLOT, V3.release, seq=2))

        with pytest.raises(ValueError, match="no longer holds"):
            store.commit(old)


class TestPieces:
    @pytest.fixture
    def store(self, root: Path) -> ModelStore:
        return ModelStore(LocalFiles(root))

    def test_a_download_goes_on_after_a_restart(self, root: Path, store: ModelStore) -> None:
        contents = V2.contents[OWN.sha256]
        store.blobs.append(OWN, 0, contents[:5])
        store.close()

        with ModelStore(LocalFiles(root)) as again:
            assert again.blobs.offset_bytes(OWN) == 5
            with pytest.raises(ValueError, match="goes on at 5 bytes, not at 0"):
                again.blobs.append(OWN, 0, contents)
            with pytest.raises(ArtifactError, match=f"5 of the {OWN.size_bytes} bytes .*go on"):
                again.blobs.finish(OWN)
            assert again.blobs.append(OWN, 5, contents[5:]) == OWN.size_bytes
            again.blobs.finish(OWN)
            assert again.blobs.is_intact(OWN)

    def test_another_file_is_thrown_away_once_and_told(self, store: ModelStore) -> None:
        store.blobs.append(OWN, 0, bytes(OWN.size_bytes))

        with pytest.raises(ArtifactError, match=r"what arrived is not .*thrown away"):
            store.blobs.finish(OWN)

        assert store.blobs.offset_bytes(OWN) == 0
        assert not store.blobs.has(OWN)

    def test_more_than_was_promised_is_thrown_away(self, root: Path, store: ModelStore) -> None:
        store.blobs.append(OWN, 0, b"x")
        with pytest.raises(ArtifactError, match=r"more than the \d+ bytes"):
            store.blobs.append(OWN, 1, bytes(OWN.size_bytes))
        (root / "partial" / OWN.sha256).write_bytes(bytes(OWN.size_bytes + 1))

        assert store.blobs.offset_bytes(OWN) == 0
        assert list((root / "partial").iterdir()) == []

    def test_what_is_here_already_is_not_put_again(self, store: ModelStore) -> None:
        store.blobs.put(OWN, V2.contents[OWN.sha256])
        store.blobs.append(OWN, 0, b"x")

        store.blobs.finish(OWN)
        store.blobs.put(OWN, b"not even looked at")

        assert store.blobs.offset_bytes(OWN) == 0
        assert store.blobs.is_intact(OWN)

    def test_other_contents_are_not_put(self, store: ModelStore) -> None:
        with pytest.raises(ArtifactError):
            store.blobs.put(OWN, bytes(OWN.size_bytes))
        with pytest.raises(ArtifactError):
            store.blobs.put(OWN, b"short")


def test_what_does_not_fit_is_refused_with_figures_and_nothing_is_deleted() -> None:
    files = SimulatedFiles(free_bytes=64 * 2**20 + 100)
    with serving(files, V1, V2) as store, pytest.raises(NoRoomError) as error:
        store.check_room(V3.release, delta_bytes=500)
    new = sum(file.size_bytes for file in V3.release.blobs.values()) - len(SHARED) + 500
    assert f"{new} bytes more and a reserve of 67108864" in str(error.value)
    assert "67108964 are free" in str(error.value)
    assert f"Free {new - 100} more" in str(error.value)
    assert not set(V1.release.blobs) - set(files.names("blobs"))


def test_a_quota_counts_what_is_there_and_what_has_arrived(root: Path) -> None:
    with serving(LocalFiles(root), V1, reserve_bytes=0, quota_bytes=2000) as store:
        store.check_room(V2.release)
        store.blobs.append(OWN, 0, b"12345")
        store.check_room(V2.release)

        used = sum(file.size_bytes for file in V1.release.blobs.values()) + 5
        with pytest.raises(NoRoomError, match=f"quota of 2000: {used} are used"):
            store.check_room(V2.release, delta_bytes=2000)


def test_only_what_no_commit_names_is_deleted() -> None:
    files = SimulatedFiles()
    with serving(files, V1, V2) as store:
        files.write("blobs/notes.txt", b"a person's")
        store.collect(NOW_S)
        assert store.missing(V1.release) == store.missing(V2.release) == ()
        install(store, V3, 3)
        tried(store)

        collected = store.collect(NOW_S)

        assert (collected.num_blobs, collected.num_folders) == (2, 1)
        assert len(store.missing(V1.release)) == 2
        assert store.missing(V2.release) == store.missing(V3.release) == ()
        assert "notes.txt" in files.names("blobs")
        assert store.collect(NOW_S).num_bytes == 0


def test_what_was_imported_or_assigned_is_kept_until_it_is_staged(
    root: Path, tmp_path: Path
) -> None:
    with serving(LocalFiles(root), V1) as store:
        release = store.import_folder(write_folder(tmp_path / "source", V2), 2)
        store.commit(assign(store.record, SLOT, V3.release, seq=2))
        fetch(store, V3)
        store.collect(NOW_S)

        assert store.missing(release) == store.missing(V3.release) == ()


def test_old_pieces_are_deleted_after_a_week_unless_somebody_wants_them() -> None:
    files = SimulatedFiles()
    with serving(files, V1) as store:
        store.commit(assign(store.record, SLOT, V2.release, seq=2))
        store.blobs.append(OWN, 0, b"wanted")
        other = V3.release.files["own.onnx"]
        store.blobs.append(other, 0, b"not wanted")

        assert store.collect(PARTIAL_MAX_AGE_S).num_partials == 0
        assert store.collect(PARTIAL_MAX_AGE_S + 1).num_partials == 1

        assert store.blobs.offset_bytes(OWN) == 6
        assert store.blobs.offset_bytes(other) == 0


def failing(files: SimulatedFiles, code: int, *names: str) -> None:
    """From now on these operations fail."""

    def step(what: str, path: str) -> None:
        if what in names:
            raise OSError(code, os.strerror(code), path)

    files.on_step = step


WRITING = ("write", "append", "make_folder", "link", "unlink", "rename", "sync_file", "sync_folder")


def test_a_full_disk_is_told_and_what_has_arrived_stays() -> None:
    files = SimulatedFiles()
    with serving(files, V1) as store:
        store.blobs.append(OWN, 0, b"weigh")
        failing(files, errno.ENOSPC, "append")
        with pytest.raises(NoRoomError, match="No space left"):
            store.blobs.append(OWN, 5, b"ts")
        failing(files, errno.EIO, "append")
        with pytest.raises(StorageError, match="Input/output error"):
            store.blobs.append(OWN, 5, b"ts")

        assert store.blobs.offset_bytes(OWN) == 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_with_a_disk_that_takes_nothing_what_served_is_served(code: int) -> None:
    files = SimulatedFiles()
    with serving(files, V1) as store:
        record = store.record
        failing(files, code, "write")

        started = store.start(SLOT, NOW_S)

        assert started.selection.release == V1.release
        assert not started.is_recorded
        assert store.record == record


def test_a_trial_that_cannot_be_counted_is_not_loaded() -> None:
    files = SimulatedFiles()
    with serving(files, V1) as store:
        install(store, V2, 2)
        failing(files, errno.EROFS, "write")

        started = store.start(SLOT, NOW_S)

        assert started.selection.origin is Origin.CURRENT
        assert store.record.slot(SLOT).trial is not None
        with pytest.raises(StorageError):
            store.begin_attempt(SLOT)


def test_a_release_that_cannot_be_laid_out_is_not_called_bad() -> None:
    files = SimulatedFiles()
    with serving(files, V1) as store:
        install(store, V2, 2)
        failing(files, errno.ENOSPC, "link", "write")

        assert store.start(SLOT, NOW_S).selection.release == V1.release
        store.collect(NOW_S)
        files.on_step = lambda _what, _path: None
        assert store.start(SLOT, NOW_S).selection.release == V2.release


def test_where_nothing_can_be_laid_out_nothing_is_selected() -> None:
    files = SimulatedFiles()
    with ModelStore(files) as store:
        fetch(store, V1)
        store.commit(set_factory(store.record, SLOT, V1.release))
        failing(files, errno.EROFS, *WRITING)

        started = store.start(SLOT, NOW_S)

        assert (started.folder, started.is_recorded) == (None, False)
        assert store.start("empty", NOW_S).selection.release is None


def test_nothing_is_deleted_while_a_commit_is_in_doubt() -> None:
    files = SimulatedFiles()
    with serving(files, V1, V2) as store:
        failing(files, errno.EIO, "sync_folder")
        with pytest.raises(StorageError):
            store.commit(roll_back(store.record, SLOT, Fault.OPERATOR))
        files.on_step = lambda _what, _path: None

        store.blobs.put(V3.release.manifest, V3.contents[V3.release.name])
        assert store.collect(NOW_S).num_blobs == 0

        store.commit(roll_back(store.record, SLOT, Fault.OPERATOR))
        assert store.collect(NOW_S).num_blobs > 0


def test_a_rotten_file_that_cannot_be_removed_or_read_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = SimulatedFiles()
    with serving(files, V1, V2) as store:
        files.write(blob_path(OWN), bytes(OWN.size_bytes))
        failing(files, errno.EROFS, "unlink")
        assert store.start(SLOT, NOW_S).selection.release == V1.release
        files.on_step = lambda _what, _path: None
        read: Callable[[str, int, int], bytes] = files.read

        def unreadable(path: str, offset_bytes: int, limit_bytes: int) -> bytes:
            if path == blob_path(OWN):
                raise OSError(errno.EIO, "Input/output error")
            return read(path, offset_bytes, limit_bytes)

        monkeypatch.setattr(files, "read", unreadable)
        assert store.start(SLOT, NOW_S).selection.release == V1.release
        assert store.blobs.has(OWN)


def test_a_copy_that_cannot_be_repaired_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    files = SimulatedFiles()
    serving(files, V1).close()
    files.write(STATE, b"torn")
    failing(files, errno.EROFS, "write")

    with ModelStore(files) as store:
        assert store.start(SLOT, NOW_S).selection.release == V1.release
    read = files.read

    def unreadable(path: str, offset_bytes: int, limit_bytes: int) -> bytes:
        if path == STATE:
            raise OSError(errno.EIO, "Input/output error")
        return read(path, offset_bytes, limit_bytes)

    monkeypatch.setattr(files, "read", unreadable)
    with ModelStore(files) as store:
        assert store.start(SLOT, NOW_S).selection.release == V1.release


def test_a_record_that_could_not_be_read_again_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = SimulatedFiles()
    with serving(files, V1) as store:
        record = store.record
        monkeypatch.setattr(model_record, "MAX_BYTES", 100)
        with pytest.raises(StorageError, match="at most 100 are read"):
            store.commit(assign(record, SLOT, V2.release, seq=2))

        assert store.record == record


def test_a_folder_that_cannot_be_a_store_is_told() -> None:
    files = SimulatedFiles()
    failing(files, errno.EROFS, "make_folder")

    with pytest.raises(StorageError, match="cannot be opened: Read-only file system"):
        ModelStore(files)
    assert not files.is_locked


def test_a_release_that_goes_back_is_refused_by_its_store(root: Path) -> None:
    with serving(LocalFiles(root), V1) as store:
        install(store, V2, 2)
        started = store.start(SLOT, NOW_S)
        assert started.selection.generation is not None
        store.commit(fail(store.record, SLOT, started.selection.generation, Fault.ERRORS))

    with ModelStore(LocalFiles(root)) as store:
        with pytest.raises(ReleaseError, match="given up"):
            install(store, V2, 3)
        with pytest.raises(ReleaseError, match="is over"):
            store.commit(confirm(store.record, SLOT, started.selection.generation))


@pytest.mark.parametrize("contents", [b"", b"{}", b"<html>", b"\xff"])
def test_what_is_no_manifest_describes_no_release(contents: bytes) -> None:
    with pytest.raises(ArtifactError, match="not a model manifest"):
        describe_release(contents, 1, "manifest.json")


def test_a_manifest_that_lists_itself_describes_no_release() -> None:
    text = V1.contents[V1.release.name].replace(b'"own.onnx"', b'"manifest.json"')

    with pytest.raises(ArtifactError, match="describes no release"):
        describe_release(text, 1, "manifest.json")


def test_a_folder_with_a_wrong_file_is_not_taken_over(root: Path, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", V1)
    (source / "own.onnx").write_bytes(b"x" * V1.release.files["own.onnx"].size_bytes)

    with ModelStore(LocalFiles(root)) as store:
        with pytest.raises(ArtifactError, match="another digest"):
            store.import_folder(source, 1)
        with pytest.raises(ArtifactError):
            store.import_folder(tmp_path / "missing", 1)
