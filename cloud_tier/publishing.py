"""From a model folder to a variant in the catalogue: what is checked before anything is signed.

Rules of this file:
  * what cannot be loaded, run and reproduced here is not published;
  * the files go out as they are, but for the version in the manifest, which is the catalogue's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runtime.adapters.artifacts import ModelFolder, describe_file, open_model
from runtime.adapters.engines import load_members
from runtime.adapters.golden import check_golden, make_golden
from runtime.adapters.model_blobs import blob_path, storing
from runtime.adapters.policy_file import open_gearbox
from runtime.adapters.prototypes import read_prototypes
from runtime.catalogue import GOLDEN_NAME, POLICY_NAME, Requirements, Variant
from runtime.core.releases import Release
from runtime.delta import is_worthwhile, make_delta
from runtime.errors import ArtifactError, StartError
from runtime.manifest import MANIFEST_NAME, ModelFile, ModelManifest, decode_manifest, model_digest
from runtime.ports_files import FileSystem

# zstd's: what a gateway would take while somebody waits.
DELTA_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """A variant that passed; ``contents`` by digest, ``said`` is what a person should know."""

    variant: Variant
    manifest: ModelManifest
    contents: dict[str, bytes]
    said: tuple[str, ...]


def prepare(
    folder: Path,
    *,
    model: str,
    version: int,
    policy: Path | None,
    without_policy: bool,
    hardware: tuple[str, ...] = (),
    engines: tuple[str, ...] = (),
) -> Prepared:
    """Checks a model folder and describes it.

    Args:
        folder: with the manifest and its files; ``golden.npz`` and ``policy.json`` are taken along.
        model: what it is published as: its name, or that with its tier (``fashion-edge``).
        version: its integer version.
        policy: in place of the folder's own.
        without_policy: there is none, on purpose.
        hardware: tags that a device must have.
        engines: tags that its runtime must have.

    Raises:
        ArtifactError: files or manifest are wrong, or golden outputs are not reproduced.
        BackendError: a member does not run.
        PolicyError: the policy is none, or for another model.
        StartError: another name, or no policy.
    """
    opened = open_model(folder)
    names = (opened.manifest.name, f"{opened.manifest.name}-{opened.manifest.tier.value}")
    if model not in names:
        raise StartError(
            f"{folder} holds the model {names[0]!r}: publish it as --model {names[0]} or "
            f"{names[1]}, or change the name in its manifest"
        )
    read_prototypes(opened)
    golden, note = _golden(folder, opened)
    said = [note]
    manifest = _renumbered(folder, version)
    files = {name: opened.read_verified(name) for name in opened.manifest.files}
    files |= {MANIFEST_NAME: manifest, GOLDEN_NAME: golden}
    policy = policy or folder / POLICY_NAME
    if without_policy:
        said.append("without a policy: `model.accept_at` decides")
    elif not policy.is_file():
        raise StartError(
            f"there is no {policy}: fit one (docs/policies.md) and give --policy FILE, or say "
            "--without-policy"
        )
    else:
        open_gearbox(policy, opened.manifest.tier, opened.manifest)
        files[POLICY_NAME] = policy.read_bytes()
    found = decode_manifest(manifest, str(folder / MANIFEST_NAME))
    variant = Variant(
        {name: describe_file(contents) for name, contents in files.items()},
        Requirements(hardware, engines, found.min_runtime),
        accept_at=found.accept_at,
        temperature=found.temperature,
        model_sha256=model_digest(found),
        measured=found.measured,
        provenance=found.provenance,
    )
    contents = {describe_file(one).sha256: one for one in files.values()}
    return Prepared(variant, found, contents, tuple(said))


def _golden(folder: Path, opened: ModelFolder) -> tuple[bytes, str]:
    """Golden examples that the model reproduces here, and where they are from."""
    path = folder / GOLDEN_NAME
    with ExitStack() as stack:
        backends = load_members(opened)
        for backend in backends:
            stack.callback(backend.close)
        if path.is_file():
            golden = path.read_bytes()
            num_outputs = check_golden(golden, opened.manifest, backends, str(path))
            return golden, f"{num_outputs} golden outputs are reproduced"
        golden = make_golden(opened.manifest, backends)
        return golden, f"there is no {GOLDEN_NAME}: golden examples were made from this model"


def accuracy_floor(manifest: ModelManifest) -> float | None:
    """What a held set must reach: what was measured less what a rebuild may differ by."""
    if manifest.measured is None:
        return None
    tolerance = manifest.provenance.rebuild_tolerance if manifest.provenance else 0.0
    return manifest.measured.accuracy - tolerance


@dataclass(frozen=True, slots=True)
class Download:
    """What a device with the version before takes for a file; 0 bytes where it has it."""

    name: str
    full_bytes: int
    delta_bytes: int | None

    @property
    def sent_bytes(self) -> int:
        """The delta where that is worth it, else the file."""
        if self.delta_bytes is None or not is_worthwhile(self.delta_bytes, self.full_bytes):
            return self.full_bytes
        return self.delta_bytes


def predict_downloads(
    before: Release, after: Release, contents: Mapping[str, bytes]
) -> Iterator[Download]:
    """What an update takes, file by file; ``contents`` by digest has what is there of both."""
    for name, file in sorted(after.files.items()):
        old = before.files.get(name)
        delta_bytes = None
        if old is not None and old.sha256 == file.sha256:
            delta_bytes = 0
        elif old is not None and {old.sha256, file.sha256} <= contents.keys():
            delta = make_delta(contents[old.sha256], contents[file.sha256], level=DELTA_LEVEL)
            delta_bytes = len(delta)
        yield Download(name, file.size_bytes, delta_bytes)


def read_blobs(files: FileSystem, wanted: Iterable[ModelFile]) -> dict[str, bytes]:
    """Those files that a repository has, by digest; one that has rotted is left out.

    Raises:
        StorageError: it cannot be read.
    """
    found: dict[str, bytes] = {}
    for file in wanted:
        with storing(f"{file.sha256} cannot be read"):
            if files.size_bytes(blob_path(file)) is not None:
                contents = files.read(blob_path(file), 0, file.size_bytes)
                if describe_file(contents) == file:
                    found[file.sha256] = contents
    return found


def _renumbered(folder: Path, version: int) -> bytes:
    """The manifest with the catalogue's version in it, and everything else as it is."""
    contents = (folder / MANIFEST_NAME).read_bytes()
    fields = msgspec.json.decode(contents)
    if not isinstance(fields, dict):
        raise ArtifactError(f"{folder / MANIFEST_NAME} is no manifest")
    if fields.get("version") == str(version):
        return contents
    text = msgspec.json.encode(fields | {"version": str(version)}, order="sorted")
    return msgspec.json.format(text, indent=2) + b"\n"
