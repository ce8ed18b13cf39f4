"""Where a detector's file has its boxes and scores.

In tensors of their own, or all in one, in one of the layouts that exporters write. What the file's
shapes and names do not say has to be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_zoo.importing.task_options import BoxLayout, TaskOptions
from runtime.adapters.signatures import FileTensor
from runtime.binding import OutputBinding, ScoreForm
from runtime.errors import ArtifactError
from runtime.messages import TensorSpec
from runtime.task_fields import BoxFormat

Array = npt.NDArray[np.generic]
_CORNERS = 4
# Boxes, score and class in a row.
_SUPPRESSED = 6
_PICTURE_BOXES = 2
_KINDS = ("boxes", "scores", "classes", "count")
_HINTS = {
    "boxes": ("box", "loc", "bbox"),
    "scores": ("score", "conf", "prob"),
    "classes": ("class", "label", "categ"),
    "count": ("num", "count"),
}


@dataclass(frozen=True, slots=True)
class BoxOutputs:
    """The outputs in the order of the manifest, and how they come out of the file."""

    specs: tuple[TensorSpec, ...]
    binds: dict[str, OutputBinding]
    box_format: BoxFormat
    note: str


@dataclass(frozen=True, slots=True)
class _Asked:
    options: TaskOptions
    num_labels: int
    form: ScoreForm
    source: str


def find_boxes(
    outputs: Sequence[FileTensor],
    found: Mapping[str, Array],
    options: TaskOptions,
    *,
    num_labels: int,
    is_logits: bool,
    is_batched: bool,
    source: str,
) -> BoxOutputs:
    """The outputs of a detector.

    Args:
        outputs: what the file says of them.
        found: what it gave for an example, by the file's names, flat.
        options: what somebody has said.
        num_labels: how many labels there are.
        is_logits: whether scores are logits of each label by itself.
        is_batched: whether the file has an axis for examples.
        source: names the file in errors.

    Raises:
        ArtifactError: they are not recognised; the text names the option that says it.
    """
    asked = _Asked(options, num_labels, "logits" if is_logits else "probabilities", source)
    shapes = {one.name: _example(one, is_batched=is_batched) for one in outputs}
    whole = [one for one in outputs if len(shapes[one.name]) == _PICTURE_BOXES]
    is_single = len(outputs) == 1 or options.box_layout not in ("auto", "apart")
    if options.outputs or (options.box_layout in ("auto", "apart") and not is_single):
        return _apart(outputs, shapes, found, asked)
    if not whole:
        raise ArtifactError(f"{source} gives no boxes: {_listing(outputs)}. {_SAY}")
    tensor = whole[0]
    layout = _layout(shapes[tensor.name], options.box_layout, num_labels)
    if layout is None:
        raise ArtifactError(
            f"{source}: {tensor.name!r} of {list(shapes[tensor.name])} may be several things for "
            f"{num_labels} labels; say --box-layout columns (4 + labels, n), rows "
            "(n, 4 + labels), objectness (n, 5 + labels) or classes (n, 6). Are --labels all?"
        )
    return _together(tensor, shapes[tensor.name], layout, asked)


_SAY = "Name them with --box-outputs BOXES,SCORES[,CLASSES[,COUNT]]"


def _example(tensor: FileTensor, *, is_batched: bool) -> tuple[int, ...]:
    """The shape of one example; empty where the file says none."""
    if tensor.shape is None:
        return ()
    return tensor.shape[1:] if is_batched else tensor.shape


def _listing(outputs: Sequence[FileTensor]) -> str:
    return ", ".join(f"{one.name} {list(one.shape or ())}" for one in outputs)


def _layout(shape: tuple[int, ...], told: BoxLayout, num_labels: int) -> BoxLayout | None:
    """What a single tensor is; None where it may be several things, or none."""
    if told not in ("auto", "apart"):
        return told
    first, last = shape
    fits: list[BoxLayout] = []
    if first == _CORNERS + num_labels:
        fits.append("columns")
    if last == _CORNERS + num_labels:
        fits.append("rows")
    if last == _CORNERS + 1 + num_labels:
        fits.append("objectness")
    if last == _SUPPRESSED:
        fits.append("classes")
    return fits[0] if len(fits) == 1 else None


def _together(
    tensor: FileTensor,
    shape: tuple[int, ...],
    layout: BoxLayout,
    asked: _Asked,
) -> BoxOutputs:
    num_labels, options = asked.num_labels, asked.options
    is_transposed = layout == "columns"
    num = shape[1] if is_transposed else shape[0]
    start = _CORNERS + (layout == "objectness")

    def bind(columns: tuple[int, int], *, objectness: int | None = None) -> OutputBinding:
        return OutputBinding(
            tensor.name,
            tensor.datatype,
            tensor.shape or (),
            scores=asked.form,
            is_transposed=is_transposed,
            columns=columns,
            objectness=objectness,
        )

    specs = [TensorSpec("boxes", "FP32", (-1, num, _CORNERS))]
    binds = {"boxes": bind((0, _CORNERS))}
    if layout == "classes":
        specs += [TensorSpec(name, "FP32", (-1, num)) for name in ("scores", "classes")]
        binds |= {"scores": bind((4, 5)), "classes": bind((5, 6))}
    else:
        specs.append(TensorSpec("scores", "FP32", (-1, num, num_labels)))
        objectness = _CORNERS if layout == "objectness" else None
        binds["scores"] = bind((start, start + num_labels), objectness=objectness)
    usual: BoxFormat = "corners" if layout == "classes" else "centres"
    box_format = options.box_format or usual
    note = f"{tensor.name!r} holds {layout} of boxes as {box_format}; --box-format says otherwise"
    return BoxOutputs(tuple(specs), binds, box_format, note)


def _apart(
    outputs: Sequence[FileTensor],
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Array],
    asked: _Asked,
) -> BoxOutputs:
    options, source = asked.options, asked.source
    tensors = {one.name: one for one in outputs}
    names = options.outputs or _recognised(outputs, shapes, found)
    unknown = [name for name in names if name not in tensors]
    if unknown or not _PICTURE_BOXES <= len(names) <= len(_KINDS):
        raise ArtifactError(
            f"{source} gives {_listing(outputs)}; which are the boxes and scores is not known"
            f"{f', nor {unknown}' if unknown else ''}. {_SAY}"
        )
    boxes, scores = shapes[names[0]], shapes[names[1]]
    num = boxes[0] if boxes else -1
    per_label = (asked.num_labels,) if len(scores) == _PICTURE_BOXES else ()
    wanted = [(num, _CORNERS), (num, *per_label), (num,), ()]
    specs, binds = [], {}
    for kind, name, shape in zip(_KINDS, names, wanted, strict=False):
        tensor = tensors[name]
        specs.append(TensorSpec(kind, "FP32", (-1, *shape)))
        binds[kind] = OutputBinding(
            name,
            tensor.datatype,
            tensor.shape or (),
            scores=asked.form,
        )
    box_format = options.box_format or "corners"
    parts = ", ".join(f"{kind} {name!r}" for kind, name in zip(_KINDS, names, strict=False))
    note = f"{parts}; boxes are {box_format}; --box-format says otherwise"
    return BoxOutputs(tuple(specs), binds, box_format, note)


def _recognised(
    outputs: Sequence[FileTensor],
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Array],
) -> tuple[str, ...]:
    """By shapes, then names, then numbers; as far as there is no doubt."""
    left = [one.name for one in outputs]
    taken: dict[str, str] = {}

    def take(kind: str, fits: list[str]) -> None:
        named = [name for name in fits if any(hint in name.lower() for hint in _HINTS[kind])]
        chosen = named if len(named) == 1 else fits
        if len(chosen) == 1:
            taken[kind] = chosen[0]
            left.remove(chosen[0])

    take("boxes", [name for name in left if shapes[name][-1:] == (_CORNERS,)])
    take("count", [name for name in left if shapes[name] in ((), (1,))])
    of_labels = [name for name in left if len(shapes[name]) == _PICTURE_BOXES]
    take("scores", of_labels)
    if "scores" not in taken:
        whole = [name for name in left if name in found and _is_whole(found[name])]
        if len(left) > 1:
            take("classes", whole or left)
        take("scores", list(left))
    names = tuple(taken[kind] for kind in _KINDS if kind in taken)
    return names if tuple(kind for kind in _KINDS if kind in taken) in _ORDERS else ()


_ORDERS = (_KINDS[:2], _KINDS[:3], _KINDS)


def _is_whole(array: Array) -> bool:
    values = np.asarray(array, np.float64)
    return bool(values.size and (values == np.floor(values)).all())
