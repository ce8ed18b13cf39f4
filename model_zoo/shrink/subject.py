"""A model folder under the knife, and what it makes of labelled examples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from model_zoo.calibrate import (
    Labels,
    accuracy_of,
    calibration_error,
    fit_temperature,
    log_loss,
    probabilities_of,
)
from model_zoo.policies.collect import Examples
from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.adapters.bound_backend import BoundBackend
from runtime.adapters.model_worker import TimedBackend
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.core.preprocessing import prepare
from runtime.errors import StartError
from runtime.manifest import Member, ModelManifest
from runtime.messages import Tensors

Float32s = npt.NDArray[np.float32]
# Of the examples: first the ranges and the choice, then what is reported.
CHOICE_SHARE = 0.5
MIN_EXAMPLES = 16
# Below it a share of right answers is known to a few points at best.
FEW_EXAMPLES = 200
_BATCH = 32
_TIMED_RUNS = 30


class Figures(msgspec.Struct, frozen=True):
    """What a model comes to on the examples that no choice was made on.

    ``agreement`` is the share of examples with the label of the model before; ``typical_ms`` the
    median time of one example, members one after another, on this machine.
    """

    accuracy: float
    log_loss: float
    ece: float
    size_bytes: int
    typical_ms: float
    agreement: float = 1.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with ONNX members, and examples in two parts that share none."""

    model: ModelFolder
    choice: Examples
    report: Examples

    @property
    def manifest(self) -> ModelManifest:
        """That of the model."""
        return self.model.manifest

    def contents(self) -> dict[str, bytes]:
        """The verified files of its members, by member."""
        return {
            one.name: self.model.read_verified(one.file)
            for one in self.manifest.members
            if one.file is not None
        }


@dataclass(frozen=True, slots=True)
class Bound:
    """A member whose file has other tensors than its manifest promises (``runtime.binding``)."""

    member: Member
    manifest: ModelManifest

    def file_inputs(self, inputs: Tensors) -> Tensors:
        """What the file itself is given."""
        return {
            bind.name: prepare(inputs[name], bind.steps, bind.datatype)
            for name, bind in self.member.inputs.items()
        }


def bound_of(member: Member, manifest: ModelManifest) -> Bound | None:
    """None for a file that has the tensors of its manifest."""
    return Bound(member, manifest) if member.inputs or member.outputs else None


def labels_of(examples: Examples) -> Labels:
    """(n,) class indices; those of fitted examples are."""
    return examples.labels.astype(np.int64)


def open_subject(folder: Path, examples: Examples) -> Subject:
    """The model of a folder with its examples.

    Raises:
        ArtifactError: it cannot be used.
        StartError: it has other members than ONNX files, other tasks than classes, or there are
            too few examples.
    """
    model = open_model(folder)
    others = [one.name for one in model.manifest.members if one.engine != "onnxruntime"]
    if others:
        raise StartError(
            f"member {others[0]} of {folder} is no ONNX file: shrink the model that it was made "
            "from, before it is converted"
        )
    if len(examples.labels) < MIN_EXAMPLES:
        raise StartError(
            f"{examples.source} has {len(examples.labels)} examples: at least {MIN_EXAMPLES} are "
            "needed, half to choose by and half to report on; some hundreds say more"
        )
    examples = examples.fitted(model.manifest)
    num = int(len(examples.labels) * CHOICE_SHARE)
    return Subject(model, examples.part(0, num), examples.part(num, None))


def logits_of(
    contents: bytes, examples: Examples, output: str, source: str, bound: Bound | None = None
) -> Float32s:
    """(n, classes) of one member.

    Raises:
        ArtifactError: ONNX Runtime cannot run it.
        BackendError: it failed.
    """
    backend = _backend(contents, source, bound)
    try:
        parts = [
            backend.run(dict(examples.part(start, start + _BATCH).inputs))[output]
            for start in range(0, len(examples.labels), _BATCH)
        ]
    finally:
        backend.close()
    return np.concatenate(parts).astype(np.float32)


def _backend(contents: bytes, source: str, bound: Bound | None) -> TimedBackend:
    engine = OnnxBackend.load(contents, source=source)
    return engine if bound is None else BoundBackend(engine, bound.member, bound.manifest)


def figures_of(
    subject: Subject,
    files: Mapping[str, bytes],
    temperature: float,
    before: npt.NDArray[np.int64] | None = None,
) -> tuple[Figures, npt.NDArray[np.int64]]:
    """What members with these files come to, and their labels, on the part that is reported."""
    manifest, examples = subject.manifest, subject.report
    logits = all_logits(subject, files, examples)
    weights = [one.weight for one in manifest.members]
    shares = probabilities_of(logits, temperature, weights)
    labels, known = shares.argmax(axis=1), labels_of(examples)
    figures = Figures(
        accuracy=accuracy_of(shares, known),
        log_loss=log_loss(shares, known),
        ece=calibration_error(shares, known),
        size_bytes=sum(len(one) for one in files.values()),
        typical_ms=typical_ms(subject, files),
        agreement=1.0 if before is None else float((labels == before).mean()),
    )
    return figures, labels


def temperature_of(subject: Subject, files: Mapping[str, bytes]) -> float:
    """Fitted on the part that choices are made on."""
    logits = all_logits(subject, files, subject.choice)
    weights = [one.weight for one in subject.manifest.members]
    return fit_temperature(logits, labels_of(subject.choice), weights)


def all_logits(subject: Subject, files: Mapping[str, bytes], examples: Examples) -> list[Float32s]:
    """(n, classes) of each member with these files."""
    manifest = subject.manifest
    output = manifest.outputs[0].name
    return [
        logits_of(files[one.name], examples, output, one.name, bound_of(one, manifest))
        for one in manifest.members
    ]


def typical_ms(subject: Subject, files: Mapping[str, bytes]) -> float:
    """The median time of one example, members one after another."""
    manifest = subject.manifest
    one: Tensors = dict(subject.report.part(0, 1).inputs)
    backends = [
        _backend(files[member.name], "timed", bound_of(member, manifest))
        for member in manifest.members
    ]
    times = []
    for _ in range(_TIMED_RUNS):
        began_s = time.perf_counter()
        for backend in backends:
            backend.run(one)
        times.append(time.perf_counter() - began_s)
    for backend in backends:
        backend.close()
    return statistics.median(times) * 1e3
