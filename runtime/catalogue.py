"""What the signed catalogue says about one version of a model: its variants, files and facts.

Rules of this file:
  * an entry is a small JSON file, the same bytes for the same entry. It is what keys of the
    catalogue sign for, by its path, length and digest; it pins all files of the version by theirs;
  * an entry never changes: that a version was withdrawn is said by the catalogue, not in here;
  * unknown fields are skipped, new fields have defaults;
  * no IO, no keys: ``runtime.adapters.trust`` verifies, ``cloud_tier.repository`` signs.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from runtime.core.releases import MAX_FILES, MAX_NUMBER, Number, Release
from runtime.errors import ArtifactError
from runtime.manifest import MANIFEST_NAME, Digest, FileName, Measured, ModelFile, Name, Provenance
from runtime.messages import Tier

FORMAT = 1
MAX_ENTRY_BYTES = 64 * 1024
MAX_VARIANTS = 16
MAX_TAGS = 32
MAX_NOTES = 4096
# Beside the manifest's files, in the folder of every variant that has them.
POLICY_NAME, GOLDEN_NAME = "policy.json", "golden.npz"
REGION_ROLE = "region-"
# Whose keys sign assignments (runtime.assignments); it signs for no path of the catalogue.
ROLLOUT_ROLE = "rollout"
_PATH = re.compile(
    r"(?:region/(?P<region>[^/]+)/)?(?P<model>[^/]+)/(?P<version>0|[1-9][0-9]{0,15})\.json\Z"
)

Version = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
Tag = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]*\Z", max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_NOTES)]


class Requirements(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device must be and have: all ``hardware`` and ``runtime`` tags.

    ``min_runtime`` maps an engine's package name to the oldest version that runs the files.
    """

    hardware: Annotated[tuple[Tag, ...], msgspec.Meta(max_length=MAX_TAGS)] = ()
    runtime: Annotated[tuple[Tag, ...], msgspec.Meta(max_length=MAX_TAGS)] = ()
    min_runtime: Annotated[dict[Tag, Tag], msgspec.Meta(max_length=MAX_TAGS)] = {}


class Variant(msgspec.Struct, frozen=True, omit_defaults=True):
    """One build of a version: all files of its model folder, ``manifest.json`` among them.

    ``model_sha256`` is ``runtime.manifest.model_digest``: what policies are fitted for.
    """

    files: Annotated[dict[FileName, ModelFile], msgspec.Meta(min_length=2, max_length=MAX_FILES)]
    requirements: Requirements = Requirements()
    accept_at: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(gt=0)] | None = None
    model_sha256: Digest | None = None
    measured: Measured | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        """Refuses files that are no model folder.

        Raises:
            ValueError: it has no manifest.
        """
        if MANIFEST_NAME not in self.files:
            raise ValueError(f"a variant has no {MANIFEST_NAME}: its files are no model folder")

    @property
    def size_bytes(self) -> int:
        """All its files."""
        return sum(file.size_bytes for file in self.files.values())


class CatalogueEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of one model; a higher ``version`` is newer.

    ``region`` is empty where it is for everybody, else the only region that it is for.
    """

    model: Name
    version: Version
    tier: Tier
    variants: Annotated[dict[Name, Variant], msgspec.Meta(min_length=1, max_length=MAX_VARIANTS)]
    region: Name | None = None
    notes: Text = ""
    format: Number = FORMAT

    def __post_init__(self) -> None:
        """Refuses what no single field shows to be wrong.

        Raises:
            ValueError: two variants have the same manifest, or files that are no release.
        """
        manifests = {one.files[MANIFEST_NAME].sha256 for one in self.variants.values()}
        if len(manifests) != len(self.variants):
            raise ValueError("two variants have the same manifest: they are one and the same")
        for name in self.variants:
            self.release(name)

    @property
    def path(self) -> str:
        """Where it is in the catalogue."""
        return entry_path(self.model, self.version, self.region)

    def release(self, variant: str) -> Release:
        """What a device installs when this variant is assigned to it.

        Raises:
            KeyError: there is no such variant.
            ValueError: one digest is given with two sizes.
        """
        files = dict(self.variants[variant].files)
        return Release(files.pop(MANIFEST_NAME), self.model, self.version, files)


class EntryPath(msgspec.Struct, frozen=True):
    """What the path of an entry says."""

    model: str
    version: int
    region: str | None


def entry_path(model: str, version: int, region: str | None = None) -> str:
    """``<model>/<version>.json``; below ``region/<region>/`` where it is for one region."""
    return f"{f'region/{region}/' if region else ''}{model}/{version}.json"


def parse_path(path: str) -> EntryPath:
    """The parts of the path of an entry.

    Raises:
        ArtifactError: no entry has such a path.
    """
    found = _PATH.match(path)
    if found is None:
        raise ArtifactError(
            f"{path!r} is no entry of a catalogue: those are called MODEL/VERSION.json or "
            "region/REGION/MODEL/VERSION.json"
        )
    return EntryPath(found["model"], int(found["version"]), found["region"])


def check_name(name: str) -> str:
    """A name of a model, a variant or a region.

    Raises:
        ArtifactError: it has characters that no path may have.
    """
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise ArtifactError(
            f"{name!r} is no name: letters, digits, '.', '_' and '-', beginning with a letter or "
            "digit, at most 128"
        ) from error


def role_of(region: str) -> str:
    """The role that signs what is for one region."""
    return f"{REGION_ROLE}{region}"


def role_pattern(region: str) -> str:
    """The paths that this role may sign for; ``*`` does not go over a ``/``."""
    return f"region/{region}/*/*"


_DECODER = msgspec.json.Decoder(CatalogueEntry)


def encode_entry(entry: CatalogueEntry) -> bytes:
    """JSON with sorted keys, the same bytes for the same entry.

    Raises:
        ArtifactError: it is larger than readers take.
    """
    contents = msgspec.json.encode(entry, order="sorted") + b"\n"
    if len(contents) > MAX_ENTRY_BYTES:
        raise ArtifactError(
            f"the entry {entry.path} has {len(contents)} bytes; at most {MAX_ENTRY_BYTES} are "
            "read: shorten the notes, or publish fewer files or variants"
        )
    return contents


def decode_entry(contents: bytes, path: str) -> CatalogueEntry:
    """The entry in ``contents``, which is at ``path`` of a catalogue.

    Raises:
        ArtifactError: too large, not an entry, of a later format, or one for another path.
    """
    if len(contents) > MAX_ENTRY_BYTES:
        raise ArtifactError(
            f"{path} has {len(contents)} bytes; an entry has at most {MAX_ENTRY_BYTES}"
        )
    try:
        entry = _DECODER.decode(contents)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is no entry of a catalogue: {error}") from error
    if entry.format > FORMAT:
        raise ArtifactError(
            f"{path} has format {entry.format}, and {FORMAT} is known here: update Tierwise"
        )
    if entry.path != path:
        raise ArtifactError(
            f"{path} holds the entry {entry.path}: it was published under a wrong name"
        )
    return entry
