"""What somebody who imports a model may say about it, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model_zoo.importing.scores import Wanted
from model_zoo.importing.task_options import Targets, TaskOptions
from model_zoo.labelled import Labelled
from runtime.binding import Normalise, Step
from runtime.errors import ArtifactError
from runtime.manifest import ModelManifest
from runtime.messages import Tier

Layout = Literal["auto", "nchw", "nhwc"]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What is said; the rest is found out.

    ``labels`` are the names of the classes in the order of the scores; empty: from the data, or 0,
    1, ... where ``is_numbered``. ``input_shape`` is that of one example as callers send it, where
    no data show it. ``normalise`` is applied to numbers as callers send them, first divided by
    ``scale``. ``steps`` are told from a file and are all there are; ``log_mel`` come before what
    makes the file's shape of them, ``scale`` before them and ``normalise`` after. ``above`` is the
    folder of the tier above, for the threshold. ``accept_at`` None follows the rule. ``told`` and
    ``targets`` are of tasks that are no classification.
    """

    file: Path
    output: Path
    tier: Tier
    name: str
    version: str = "1"
    labels: tuple[str, ...] = ()
    is_numbered: bool = False
    scores: Wanted = "auto"
    scores_output: str = ""
    layout: Layout = "auto"
    input_name: str = "input"
    input_shape: tuple[int, ...] = ()
    input_datatype: str = ""
    resize: tuple[int, int] | None = None
    scale: float | None = None
    normalise: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    steps: tuple[Step, ...] = ()
    log_mel: tuple[Step, ...] = ()
    accept_at: float | None = None
    above: Path | None = None
    data: Labelled | None = None
    data_name: str = ""
    data_sha256: str = ""
    licence: str = "unknown"
    command: str = ""
    told: TaskOptions = field(default_factory=TaskOptions)
    targets: Targets | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A way of giving the data to the model, and the share of examples it was right about."""

    words: str
    accuracy: float


@dataclass(frozen=True, slots=True)
class Imported:
    """The folder that was written, and what a person should know about how."""

    manifest: ModelManifest
    folder: Path
    notes: tuple[str, ...]
    tried: tuple[Tried, ...]


def said_numbers(options: ImportOptions, channel_axis: int | None) -> tuple[Normalise, ...] | None:
    """The step that ``scale`` and ``normalise`` ask for; None where nothing was said.

    Raises:
        ArtifactError: there are several means and no axis of channels for them.
    """
    if options.scale is None and options.normalise is None:
        return None
    scale = options.scale or 1.0
    mean, std = options.normalise or ((0.0,), (1.0,))
    if len(mean) > 1 and channel_axis is None:
        raise ArtifactError(
            f"--normalise has {len(mean)} means, and no axis of that length is there"
        )
    try:
        return (
            Normalise(
                tuple(one * scale for one in mean),
                tuple(one * scale for one in std),
                axis=-1 if channel_axis is None else channel_axis,
            ),
        )
    except ValueError as error:
        raise ArtifactError(f"--normalise: {error}") from error


def channel_axis_of(shape: Sequence[int], length: int) -> int | None:
    """The axis of one example that has this length: the last one first, then the first."""
    for axis in (len(shape) - 1, 0):
        if shape and shape[axis] == length:
            return axis
    return None
