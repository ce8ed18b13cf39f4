"""What a model folder says about itself: files, tensors, thresholds, and how good it was.

Rules of this file:
  * a manifest is JSON that a person can read; unknown fields are skipped, new fields have defaults;
  * whatever is loaded has been checked as a whole: a manifest that contradicts itself never
    reaches a tier service;
  * ``inputs`` and ``outputs`` are what callers and other tiers see; what a file has in their place
    (``quantization``) is nobody's business but its backend's;
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

from runtime.binding import InputBinding, OutputBinding
from runtime.errors import ArtifactError
from runtime.member_url import check_url
from runtime.messages import Residency, TensorSpec, Tier
from runtime.task_fields import (
    AnomalyFields,
    DetectionFields,
    EmbeddingFields,
    Task,
    TaskFields,
    Threshold,
    check_task,
)

MANIFEST_NAME = "manifest.json"

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=128)]
# No separator and no leading dot: a file name cannot point out of its folder.
FileName = Name
Engine = Literal["onnxruntime", "litert", "oip"]
_ENGINES: dict[str, Engine] = {"onnx": "onnxruntime", "tflite": "litert"}
MAX_URL = 1024
MAX_ACCEPTED = 16
QuantizedType = Literal["INT8", "UINT8", "INT16"]
INTEGERS: dict[QuantizedType, tuple[int, int]] = {
    "INT8": (-128, 127),
    "UINT8": (0, 255),
    "INT16": (-32768, 32767),
}
# Beyond them, float32 has neither the scale nor its inverse.
MIN_SCALE, MAX_SCALE = 1e-30, 1e30
_FLOATS = ("FP16", "FP32", "FP64")


class ModelFile(msgspec.Struct, frozen=True):
    """One file of a model folder: lower-case hexadecimal sha256 and its length."""

    sha256: Digest
    size_bytes: Annotated[int, msgspec.Meta(ge=1)]


class Quantization(msgspec.Struct, frozen=True):
    """How a file's integers stand for floats: ``scale * (integer - zero_point)``."""

    datatype: QuantizedType
    scale: Annotated[float, msgspec.Meta(ge=MIN_SCALE, le=MAX_SCALE)]
    zero_point: int = 0

    def __post_init__(self) -> None:
        """Refuses what would make other numbers of every tensor.

        Raises:
            ValueError: the scale is not finite, or the zero point is none of the integers.
        """
        # A decoder has checked this; a backend that reads it from its file has not.
        if not MIN_SCALE <= self.scale <= MAX_SCALE:
            raise ValueError(
                f"a scale must lie in {MIN_SCALE:g} .. {MAX_SCALE:g}, this is {self.scale:g}"
            )
        low, high = INTEGERS[self.datatype]
        if not low <= self.zero_point <= high:
            raise ValueError(
                f"the zero point {self.zero_point} of {self.datatype} is not in {low} .. {high}"
            )


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model of an ensemble; ``accuracy`` is its own, on the pictures of ``Measured``.

    It is a ``file`` of the folder, or a ``model`` (of one ``version``; empty: the server's choice)
    that anyone's Open Inference Protocol server has at ``url``. ``residency`` is how far up that
    server is: what may not go so far is not sent to it. A file that was not made for this manifest
    has ``inputs`` and ``outputs`` that say, by the manifest's names, what lies between.
    """

    name: Name
    file: FileName | None = None
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    accuracy: Share | None = None
    url: Annotated[str, msgspec.Meta(max_length=MAX_URL)] = ""
    model: Name | Literal[""] = ""
    version: Name | Literal[""] = ""
    residency: Residency = Residency.CLOUD
    inputs: dict[str, InputBinding] = {}
    outputs: dict[str, OutputBinding] = {}

    def __post_init__(self) -> None:
        """Refuses what is neither a file nor a server, or both.

        Raises:
            ValueError: which of them it is remains open, or the URL cannot be used.
        """
        if (self.file is None) != bool(self.url and self.model) or (
            self.file is not None and (self.url or self.model or self.version)
        ):
            raise ValueError(
                f"the member {self.name!r} must have either a `file`, or `url` and `model`"
            )
        if self.url:
            check_url(self.url)
        if bool(self.inputs) != bool(self.outputs) or (self.inputs and self.file is None):
            raise ValueError(f"the member {self.name!r} must bind `inputs` and `outputs` of a file")

    @property
    def engine(self) -> Engine:
        """What runs it.

        Raises:
            ArtifactError: the name of its file says nothing that is known here.
        """
        if self.file is None:
            return "oip"
        suffix = self.file.rpartition(".")[2].lower()
        if suffix not in _ENGINES:
            raise ArtifactError(
                f"nothing here runs {self.file!r}: a model is a .onnx or a .tflite file"
            )
        return _ENGINES[suffix]


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the shipped files did on the whole test set, after quantization.

    ``ece_before`` and ``ece_after`` are the expected calibration error at temperature 1 and at the
    manifest's; ``accuracy_float32`` is that of the network before its weights were made smaller;
    ``answered_share`` and ``answered_accuracy`` describe what reaches ``accept_at``. ``figures``
    are what a task has of its own, such as a detector's mean average precision; its ``accuracy`` is
    the share of examples that are right as a whole.
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
    figures: dict[str, float] = {}


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a model comes from and what it takes to build it again.

    ``rebuild_tolerance`` is how far the accuracy of a rebuild may lie from ``Measured.accuracy``;
    bits agree only on the same CPU type, library versions and thread count. ``source`` and
    ``source_sha256`` are the file of another project that a model was imported from.
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
    source: str = ""
    source_sha256: str = ""


class ModelManifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The description of one version of one tier's model.

    ``files`` are all files of the folder but the manifest; none where all members are servers.
    ``members`` are the models that answer together, in order. ``accept_at`` is the calibrated
    confidence at or above which the answer stands. ``min_runtime`` maps an engine's package name to
    the oldest version that runs the files. ``quantization`` names the tensors that are floats here
    and integers in the files; those of a .tflite file need not be named, as it says so itself.
    ``label_thresholds`` (multilabel; 0.5 each where there are none) say from which chance a label
    holds; ``tolerance`` (regression, above 0) is what a value may be off, in its unit.
    ``detection``, ``anomaly`` and ``embedding`` belong to these tasks (``runtime.task_fields``).
    ``forwards`` names an output that climbs in place of a request's inputs; ``accepts_from`` are
    the digests of the models whose forwarded outputs are this model's inputs (none named: of any).
    """

    name: Name
    version: Name
    tier: Tier
    files: dict[FileName, ModelFile]
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1)]
    inputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    labels: tuple[str, ...]
    accept_at: Share
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    task: Task = "classification"
    min_runtime: dict[str, str] = {}
    measured: Measured | None = None
    provenance: Provenance | None = None
    quantization: dict[str, Quantization] = {}
    label_thresholds: tuple[Threshold, ...] = ()
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    detection: DetectionFields | None = None
    anomaly: AnomalyFields | None = None
    embedding: EmbeddingFields | None = None
    forwards: str = ""
    accepts_from: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MAX_ACCEPTED)] = ()

    def __post_init__(self) -> None:
        """Refuses what no single field shows to be wrong.

        Raises:
            ValueError: parts of the manifest contradict one another.
        """
        unlisted = [file for file in self.member_files if file not in self.files]
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
        check_task(self.task_fields, self.outputs, list(self.files), len(self.members))
        self._check_bindings()
        self._check_forwards()
        for name in self.quantization:
            found = [spec for spec in (*self.inputs, *self.outputs) if spec.name == name]
            if len(found) != 1 or found[0].datatype not in _FLOATS:
                raise ValueError(
                    f"`quantization` names {name!r}, which is not one input or output of floats"
                )

    def _check_bindings(self) -> None:
        inputs, outputs = ({one.name for one in side} for side in (self.inputs, self.outputs))
        for member in self.members:
            if member.inputs and (set(member.inputs), set(member.outputs)) != (inputs, outputs):
                raise ValueError(f"the member {member.name!r} binds other tensors than there are")
            seen: dict[str, OutputBinding] = {}
            for one in member.outputs.values():
                other = seen.setdefault(one.name, one)
                if (other.datatype, other.shape) != (one.datatype, one.shape):
                    raise ValueError(
                        f"the member {member.name!r} says of {one.name!r} two different things"
                    )
                is_of_boxes = one.is_transposed or one.columns or one.objectness is not None
                if is_of_boxes and self.task != "detection":
                    raise ValueError(
                        f"`is_transposed`, `columns` and `objectness` of {one.name!r} are for "
                        "detection"
                    )

    @property
    def task_fields(self) -> TaskFields:
        """What is said about the task."""
        return TaskFields(
            self.task,
            self.labels,
            self.label_thresholds,
            self.tolerance,
            self.temperature,
            self.detection,
            self.anomaly,
            self.embedding,
        )

    def _check_forwards(self) -> None:
        if not self.forwards:
            return
        found = [spec for spec in self.outputs[1:] if spec.name == self.forwards]
        if not found or found[0].datatype not in _FLOATS or found[0].shape[:1] != (-1,):
            raise ValueError(
                f"`forwards` names {self.forwards!r}, which is no output of floats with a batch "
                "axis behind the first one"
            )
        if len(self.members) > 1 or self.members[0].inputs:
            raise ValueError("`forwards` is for a single member without bindings")

    @property
    def member_files(self) -> list[str]:
        """The files of the members that have one, in their order."""
        return [member.file for member in self.members if member.file is not None]

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

    Over its files, members, quantized tensors and temperature only, so that a new threshold or a
    note in the manifest leaves it as it is. What a server answers with, nobody here can name: only
    which one is asked.
    """
    named: dict[str, object] = {
        "files": {name: file.sha256 for name, file in manifest.files.items()},
        "members": [
            [one.name, _source_of(one), one.weight, *([one.inputs, one.outputs] * bool(one.inputs))]
            for one in manifest.members
        ],
        "temperature": manifest.temperature,
    }
    if manifest.task != "classification":
        own = manifest.detection or manifest.anomaly or manifest.embedding
        said = [manifest.task, manifest.label_thresholds, manifest.tolerance]
        # A file of prototypes has its name there, and its digest among the files.
        named["task"] = said if own is None else [*said, own]
    if manifest.quantization:
        # Left out where there is none: policies are bound to digests from before it was known.
        named["quantization"] = manifest.quantization
    if manifest.forwards:
        named["forwards"] = manifest.forwards
    return hashlib.sha256(msgspec.json.encode(named, order="sorted")).hexdigest()


def _source_of(member: Member) -> str | list[str]:
    return member.file or [member.url, member.model, member.version]
