"""Between ordinary model folders and releases: what comes into a store, and what is loaded from it.

folders/<sha256>/  a release as a model folder, made of links to blobs; can be made anew
"""

from __future__ import annotations

from pathlib import Path

from runtime.adapters.artifacts import MAX_MANIFEST_BYTES, ModelFolder, read_manifest, sha256_of
from runtime.adapters.model_blobs import blob_path, holds
from runtime.core.releases import Release
from runtime.errors import ArtifactError
from runtime.logs import get_logger
from runtime.manifest import MANIFEST_NAME, ModelFile, decode_manifest
from runtime.ports_files import FileSystem

FOLDERS = "folders"


def describe_release(contents: bytes, version: int, source: str) -> Release:
    """The release that a signed manifest describes; ``version`` is its integer version.

    Raises:
        ArtifactError: it is not a manifest, or lists what no release may have.
    """
    manifest = decode_manifest(contents, source)
    file = ModelFile(sha256_of(contents), len(contents))
    try:
        return Release(file, manifest.name, version, manifest.files)
    except ValueError as error:
        raise ArtifactError(f"{source} describes no release: {error}") from error


def read_release(folder: Path, version: int) -> tuple[Release, ModelFolder, bytes]:
    """What a folder holds, the folder to read its files from, and its manifest's bytes.

    Raises:
        ArtifactError: it has no manifest, or one that describes no release.
    """
    read_manifest(folder)
    path = folder / MANIFEST_NAME
    with path.open("rb") as file:
        contents = file.read(MAX_MANIFEST_BYTES)
    release = describe_release(contents, version, str(path))
    return release, ModelFolder(folder, decode_manifest(contents, str(path))), contents


def lay_out(files: FileSystem, release: Release) -> Path:
    """Makes the folder of a release, or what is missing and damaged of it.

    Raises:
        OSError: it cannot be made.
    """
    folder = f"{FOLDERS}/{release.name}"
    files.make_folder(folder)
    for name, file in (release.files | {MANIFEST_NAME: release.manifest}).items():
        path = f"{folder}/{name}"
        if holds(files, path, file):
            continue
        if files.size_bytes(path) is not None:
            files.unlink(path)
        try:
            files.link(blob_path(file), path)
        except OSError as error:
            # FAT and some others have no links: the folder takes bytes of its own there.
            get_logger().info("blob.not_linked", error=str(error))
            files.write(path, files.read(blob_path(file), 0, file.size_bytes))
    return files.full_path(folder)
