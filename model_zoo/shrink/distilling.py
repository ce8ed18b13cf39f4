"""A small model that learns from a large one and from labels (Hinton et al., 2015).

The teacher may be any model folder: an ensemble, a TensorFlow Lite file, somebody's server. The
student is a small network for the kind of its inputs, trained on the probabilities of the teacher
as far as ``trust`` says, and on the labels for the rest; by numpy, and for pictures by PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from model_zoo.baselines import Make, cnn, mlp, ngrams
from model_zoo.calibrate import pooled_logits
from model_zoo.policies.collect import Examples
from model_zoo.shrink.subject import Float32s, labels_of
from model_zoo.small_nets import Lesson, SmallNet, fit, targets_of
from model_zoo.small_onnx import to_onnx
from model_zoo.task_data import Part, Values
from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.adapters.engines import load_members
from runtime.errors import StartError
from runtime.manifest import ModelManifest

Kind = Literal["dense", "series", "text", "picture"]
# Of the examples: so many are learned from, of the others half choose and half are reported on.
TRAIN_SHARE = 0.7
MIN_EXAMPLES = 100
_BATCH = 64
_SERIES, _ROW = 2, 1
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Pupil:
    """What is to become of the student: ``hidden`` are widths of layers, or filters of a series."""

    kind: Kind
    hidden: tuple[int, ...] = (64, 32)
    epochs: int = 30
    trust: float = 0.7
    seed: int = 20


@dataclass(frozen=True, slots=True)
class Distilled:
    """The student as an ONNX file; shares of its own examples on which both say the same."""

    contents: bytes
    num_parameters: int
    agreement: float


def open_teacher(folder: Path, examples: Examples) -> tuple[ModelFolder, Examples, Examples]:
    """The teacher, the examples to learn from, and the others.

    Raises:
        ArtifactError: it cannot be used.
        PolicyError: the examples are of another model.
        StartError: it has several inputs, or there are too few examples.
    """
    model = open_model(folder)
    if len(model.manifest.inputs) != 1:
        raise StartError(f"{folder} has {len(model.manifest.inputs)} inputs: a student takes one")
    if len(examples.labels) < MIN_EXAMPLES:
        raise StartError(
            f"{examples.source} has {len(examples.labels)} examples: at least {MIN_EXAMPLES} are "
            "needed to learn from; some thousands say more"
        )
    fitted = examples.fitted(model.manifest)
    num = int(len(fitted.labels) * TRAIN_SHARE)
    return model, fitted.part(0, num), fitted.part(num, None)


def kind_of(manifest: ModelManifest) -> Kind:
    """The kind of network that suits the input, as far as its tensor tells."""
    spec = manifest.inputs[0]
    if spec.datatype.startswith("INT") and len(spec.shape) == _ROW + 1:
        return "text"
    return "dense"


def opinions_of(model: ModelFolder, examples: Examples, progress: Progress) -> Float32s:
    """(n, classes) logits of the teacher, members combined.

    Raises:
        ArtifactError: a member cannot be used.
        BackendError: a member failed.
    """
    manifest, backends = model.manifest, load_members(model)
    output, num = manifest.outputs[0].name, len(examples.labels)
    parts: list[list[Float32s]] = [[] for _ in backends]
    try:
        for start in range(0, num, _BATCH):
            inputs = dict(examples.part(start, start + _BATCH).inputs)
            for found, backend in zip(parts, backends, strict=True):
                found.append(backend.run(inputs)[output].astype(np.float32))
            progress(min(start + _BATCH, num), num, "what the teacher says")
    finally:
        for backend in backends:
            backend.close()
    members = [np.concatenate(one) for one in parts]
    weights = [one.weight for one in manifest.members]
    return pooled_logits(members, weights).astype(np.float32)


def distilled(
    manifest: ModelManifest,
    examples: Examples,
    opinions: Float32s,
    pupil: Pupil,
    progress: Progress,
) -> Distilled:
    """The student, trained.

    Args:
        manifest: of the teacher, whose input and classes the student has.
        examples: to learn from.
        opinions: of the teacher about them, (n, classes) logits.
        pupil: what is to become of it.
        progress: told each epoch.

    Raises:
        StartError: the inputs are not for that kind of network, or pictures want PyTorch.
    """
    if pupil.kind == "picture":
        return _picture(manifest, examples, opinions, pupil, progress)
    spec, classes = manifest.inputs[0], len(manifest.labels)
    inputs = examples.inputs[spec.name]
    is_text = pupil.kind == "text"
    values: Values = inputs.astype(np.int32) if is_text else inputs.astype(np.float32)
    part = Part(values, labels_of(examples))
    net = _maker(part, classes, pupil)(np.random.default_rng(pupil.seed))
    targets = targets_of(part.labels, classes, opinions, trust=pupil.trust)
    fit(
        net,
        part.inputs,
        targets,
        Lesson(pupil.epochs),
        seed=pupil.seed,
        progress=lambda done, total, loss: progress(done, total, f"loss {loss:.3f}"),
    )
    said = _labels(net, part)
    return Distilled(
        to_onnx(net, spec, classes),
        net.num_parameters,
        float((said == opinions.argmax(axis=1)).mean()),
    )


def _picture(
    manifest: ModelManifest,
    examples: Examples,
    opinions: Float32s,
    pupil: Pupil,
    progress: Progress,
) -> Distilled:
    try:
        # An extra, and gigabytes.
        from model_zoo.shrink.picture_student import Lessons, distilled_picture  # noqa: PLC0415
    except ImportError as error:
        raise StartError(
            f"convolutions over pictures are trained by PyTorch ({error}): install tierwise[zoo], "
            "or take --kind dense"
        ) from error
    inputs = examples.inputs[manifest.inputs[0].name]
    lessons = Lessons(inputs, labels_of(examples), opinions)
    return distilled_picture(manifest, lessons, pupil, progress)


def _labels(net: SmallNet, part: Part) -> Float32s:
    found: Float32s = net.logits(part.inputs).argmax(axis=1)
    return found


def _maker(part: Part, classes: int, pupil: Pupil) -> Make:
    if pupil.kind == "text":
        return ngrams(classes, (1, 2, 3), 4096, hidden=pupil.hidden[0])
    if pupil.kind == "series":
        if part.inputs.ndim != _SERIES + 1:
            raise StartError(
                f"inputs of shape {list(part.inputs.shape[1:])} are no series of steps and "
                "channels: take --kind dense"
            )
        try:
            return cnn(part, classes, pupil.hidden)
        except ValueError as error:
            raise StartError(str(error)) from error
    return mlp(part, classes, pupil.hidden)
