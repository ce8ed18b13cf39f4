"""Model folders on disk: nothing is used before it is verified, and nothing is half written.

A folder holds ``manifest.json`` and the files that it lists. ``read_verified`` hands out the very
bytes whose digest was checked, so a file exchanged between check and use changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ArtifactError
from runtime.manifest import (
    MANIFEST_NAME,
    ModelFile,
    ModelManifest,
    decode_manifest,
    encode_manifest,
)

MAX_MANIFEST_BYTES = 1 << 20
REMEDY = "Nothing of it was loaded; get the model folder again from where it was published."
_HEAD_BYTES = 64
# What is often saved in place of a file, by how it starts.
_IMPOSTORS = (
    (b"<!doctype html", "an HTML page (a login or error page?)"),
    (b"<html", "an HTML page (a login or error page?)"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder whose manifest was read and whose files were all verified once."""

    folder: Path
    manifest: ModelManifest

    def read_verified(self, name: str) -> bytes:
        """The contents of one listed file, verified anew.

        Raises:
            ArtifactError: the file is missing or not the one of the manifest.
            KeyError: the manifest lists no such file.
        """
        return _read_verified(self.folder, name, self.manifest.files[name])


def sha256_of(contents: bytes) -> str:
    """Lower-case hexadecimal digest, as manifests write it."""
    return hashlib.sha256(contents).hexdigest()


def describe_file(contents: bytes) -> ModelFile:
    """The manifest entry of a file with these contents."""
    return ModelFile(sha256=sha256_of(contents), size_bytes=len(contents))


def open_model(folder: Path) -> ModelFolder:
    """Reads a model folder's manifest and verifies every file that it lists.

    Raises:
        ArtifactError: the folder, the manifest or a file is missing, damaged or not what it should
            be; the text names the file, what was expected, what was found, and what to do.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        _read_verified(folder, name, expected)
    return ModelFolder(folder, manifest)


def read_manifest(folder: Path) -> ModelManifest:
    """The manifest of a folder; says nothing about the folder's files.

    Raises:
        ArtifactError: it is missing or not a manifest.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder; a model folder was expected there")
    contents = _read_inside(folder, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    if len(contents) > MAX_MANIFEST_BYTES:
        raise ArtifactError(
            f"{folder / MANIFEST_NAME} has more than {MAX_MANIFEST_BYTES} bytes: not a manifest"
        )
    impostor = _impostor(contents)
    if impostor:
        raise ArtifactError(f"{folder / MANIFEST_NAME} is {impostor}, not a manifest. {REMEDY}")
    return decode_manifest(contents, str(folder / MANIFEST_NAME))


def write_artifact(path: Path, contents: bytes) -> None:
    """Puts a file in place as a whole: after a crash there is the old one or the new one.

    Written beside its destination, synced, renamed, and the folder synced.

    Raises:
        ArtifactError: the file could not be written (disk full, no permission); the old one stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner can read; a model is no secret.
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path} could not be written: {error.strerror}") from error


def write_model(folder: Path, manifest: ModelManifest, files: dict[str, bytes]) -> None:
    """Writes a model folder, the manifest last: a reader finds it complete or finds it damaged.

    Raises:
        ArtifactError: a file could not be written.
        ValueError: ``files`` are not the files that the manifest lists.
    """
    listed = {name: describe_file(contents) for name, contents in files.items()}
    if listed != manifest.files:
        raise ValueError("these are not the files that the manifest lists")
    for name, contents in files.items():
        write_artifact(folder / name, contents)
    write_artifact(folder / MANIFEST_NAME, encode_manifest(manifest))


def _read_verified(folder: Path, name: str, expected: ModelFile) -> bytes:
    contents = _read_inside(folder, name, max(expected.size_bytes, _HEAD_BYTES))
    found = describe_file(contents) if contents else None
    if found == expected:
        return contents
    path = folder / name
    impostor = _impostor(contents)
    if impostor:
        raise ArtifactError(f"{path} is {impostor}, not the model file. {REMEDY}")
    if len(contents) != expected.size_bytes:
        size = path.stat().st_size
        kind = "truncated" if size < expected.size_bytes else "too long"
        raise ArtifactError(
            f"{path} is {kind}: expected {expected.size_bytes} bytes, found {size}. {REMEDY}"
        )
    raise ArtifactError(
        f"{path} has another digest: expected sha256 {expected.sha256}, "
        f"found {sha256_of(contents)}. {REMEDY}"
    )


def _read_inside(folder: Path, name: str, limit: int) -> bytes:
    """At most ``limit`` bytes of a regular file inside the folder, and one more if it is longer."""
    path = folder / name
    try:
        resolved = path.resolve(strict=True)
        if not resolved.is_relative_to(folder.resolve()):
            raise ArtifactError(f"{path} is a link out of its folder, to {resolved}. {REMEDY}")
        if not resolved.is_file():
            raise ArtifactError(f"{path} is not a regular file. {REMEDY}")
        with resolved.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing. {REMEDY}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise ArtifactError(f"{path} cannot be read: {error}") from error


def _impostor(contents: bytes) -> str:
    start = contents[:_HEAD_BYTES].lstrip().lower()
    return next((what for prefix, what in _IMPOSTORS if start.startswith(prefix)), "")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
