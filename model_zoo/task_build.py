"""Trains the networks of a task with numpy, and writes the model folders of three tiers.

The members of the cloud are trained first; a network below learns from the labels and, as far as
its ``Student`` says, from what they make of the same examples. Networks with convolutions or dense
layers alone are quantized to int8 on the device and in the region, those of n-grams store their
tables as int8. Needs ``onnx`` (extra ``zoo`` or ``test``), not PyTorch.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model_zoo.calibrate import pooled_logits
from model_zoo.onnx_files import OUTPUT_NAME
from model_zoo.report import BundleReport
from model_zoo.small_layers import NgramBag
from model_zoo.small_nets import Augment, Lesson, SmallNet, fit, targets_of
from model_zoo.small_onnx import to_onnx
from model_zoo.task_data import Part, Task, read_part, read_task
from model_zoo.tier_folders import (
    BuiltTier,
    Labelled,
    Signature,
    built_of,
    make_small,
    write_tiers,
)
from runtime.manifest import Provenance
from runtime.messages import USUAL_TIERS, TensorSpec, Tier

LIBRARIES = ("onnx", "onnxruntime", "numpy")
# A judgement: what other libraries' last digits have been seen to make of small networks.
REBUILD_TOLERANCE = 0.02
TABLES_FORMAT = "int8 tables per column, float32 sums"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Student:
    """One network of a tier: how it starts, how it is taught, and by whom.

    ``trust`` is the share of its targets that is the opinion of the cloud's networks.
    """

    make: Callable[[np.random.Generator], SmallNet]
    lesson: Lesson
    trust: float = 0.0
    augment: Augment | None = None


Recipe = Mapping[Tier, Mapping[str, Student]]


def build_task(
    data: Path,
    output: Path,
    recipe: Callable[[Task, Part], Recipe],
    *,
    command: str,
    version: str = "1",
    epochs_scale: float = 1.0,
    say: Say = lambda _text: None,
) -> BundleReport:
    """Trains, makes small, calibrates and writes ``edge``, ``regional`` and ``cloud``.

    Args:
        data: folder of ``model_zoo.task_data``.
        output: where the model folders go.
        recipe: the networks of every tier, given the task and the train part.
        command: that does this again, for the manifests.
        version: of the models.
        epochs_scale: multiplies all epochs; 0.2 makes a quick trial.
        say: told about every step.

    Raises:
        DataMissingError: a part is not there.
        DataInvalidError: a part is damaged.
        ArtifactError: a file could not be written.
    """
    task = read_task(data)
    parts = {name: read_part(data, task, name) for name in ("train", "calibration", "test")}
    students = recipe(task, parts["train"])
    networks: dict[Tier, dict[str, SmallNet]] = {}
    teacher: np.ndarray | None = None
    for tier in reversed(USUAL_TIERS):
        networks[tier] = {
            name: _taught(
                f"{tier} {name}", scaled(student, epochs_scale), task, parts["train"],
                teacher, seed=task.seed + 10 * USUAL_TIERS.index(tier) + number, say=say,
            )
            for number, (name, student) in enumerate(students[tier].items())
        }  # fmt: skip
        if tier is Tier.CLOUD:
            members = [net.logits(parts["train"].inputs) for net in networks[tier].values()]
            teacher = pooled_logits(members).astype(np.float32)
    built = {}
    for tier in USUAL_TIERS:
        say(f"{tier}: make small and measure")
        built[tier] = _built(task, networks[tier], parts, is_int8=tier is not Tier.CLOUD)
    reports, cascade = write_tiers(
        built,
        Labelled(parts["calibration"].labels, parts["test"].labels),
        output,
        signature=signature_of(task),
        name=task.name,
        version=version,
        provenance=_provenance(task, command),
        progress=say,
    )
    return BundleReport(
        name=task.name,
        version=version,
        folder=str(output),
        size_bytes=sum(report.size_bytes for report in reports.values()),
        tiers=reports,
        cascade=cascade,
    )


def scaled(student: Student, epochs_scale: float) -> Student:
    """The student with more or fewer epochs."""
    lesson = student.lesson
    epochs = max(1, round(lesson.epochs * epochs_scale))
    return replace(student, lesson=replace(lesson, epochs=epochs))


def signature_of(task: Task) -> Signature:
    """What callers see of the task's models."""
    outputs = (TensorSpec(OUTPUT_NAME, "FP32", (-1, len(task.labels))),)
    return Signature((task.input,), outputs, task.labels)


def _taught(
    what: str,
    student: Student,
    task: Task,
    part: Part,
    teacher: np.ndarray | None,
    *,
    seed: int,
    say: Say,
) -> SmallNet:
    net = student.make(np.random.default_rng(seed))
    opinion = teacher if student.trust else None
    loss = fit(
        net,
        part.inputs,
        targets_of(part.labels, len(task.labels), opinion, trust=student.trust),
        student.lesson,
        seed=seed,
        augment=student.augment,
    )
    say(f"{what}: {net.num_parameters} parameters, loss {loss:.3f}")
    return net


def _built(
    task: Task, networks: Mapping[str, SmallNet], parts: Mapping[str, Part], *, is_int8: bool
) -> BuiltTier:
    exported = {name: _exported(net, task) for name, net in networks.items()}
    calibration, test = parts["calibration"], parts["test"]
    if any(_has_table(net.layers) for net in networks.values()):
        files = {
            f"{name}.onnx": _exported(net, task, is_small=True) for name, net in networks.items()
        }
        return built_of(
            files, exported, calibration.inputs, test.inputs,
            numeric_format=TABLES_FORMAT, input_name=task.input.name,
        )  # fmt: skip
    return make_small(
        exported,
        calibration.inputs.astype(np.float32, copy=False),
        calibration.labels,
        test.inputs.astype(np.float32, copy=False),
        is_int8=is_int8,
        input_name=task.input.name,
    )


def _exported(net: SmallNet, task: Task, *, is_small: bool = False) -> bytes:
    return to_onnx(net, task.input, len(task.labels), is_small=is_small)


def _has_table(layers: Sequence[object]) -> bool:
    return any(isinstance(layer, NgramBag) for layer in layers)


def _provenance(task: Task, command: str) -> Provenance:
    return Provenance(
        data_set=task.data_set,
        licence=task.licence,
        seed=task.seed,
        command=command,
        libraries={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        cpu=platform.machine(),
        rebuild_tolerance=REBUILD_TOLERANCE,
    )
