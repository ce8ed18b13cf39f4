"""What a model folder says about itself: files, tensors, thresholds, and how good it was.

Rules of this file:
  * a manifest is JSON that a person can read; unknown fields are skipped, new fields have defaults;
  * whatever is loaded has been checked as a whole: a manifest that contradicts itself never
    reaches a tier service;
  * no IO: ``runtime.adapters.artifacts`` reads folders and checks digests.

The probabilities that ``accept_at`` refers to are ``softmax(logits / temperature)``. The logits of
several members together are the logarithm of the weighted mean of each member's
``softmax(logits)``: first pooled, then calibrated.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import Annotated, Literal

import msgspec

from runtime.errors import ArtifactError
from runtime.messages import TensorSpec, Tier

MANIFEST_NAME = "manifest.json"

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=128)]
# No separator and no leading dot: a file name cannot point out of its folder.
FileName = Name


class ModelFile(msgspec.Struct, frozen=True):
    """One file of a model folder: lower-case hexadecimal sha256 and its length."""

    sha256: Digest
    size_bytes: Annotated[int, msgspec.Meta(ge=1)]


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model of an ensemble; ``accuracy`` is its own, on the pictures of ``Measured``."""

    name: Name
    file: FileName
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    accuracy: Share | None = None


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the shipped files did on the whole test set, after quantization.

    ``ece_before`` and ``ece_after`` are the expected calibration error at temperature 1 and at the
    manifest's; ``accuracy_float32`` is that of the network before its weights were made smaller;
    ``answered_share`` and ``answered_accuracy`` describe what reaches ``accept_at``.
    """

    accuracy: Share
    num_examples: Annotated[int, msgspec.Meta(ge=1)]
    ece_before: Share
    ece_after: Share
    parameters: Annotated[int, msgspec.Meta(ge=1)]
    size_bytes: Annotated[int, msgspec.Meta(ge=1)]
    accuracy_float32: Share | None = None
    answered_share: Share | None = None
    answered_accuracy: Share | None = None


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a model comes from and what it takes to build it again.

    ``rebuild_tolerance`` is how far the accuracy of a rebuild may lie from ``Measured.accuracy``;
    bits agree only on the same CPU type, library versions and thread count.
    """

    data_set: str
    licence: str
    seed: int
    command: str
    libraries: dict[str, str] = {}
    cpu: str = ""
    threads: int = 0
    numeric_format: str = ""
    threshold_rule: str = ""
    rebuild_tolerance: float = 0.0


class ModelManifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The description of one version of one tier's model.

    ``files`` are all files of the folder but the manifest. ``members`` are the models that answer
    together, in order. ``accept_at`` is the calibrated
    confidence at or above which the answer stands. ``min_runtime`` maps an engine's package name to
    the oldest version that runs the files.
    """

    name: Name
    version: Name
    tier: Tier
    files: Annotated[dict[FileName, ModelFile], msgspec.Meta(min_length=1)]
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1)]
    inputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    accept_at: Share
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    task: Literal["classification"] = "classification"
    min_runtime: dict[str, str] = {}
    measured: Measured | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        """Refuses what no single field shows to be wrong.

        Raises:
            ValueError: parts of the manifest contradict one another.
        """
        unlisted = [member.file for member in self.members if member.file not in self.files]
        if unlisted:
            raise ValueError(f"members use files that `files` does not list: {unlisted}")
        for kind, names in (
            ("member", [member.name for member in self.members]),
            ("input", [spec.name for spec in self.inputs]),
            ("output", [spec.name for spec in self.outputs]),
            ("label", list(self.labels)),
        ):
            repeated = [left for left, right in itertools.pairwise(sorted(names)) if left == right]
            if repeated:
                raise ValueError(f"the {kind} {repeated[0]!r} is there twice")
        if not math.isfinite(self.temperature):
            raise ValueError("temperature must be finite")
        num_scores = self.outputs[0].shape[-1] if self.outputs[0].shape else 0
        if num_scores != len(self.labels):
            raise ValueError(
                f"{len(self.labels)} labels, but {self.outputs[0].name!r} gives {num_scores} scores"
            )

    @property
    def size_bytes(self) -> int:
        """All files of the folder but the manifest."""
        return sum(file.size_bytes for file in self.files.values())


_DECODER = msgspec.json.Decoder(ModelManifest)


def decode_manifest(contents: bytes, source: str) -> ModelManifest:
    """The manifest in ``contents``; ``source`` names it in errors.

    Raises:
        ArtifactError: not JSON, a field is missing or wrong, or its parts contradict one another.
    """
    try:
        return _DECODER.decode(contents)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{source} is not a model manifest: {error}") from error


def encode_manifest(manifest: ModelManifest) -> bytes:
    """Indented JSON, the same bytes for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def model_digest(manifest: ModelManifest) -> str:
    """Names what a model answers with: lower-case hexadecimal sha256.

    Over its files, members and temperature only, so that a new threshold or a note in the manifest
    leaves it as it is.
    """
    named = {
        "files": {name: file.sha256 for name, file in manifest.files.items()},
        "members": [[one.name, one.file, one.weight] for one in manifest.members],
        "temperature": manifest.temperature,
    }
    return hashlib.sha256(msgspec.json.encode(named, order="sorted")).hexdigest()
