"""What was made of a model, as a new model folder with what it was measured to be."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec
import onnx
import onnxruntime as ort

from model_zoo.calibrate import probabilities_of, scores_of
from model_zoo.onnx_files import count_parameters
from model_zoo.policies.collect import Examples
from model_zoo.shrink.distilling import Distilled
from model_zoo.shrink.splitting import EMBEDDING, LOGITS, Split, lessons_of
from model_zoo.shrink.subject import (
    Figures,
    Float32s,
    Subject,
    all_logits,
    figures_of,
    labels_of,
    logits_of,
    temperature_of,
)
from runtime.adapters.artifacts import ModelFolder, describe_file, write_model
from runtime.errors import ArtifactError
from runtime.manifest import Measured, Member, ModelManifest, Provenance, model_digest
from runtime.messages import TensorSpec, Tier
from runtime.tensors import dtype_of


class Shrunk(msgspec.Struct, frozen=True):
    """A model before and after, on examples that no choice was made on."""

    folder: str
    before: Figures
    after: Figures
    notes: tuple[str, ...] = ()


def write_shrunk(
    subject: Subject,
    files: Mapping[str, bytes],
    folder: Path,
    *,
    version: str,
    command: str,
    numeric_format: str,
) -> Shrunk:
    """Writes the folder; its temperature is fitted anew, its threshold is that of before.

    Args:
        subject: the model of before, and the examples.
        files: by member, in the order of the manifest.
        folder: to be made; it must not be there.
        version: of the new model.
        command: what made it.
        numeric_format: in words.

    Raises:
        ArtifactError: the folder is there, or cannot be written.
    """
    if folder.exists():
        raise ArtifactError(f"{folder} is there already: name a folder that is not, with --output")
    temperature = temperature_of(subject, files)
    before, labels = figures_of(subject, subject.contents(), subject.manifest.temperature)
    after, _ = figures_of(subject, files, temperature, labels)
    manifest = _manifest(subject, files, temperature, before, after)
    provenance = _provenance(subject, command, numeric_format)
    manifest = msgspec.structs.replace(
        manifest, version=version, provenance=provenance, temperature=temperature
    )
    by_file = {one.file: files[one.name] for one in manifest.members if one.file is not None}
    write_model(folder, manifest, by_file)
    return Shrunk(str(folder), before, after)


class Taught(msgspec.Struct, frozen=True):
    """A student beside its teacher, on examples that it has not learned from."""

    folder: str
    num_parameters: int
    accuracy_teacher: float
    student: Figures


def write_student(
    teacher: ModelFolder,
    opinions: Float32s,
    held: Examples,
    found: Distilled,
    folder: Path,
    *,
    tier: Tier,
    version: str,
    command: str,
) -> Taught:
    """Writes a student's folder.

    Args:
        teacher: whose classes and input it has.
        opinions: of the teacher about the held examples.
        held: not learned from; the first half fits the temperature, the other is reported on.
        found: the student.
        folder: to be made; it must not be there.
        tier: of the student.
        version: of the student.
        command: what made it.

    Raises:
        ArtifactError: the folder is there, or cannot be written.
    """
    if folder.exists():
        raise ArtifactError(f"{folder} is there already: name another with --output")
    old, half = teacher.manifest, len(held.labels) // 2
    manifest = msgspec.structs.replace(
        old,
        tier=tier,
        version=version,
        files={"student.onnx": describe_file(found.contents)},
        members=(Member("student", "student.onnx"),),
        outputs=(TensorSpec(LOGITS, "FP32", (-1, len(old.labels))),),
        quantization={},
        measured=None,
        min_runtime={},
    )
    subject = Subject(ModelFolder(folder, manifest), held.part(0, half), held.part(half, None))
    files = {"student": found.contents}
    temperature = temperature_of(subject, files)
    labels = opinions[half:].argmax(axis=1)
    figures, _ = figures_of(subject, files, temperature, labels)
    known = labels_of(subject.report)
    manifest = msgspec.structs.replace(
        manifest,
        temperature=temperature,
        measured=Measured(
            accuracy=figures.accuracy,
            num_examples=len(known),
            ece_before=figures.ece,
            ece_after=figures.ece,
            parameters=found.num_parameters,
            size_bytes=len(found.contents),
        ),
        provenance=_provenance(
            Subject(teacher, subject.choice, subject.report), command, "float32, distilled"
        ),
    )
    write_model(folder, manifest, {"student.onnx": found.contents})
    return Taught(str(folder), found.num_parameters, float((labels == known).mean()), figures)


class Halves(msgspec.Struct, frozen=True):
    """What a model was split into; accuracies on examples that nothing was chosen or fitted on."""

    head: str
    tail: str
    cut: str
    depth: float
    embedding_bytes: int
    input_bytes: int
    accuracy_whole: float
    accuracy_exit: float
    head_bytes: int
    tail_bytes: int
    head_ms: float
    tail_ms: float


def write_halves(
    subject: Subject,
    halves: Split,
    folders: tuple[Path, Path],
    *,
    version: str,
    command: str,
    tiers: tuple[Tier, Tier],
) -> Halves:
    """Writes head and tail for ``tiers``; the tail takes the embedding of this head alone.

    Raises:
        ArtifactError: a folder is there, or cannot be written.
    """
    for folder in folders:
        if folder.exists():
            raise ArtifactError(f"{folder} is there already: name another with --output")
    old = subject.manifest
    provenance = _provenance(subject, command, "half of a model")
    bare = msgspec.structs.replace(
        old,
        version=version,
        measured=None,
        temperature=1.0,
        quantization={},
        provenance=provenance,
        forwards="",
    )
    embedding = TensorSpec(EMBEDDING, halves.datatype, (-1, *halves.embedding_shape))
    logits = TensorSpec(LOGITS, "FP32", (-1, len(old.labels)))
    below = msgspec.structs.replace(
        bare,
        tier=tiers[0],
        outputs=(logits, embedding),
        files={"head.onnx": describe_file(halves.head)},
        members=(Member("head", "head.onnx"),),
        forwards=EMBEDDING,
    )
    above = msgspec.structs.replace(
        bare,
        tier=tiers[1],
        inputs=(embedding,),
        outputs=old.outputs[:1],
        files={"tail.onnx": describe_file(halves.tail)},
        members=(Member("tail", "tail.onnx"),),
    )
    _, held = lessons_of(subject.choice)
    apart = Subject(subject.model, held, subject.report)
    of_head, digest = _written(below, halves.head, apart, folders[0])
    above = msgspec.structs.replace(above, accepts_from=(digest,))
    of_tail, _ = _written(above, halves.tail, _embedded(halves, subject), folders[1])
    return Halves(
        str(folders[0]),
        str(folders[1]),
        halves.cut.tensor,
        halves.cut.depth,
        embedding_bytes=(2 if halves.datatype == "FP16" else 4) * halves.cut.num_values,
        input_bytes=sum(one[:1].nbytes for one in subject.report.inputs.values()),
        accuracy_whole=of_tail.accuracy,
        accuracy_exit=of_head.accuracy,
        head_bytes=len(halves.head),
        tail_bytes=len(halves.tail),
        head_ms=of_head.typical_ms,
        tail_ms=of_tail.typical_ms,
    )


def _written(
    manifest: ModelManifest, contents: bytes, examples: Subject, folder: Path
) -> tuple[Figures, str]:
    """How good it is, and its digest."""
    part = Subject(ModelFolder(folder, manifest), examples.choice, examples.report)
    files = {manifest.members[0].name: contents}
    temperature = temperature_of(part, files)
    figures, _ = figures_of(part, files, temperature)
    manifest = msgspec.structs.replace(manifest, temperature=temperature)
    write_model(folder, manifest, {next(iter(manifest.files)): contents})
    return figures, model_digest(manifest)


def _embedded(halves: Split, subject: Subject) -> Subject:
    """The same examples as the tail sees them."""
    parts, wanted = [], dtype_of(halves.datatype)
    for examples in (subject.choice, subject.report):
        values = logits_of(halves.head, examples, EMBEDDING, "head").astype(wanted)
        parts.append(Examples({EMBEDDING: values}, examples.labels, examples.source))
    return Subject(subject.model, *parts)


def _provenance(subject: Subject, command: str, numeric_format: str) -> Provenance:
    old = subject.manifest
    return Provenance(
        data_set=f"made of {old.name} {old.version} ({model_digest(old)[:12]}) "
        f"with {subject.choice.source}",
        licence=old.provenance.licence if old.provenance else "",
        seed=0,
        command=command,
        libraries={"onnx": onnx.__version__, "onnxruntime": ort.__version__},
        cpu=platform.processor() or platform.machine(),
        numeric_format=numeric_format,
    )


def _manifest(
    subject: Subject,
    files: Mapping[str, bytes],
    temperature: float,
    before: Figures,
    after: Figures,
) -> ModelManifest:
    old, examples = subject.manifest, subject.report
    logits = all_logits(subject, files, examples)
    weights = [one.weight for one in old.members]
    confidence, correct = scores_of(
        probabilities_of(logits, temperature, weights), labels_of(examples)
    )
    stands = confidence >= old.accept_at
    parameters = sum(
        count_parameters(onnx.load_from_string(one)) for one in subject.contents().values()
    )
    measured = Measured(
        accuracy=after.accuracy,
        num_examples=len(examples.labels),
        ece_before=before.ece,
        ece_after=after.ece,
        parameters=max(1, old.measured.parameters if old.measured else parameters),
        size_bytes=after.size_bytes,
        accuracy_float32=before.accuracy,
        answered_share=float(stands.mean()),
        answered_accuracy=float(correct[stands].mean()) if stands.any() else None,
    )
    described = {one.file: describe_file(files[one.name]) for one in old.members if one.file}
    # Golden examples and a policy are about the model of before.
    return msgspec.structs.replace(
        old,
        files=described,
        measured=measured,
        members=tuple(msgspec.structs.replace(one, accuracy=None) for one in old.members),
    )
