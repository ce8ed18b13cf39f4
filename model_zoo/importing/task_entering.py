"""The way in and out of a file that is no classifier, as far as its shapes and names say it.

Nothing is tried on data: numbers go in as they are, unless somebody says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from model_zoo.importing.box_outputs import find_boxes
from model_zoo.importing.options import ImportOptions, channel_axis_of, said_numbers
from model_zoo.importing.shapes import Outward, bind_of, outward_of, without_data
from model_zoo.importing.trial import Trial
from runtime.adapters.signatures import FileSignature, FileTensor
from runtime.binding import InputBinding, OutputBinding, Step
from runtime.core.preprocessing import prepare
from runtime.errors import ArtifactError
from runtime.messages import Tensors, TensorSpec
from runtime.task_fields import INTERVAL_SCORES, BoxFormat

OUTPUT_NAME = "scores"
_PICTURE = (2, 3)


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """How a file is asked, and what comes out; ``picture`` is the width and height it takes."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    binds: dict[str, InputBinding]
    gives: dict[str, OutputBinding]
    notes: tuple[str, ...]
    box_format: BoxFormat = "corners"
    picture: tuple[float, float] | None = None


def enter_task(options: ImportOptions, contents: bytes, signature: FileSignature) -> TaskEntry:
    """The way in and out.

    Raises:
        ArtifactError: there is none, or something has to be said; the text names the option.
        BackendError: the file fails to run.
        PolicyError: the data do not fit it.
    """
    notes: list[str] = []
    outward = outward_of(options, signature, notes)
    if options.data is not None:
        examples: Tensors = {name: one.array[:1] for name, one in outward.items()}
    else:
        examples = {name: one[:1] for name, one in without_data(outward).items()}
    steps = {name: _steps(options, one) for name, one in outward.items()}
    if options.scale is None and options.normalise is None:
        notes.append("numbers go in as they are; --scale and --normalise say otherwise")
    try:
        binds = {name: bind_of(one, steps[name], options.file) for name, one in outward.items()}
    except ValueError as error:
        raise ArtifactError(f"{options.file}: {error}; say --input-shape") from error
    trial = Trial(contents, signature, binds, str(options.file))
    try:
        found = trial.run(examples, steps)
        binds = {
            name: InputBinding(
                one.name, one.datatype, trial.binds[name].shape, steps[name], one.is_batched
            )
            for name, one in binds.items()
        }
    finally:
        trial.close()
    served = [one for one in signature.outputs if one.datatype]
    is_batched = all(one.is_batched for one in binds.values())
    specs = tuple(one.spec for one in outward.values())
    if options.told.task != "detection":
        spec, bind = _single(options, served, found)
        return TaskEntry(specs, (spec,), binds, {spec.name: bind}, tuple(notes))
    boxes = find_boxes(
        served,
        found,
        options.told,
        num_labels=len(options.labels),
        is_logits=options.scores == "logits",
        is_batched=is_batched,
        source=str(options.file),
    )
    notes.append(boxes.note)
    picture = _picture_of(next(iter(binds.values())))
    return TaskEntry(
        specs, boxes.specs, binds, boxes.binds, tuple(notes), boxes.box_format, picture
    )


def _steps(options: ImportOptions, one: Outward) -> tuple[Step, ...]:
    laid = one.layouts(options.layout)
    if not laid:
        raise ArtifactError(
            f"examples of shape {list(one.spec.shape[1:])} do not become the {list(one.wanted)} "
            f"that {options.file} takes: send them so, or say --input-layout or --resize"
        )
    layout = laid[0].steps
    length = len(options.normalise[0]) if options.normalise else 1
    shape = prepare(np.zeros((1, *one.spec.shape[1:]), np.float32), layout, "FP32").shape[1:]
    axis = channel_axis_of(shape, length) if length > 1 else None
    return (*layout, *(said_numbers(options, axis) or ()))


def _single(
    options: ImportOptions, served: list[FileTensor], found: Tensors
) -> tuple[TensorSpec, OutputBinding]:
    """The output of scores, a vector, or an interval."""
    names = [one.name for one in served if one.name in found]
    name = options.scores_output or (names[0] if len(names) == 1 else "")
    listing = ", ".join(f"{one} of {found[one].shape[1]}" for one in names)
    if name not in names:
        raise ArtifactError(
            f"{options.file} gives {listing} numbers an example; name the output with "
            "--scores-output"
        )
    (tensor,) = [one for one in served if one.name == name]
    num, task = found[name].shape[1], options.told.task
    wanted = {
        "anomaly": 1,
        "regression": INTERVAL_SCORES,
        "multilabel": len(options.labels),
    }.get(task, num)
    if num != wanted:
        more = {
            "regression": ": lower end, value and upper end, as quantile heads give them",
            "multilabel": " labels: correct --labels",
        }.get(task, " number")
        raise ArtifactError(
            f"{name!r} of {options.file} gives {num} numbers an example; a model of {task} gives "
            f"{wanted}{more}"
        )
    form = options.scores
    if form == "auto":
        values = found[name]
        # Of one example it is a guess, which is told.
        form = "probabilities" if values.min() >= 0 and values.max() <= 1 else "logits"
    bind = OutputBinding(
        name,
        tensor.datatype,
        tensor.shape or (),
        scores=form if task == "multilabel" else "logits",
    )
    return TensorSpec(OUTPUT_NAME, "FP32", (-1, num)), bind


def _picture_of(bind: InputBinding) -> tuple[float, float] | None:
    """Width and height that the file takes, where that is to be seen."""
    shape = bind.shape[1:] if bind.is_batched else bind.shape
    if len(shape) not in _PICTURE or math.prod(shape) < 1:
        return None
    if len(shape) == _PICTURE[0]:
        return float(shape[1]), float(shape[0])
    is_first = shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
    height, width = shape[1:] if is_first else shape[:2]
    return float(width), float(height)
