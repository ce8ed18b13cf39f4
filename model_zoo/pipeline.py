"""The build of the bundled task from data to model folders (PyTorch, extra ``zoo``)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from model_zoo.architectures import MirrorAverage
from model_zoo.bundle import HeldOut, write_bundle
from model_zoo.export import export_network
from model_zoo.fashion_training import LESSONS, Lesson, TaskData, load_task, train_task
from model_zoo.idx import Split
from model_zoo.onnx_files import serialize
from model_zoo.options import BuildOptions
from model_zoo.report import BundleReport
from model_zoo.work_folder import claim
from runtime.manifest import Provenance
from runtime.messages import Tier

MODEL_NAME = "fashion"
# A judgement: twice the standard error of an accuracy of .94 on 10,000 pictures.
REBUILD_TOLERANCE = 0.005
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
# Tier -> member name -> trained network.
MEMBERS = {
    Tier.EDGE: {"edge": "edge"},
    Tier.REGIONAL: {"regional": "regional"},
    Tier.CLOUD: {
        "residual": "cloud-residual",
        "inception": "cloud-inception",
        "wide": "cloud-wide",
    },
}
# Networks that look at each picture and at its mirror image: twice the time, no more room.
MIRRORED = ("cloud-residual", "cloud-inception", "cloud-wide")


class Display(Protocol):
    """Shows how a build goes on."""

    def step(self, text: str) -> None:
        """Says what happens now."""
        ...

    def training(self, name: str) -> Callable[[int, int, float], None]:
        """Starts to show one network's training."""
        ...


def build_fashion(
    data_folder: Path, work: Path, output: Path, options: BuildOptions, *, display: Display
) -> BundleReport:
    """Trains what ``work`` does not hold yet and writes the model folders into ``output``.

    Raises:
        DataMissingError: an idx file is not in ``data_folder``.
        DataInvalidError: an idx file is damaged.
        StartError: ``work`` holds the networks of a build with other options.
        ArtifactError: a file could not be written.
    """
    data = limited(load_task(data_folder, options.seed), options.limit)
    claim(work, options)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(mode=True)
    networks = train_task(
        data,
        work,
        seed=options.seed,
        progress_for=display.training,
        lessons=tuple(scaled(lesson, options.epochs_scale) for lesson in LESSONS),
    )
    display.step("export")
    exported = {name: _export(name, network) for name, network in networks.items()}
    return write_bundle(
        {
            tier: {member: exported[network] for member, network in members.items()}
            for tier, members in MEMBERS.items()
        },
        HeldOut(calibration=data.calibration, test=data.test),
        output,
        name=MODEL_NAME,
        version=options.version,
        provenance=provenance_of(options.command, options.seed, options.threads),
        progress=display.step,
    )


def limited(data: TaskData, limit: int | None) -> TaskData:
    """The first of each part, for a quick trial."""
    return TaskData(*(Split(part.pictures[:limit], part.labels[:limit]) for part in data))


def scaled(lesson: Lesson, epochs_scale: float) -> Lesson:
    """The lesson with more or fewer epochs."""
    epochs = max(1, round(lesson.recipe.epochs * epochs_scale))
    return lesson._replace(recipe=dataclasses.replace(lesson.recipe, epochs=epochs))


def _export(name: str, network: nn.Module) -> bytes:
    return serialize(export_network(MirrorAverage(network) if name in MIRRORED else network))


def provenance_of(command: str, seed: int, threads: int) -> Provenance:
    """Where a model of this task, made here and now, comes from."""
    return Provenance(
        data_set="Fashion-MNIST",
        licence="MIT",
        seed=seed,
        command=command,
        libraries={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        cpu=_cpu_name(),
        threads=threads,
        rebuild_tolerance=REBUILD_TOLERANCE,
    )


def _cpu_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return f"{value.strip()} ({platform.machine()})"
    return platform.machine()
