"""Releases of models, and the one record of what a store has committed to: types and bytes.

Rules of this file:
  * a release is named by the SHA-256 of its signed manifest; what else is said of it here was read
    from that manifest;
  * the record is the only thing that says which release is served, tried, kept or refused; what it
    does not name may be deleted;
  * written down, the record is JSON that a person can read, with its SHA-256 in the last line.
    Types only grow: new fields have defaults, unknown ones are skipped.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Annotated

import msgspec

from runtime.errors import ArtifactError, StartError
from runtime.manifest import MANIFEST_NAME, Digest, FileName, ModelFile, Name

FORMAT = 1
MAX_FILES = 256
# Releases that are remembered as bad, of one slot; the oldest is forgotten first.
MAX_BAD = 64
MAX_SLOTS = 64
MAX_NAMES = 256
# Larger integers are not the same in every JSON reader.
MAX_NUMBER = 2**53 - 1

Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]


class Fault(enum.StrEnum):
    """Why a release was given up."""

    ATTEMPTS = "attempts"
    LOAD_FAILED = "load_failed"
    OUT_OF_MEMORY = "out_of_memory"
    FILES_LOST = "files_lost"
    GOLDEN_MISMATCH = "golden_mismatch"
    INVALID_OUTPUT = "invalid_output"
    ERRORS = "errors"
    LATENCY = "latency"
    ESCALATIONS = "escalations"
    DISAGREEMENT = "disagreement"
    TOO_FEW = "too_few"
    CRASH_LOOP = "crash_loop"
    OPERATOR = "operator"


class Release(msgspec.Struct, frozen=True):
    """One signed version of one model.

    ``manifest`` is the signed ``manifest.json``, ``version`` its integer version: a higher one is
    newer. ``files`` are all files beside the manifest; a model of servers alone has none.
    """

    manifest: ModelFile
    model: Name
    version: Number
    files: Annotated[dict[FileName, ModelFile], msgspec.Meta(max_length=MAX_FILES)]

    def __post_init__(self) -> None:
        """Refuses what no single field shows to be wrong.

        Raises:
            ValueError: a file has the manifest's name, or one digest has two sizes.
        """
        if MANIFEST_NAME in self.files:
            raise ValueError(f"{MANIFEST_NAME} is the manifest; no other file may be called that")
        sizes: dict[str, int] = {}
        for file in (self.manifest, *self.files.values()):
            if sizes.setdefault(file.sha256, file.size_bytes) != file.size_bytes:
                raise ValueError(f"the digest {file.sha256} is given with two sizes")

    @property
    def name(self) -> str:
        """The SHA-256 of its manifest, lower-case hexadecimal."""
        return self.manifest.sha256

    @property
    def blobs(self) -> dict[str, ModelFile]:
        """All its files and its manifest, by digest, each once."""
        return {one.sha256: one for one in (self.manifest, *self.files.values())}


class Trial(msgspec.Struct, frozen=True):
    """A release on probation; ``attempts`` counts loads that were begun.

    ``generation`` tells it from earlier trials of the slot, so that a late verdict about another
    one changes nothing.
    """

    generation: Number
    release: Release
    attempts: Number = 0


class Split(msgspec.Struct, frozen=True):
    """A release on probation that answers a share of the requests, beside what serves.

    The context key ``split_by`` of a request has the value that is hashed with ``experiment``
    (``runtime.core.splitting``).
    """

    trial: Trial
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    experiment: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    split_by: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

    @property
    def release(self) -> Release:
        """What answers the share."""
        return self.trial.release


class Bad(msgspec.Struct, frozen=True):
    """A release that was given up here; ``seq`` is the latest assignment at that time."""

    manifest_sha256: Digest
    model: Name
    version: Number
    fault: Fault
    seq: Number


class Starts(msgspec.Struct, frozen=True):
    """When the release that was loaded last, and was not on trial, was loaded, in seconds."""

    manifest_sha256: Digest
    at_s: tuple[float, ...] = ()


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place for one model at a time, and what came before it.

    ``wanted`` was assigned and is not staged yet; ``factory`` came with the package. ``seq`` is the
    number of the latest assignment that was accepted, ``assigned`` the release that it named. There
    is a ``trial`` or a ``split``, never both.
    """

    current: Release | None = None
    previous: Release | None = None
    trial: Trial | None = None
    wanted: Release | None = None
    factory: Release | None = None
    bad: Annotated[tuple[Bad, ...], msgspec.Meta(max_length=MAX_BAD)] = ()
    seq: Number = 0
    assigned: Digest | None = None
    generation: Number = 0
    starts: Starts | None = None
    split: Split | None = None

    @property
    def installed(self) -> tuple[Release, ...]:
        """What may be loaded: all of it has to be there in whole."""
        trial = self.trial.release if self.trial else None
        split = self.split.release if self.split else None
        kept = (trial, split, self.current, self.previous, self.factory)
        return tuple(release for release in kept if release is not None)

    def is_bad(self, release: Release) -> bool:
        """Whether it was given up here, and is not to be tried again."""
        return any(one.manifest_sha256 == release.name for one in self.bad)


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a store has committed to.

    ``commits`` counts commits. ``floors`` are the lowest versions that may be installed, by model;
    ``metadata_floors`` the lowest versions of signed metadata that may be believed, by role;
    ``verified_time_s`` is the latest signing time that was verified, in seconds since 1970.
    """

    format: Number = FORMAT
    commits: Number = 0
    slots: Annotated[dict[Name, Slot], msgspec.Meta(max_length=MAX_SLOTS)] = {}
    floors: Annotated[dict[Name, Number], msgspec.Meta(max_length=MAX_NAMES)] = {}
    metadata_floors: Annotated[dict[Name, Number], msgspec.Meta(max_length=MAX_NAMES)] = {}
    verified_time_s: float = 0.0

    def slot(self, name: str) -> Slot:
        """The slot of that name; an empty one where there is none."""
        return self.slots.get(name, Slot())

    @property
    def blobs(self) -> dict[str, ModelFile]:
        """All blobs that must be kept, by digest."""
        named: dict[str, ModelFile] = {}
        for slot in self.slots.values():
            for release in (*slot.installed, *((slot.wanted,) if slot.wanted else ())):
                named |= release.blobs
        return named


class _Head(msgspec.Struct, frozen=True):
    """What every later format still has."""

    format: int = FORMAT


_DECODER = msgspec.json.Decoder(Record)
_HEAD_DECODER = msgspec.json.Decoder(_Head)
_DIGEST_LINE_BYTES = 65


def encode_record(record: Record) -> bytes:
    """The record as it is written down, the same bytes for the same record."""
    text = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n"
    return text + _digest_line(text)


def decode_record(contents: bytes, source: str) -> Record:
    """The record in ``contents``; ``source`` names it in errors.

    Raises:
        ArtifactError: torn, changed, or not a record at all.
        StartError: a later version of Tierwise has written it.
    """
    text, line = contents[:-_DIGEST_LINE_BYTES], contents[-_DIGEST_LINE_BYTES:]
    if not text or line != _digest_line(text):
        raise ArtifactError(
            f"{source} is damaged: its checksum is not the one in its last line "
            f"({len(contents)} bytes)"
        )
    try:
        found = _HEAD_DECODER.decode(text).format
        if found > FORMAT:
            raise StartError(
                f"{source} was written by a later version of Tierwise (format {found}, known: "
                f"{FORMAT}): update this one, or give it another folder"
            )
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{source} is not the record of a model store: {error}") from error


def _digest_line(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode() + b"\n"
