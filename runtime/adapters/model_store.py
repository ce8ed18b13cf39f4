"""The models that a device or a gateway keeps: one folder, one writer, one commit record.

    lock               held by the one process that writes
    state.json         the record (runtime.adapters.model_record)
    blobs/, partial/   files by digest (runtime.adapters.model_blobs)
    folders/<sha256>/  a release as a model folder, made of links to blobs; can be made anew

Rules of this file:
  * all that changes goes through ``commit``; functions of ``runtime.core`` make the next record;
  * a record that would install a release whose files are not all here is not committed;
  * after a commit that failed, nothing is deleted before one has succeeded: the disk may have kept
    either;
  * where the disk is full or read-only, what served before is served all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from runtime.adapters.model_blobs import BLOBS, PARTIAL, Blobs, storing
from runtime.adapters.model_folders import FOLDERS, lay_out, read_release
from runtime.adapters.model_garbage import RESERVE_BYTES, Collected, check_room, collect
from runtime.adapters.model_record import read_record, write_record
from runtime.core.activation import begin_attempt, fail
from runtime.core.releases import Fault, Record, Release
from runtime.core.selection import Origin, Selection, select_at_start
from runtime.errors import ArtifactError, StartError, StorageError
from runtime.logs import get_logger
from runtime.manifest import ModelFile
from runtime.ports_files import FileSystem

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Started:
    """What to load, in ``folder``; all of it is None where the store has nothing that is whole.

    ``lost`` are digests of files that were missing or damaged. ``is_recorded`` is False where the
    disk did not take the record, and what served before was selected without it.
    """

    selection: Selection
    folder: Path | None = None
    lost: tuple[str, ...] = ()
    is_recorded: bool = True


class ModelStore:
    """A context manager; every method raises ``StorageError`` where the disk fails.

    Args:
        files: the folder of the store.
        quota_bytes: of whole and partial files together; None for no bound but the disk.
        reserve_bytes: what is left free on the disk for others.

    Raises:
        StartError: another process has it, or its record is damaged; the text says what to do.
        StorageError: the folder cannot be used.
    """

    def __init__(
        self,
        files: FileSystem,
        *,
        quota_bytes: int | None = None,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self._files, self._quota_bytes, self._reserve_bytes = files, quota_bytes, reserve_bytes
        self.blobs = Blobs(files)
        self._held: set[str] = set()
        self._is_in_doubt = False
        self._log = get_logger(store=str(files.full_path("")))
        with storing("the model store cannot be locked"):
            if not files.lock(LOCK):
                raise StartError(
                    f"another process has the model store {files.full_path('')}: stop it first, or "
                    "give this one another state folder"
                )
        try:
            self._record = self._opened()
        except BaseException:
            files.unlock()
            raise

    @property
    def record(self) -> Record:
        """As committed last."""
        return self._record

    def commit(self, record: Record) -> None:
        """Makes ``record`` the one that holds, durably; it was made from ``self.record``.

        Raises:
            ValueError: it was made from an older one.
            ArtifactError: it would install a release whose files are not all here.
            StorageError: it may hold after a restart or not; ``self.record`` is as before.
        """
        if record.commits != self._record.commits:
            raise ValueError("this record was made from one that no longer holds")
        self._check_files(record)
        record = replace(record, commits=record.commits + 1)
        self._is_in_doubt = True
        write_record(self._files, record)
        self._record, self._is_in_doubt = record, False
        self._held.difference_update(record.blobs)

    def start(self, slot: str, now_s: float) -> Started:
        """What a process that starts is to load; it is verified, counted and laid out.

        ``now_s`` comes from a clock that is comparable over restarts. Where a trial cannot be
        counted it is not loaded.
        """
        record, lost, is_recorded = self._record, set[str](), True
        while True:
            there = self._there(record, slot) - lost
            selection = select_at_start(record, slot, there, now_s)
            release, folder = selection.release, None
            if selection.split is not None:
                blobs = selection.split.release.blobs
                damaged = {one for one, file in blobs.items() if not self._is_ok(file)}
                if damaged:
                    lost |= damaged
                    continue
            if release is not None:
                damaged = {one for one, file in release.blobs.items() if not self._is_ok(file)}
                if damaged:
                    lost |= damaged
                    continue
                try:
                    folder = self.folder(release)
                except StorageError as error:
                    # Not a fault of the release: the record is not to say so.
                    self._log.error("release.not_laid_out", name=release.name, error=str(error))
                    is_recorded = False
                    record = _without_trial(record, slot)
                    if selection.origin is not Origin.TRIAL:
                        lost.add(release.name)
                    continue
            if is_recorded and selection.record != record:
                try:
                    self.commit(selection.record)
                except StorageError as error:
                    self._log.error("record.not_written", error=str(error))
                    is_recorded = False
                    record = _without_trial(record, slot)
                    continue
            return Started(selection, folder, tuple(sorted(lost)), is_recorded)

    def begin_attempt(self, slot: str) -> Started:
        """Counts an attempt of the trial beside what serves, verifies it and lays it out.

        Raises:
            ReleaseError: nothing is on trial.
        """
        before = self._record.slot(slot)
        record = begin_attempt(self._record, slot)
        trial, lost = record.slot(slot).trial, tuple[str, ...]()
        if trial is not None:
            blobs = trial.release.blobs.items()
            lost = tuple(sorted(one for one, file in blobs if not self._is_ok(file)))
            if lost:
                record = fail(record, slot, trial.generation, Fault.FILES_LOST)
        folder = None if trial is None or lost else self.folder(trial.release)
        self.commit(record)
        given_up = tuple(one for one in record.slot(slot).bad if one not in before.bad)
        if trial is None or lost:
            return Started(Selection(record, given_up=given_up), None, lost)
        selection = Selection(record, trial.release, Origin.TRIAL, trial.generation)
        return Started(selection, folder)

    def missing(self, release: Release) -> tuple[ModelFile, ...]:
        """The files of a release that are not here as a whole."""
        return tuple(file for file in release.blobs.values() if not self.blobs.has(file))

    def check_room(self, release: Release, delta_bytes: int = 0) -> None:
        """Says nothing where what is missing of a release, and a delta for it, would fit.

        Raises:
            NoRoomError: it would not; nothing was deleted, the text has the figures.
        """
        missing = self.missing(release)
        new = sum(file.size_bytes - self.blobs.offset_bytes(file) for file in missing)
        self.check_bytes(new + delta_bytes)

    def check_bytes(self, new_bytes: int) -> None:
        """Says nothing where so much more would fit; else raises ``NoRoomError``."""
        quota_bytes, reserve_bytes = self._quota_bytes, self._reserve_bytes
        with storing("what is free cannot be found out"):
            check_room(self._files, new_bytes, quota_bytes=quota_bytes, reserve_bytes=reserve_bytes)

    def import_folder(self, folder: Path, version: int) -> Release:
        """Takes over the files of an ordinary model folder; the record stays as it is.

        They are kept until a commit names them, or this process ends.

        Raises:
            ArtifactError: the folder is not a whole model.
            NoRoomError: it does not fit.
        """
        release, model, manifest = read_release(folder, version)
        self.check_room(release)
        self.hold(release)
        for name, file in release.files.items():
            self.blobs.put(file, model.read_verified(name))
        self.blobs.put(release.manifest, manifest)
        return release

    def hold(self, release: Release) -> None:
        """Keeps its files from ``collect`` until a commit names them, or this process ends."""
        self._held.update(release.blobs)

    def collect(self, now_s: float) -> Collected:
        """Deletes what the committed record does not name; ``now_s`` in seconds since 1970."""
        if self._is_in_doubt:
            return Collected()
        slots = self._record.slots.values()
        with storing("what is not needed any more cannot be deleted"):
            return collect(
                self._files,
                blobs=self._record.blobs.keys() | self._held,
                releases={release.name for slot in slots for release in slot.installed},
                now_s=now_s,
            )

    def folder(self, release: Release) -> Path:
        """Lays a release out as a model folder for ``runtime.adapters.artifacts.open_model``."""
        with storing("a release cannot be laid out"):
            return lay_out(self._files, release)

    def close(self) -> None:
        """Gives the folder back; safe to call twice."""
        self._files.unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> Record:
        with storing("the model store cannot be opened"):
            for name in (BLOBS, PARTIAL, FOLDERS):
                self._files.make_folder(name)
            # What is seen now may have been renamed by a process that was killed before it synced.
            self._files.sync_folder("")
            self._files.sync_folder(BLOBS)
        found = read_record(self._files)
        if found is None:
            return Record()
        if not found.is_twice:
            try:
                write_record(self._files, found.record)
            except StorageError as error:
                self._log.error("record.not_copied", error=str(error))
        return found.record

    def _there(self, record: Record, slot: str) -> set[str]:
        installed = record.slot(slot).installed
        return {
            digest
            for release in installed
            for digest, file in release.blobs.items()
            if self.blobs.has(file)
        }

    def _is_ok(self, file: ModelFile) -> bool:
        try:
            return self.blobs.is_intact(file)
        except StorageError as error:
            self._log.error("blob.not_removed", sha256=file.sha256, error=str(error))
            return False

    def _check_files(self, record: Record) -> None:
        for name, slot in record.slots.items():
            known = {release.name for release in self._record.slot(name).installed}
            for release in slot.installed:
                missing = self.missing(release) if release.name not in known else ()
                if missing:
                    raise ArtifactError(
                        f"{release.model} version {release.version} cannot be installed in "
                        f"{name!r}: {len(missing)} of its files are not here; fetch them first"
                    )


def _without_trial(record: Record, slot: str) -> Record:
    state = replace(record.slot(slot), trial=None, split=None)
    return replace(record, slots=record.slots | {slot: state})
