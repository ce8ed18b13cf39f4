"""What lies between the tensors that callers see and those of one file of another project.

A file that was not made for Tierwise has names, layouts and numbers of its own. Its member's entry
in the manifest says once what has to be done: to every input in order (``steps``), and to the
scores that come out (``scores``). Both engines apply it at the same place
(``runtime.adapters.bound_backend``), so a device, a gateway and the cloud cannot differ, whatever
made the file. Steps for sound and sensors are in ``runtime.binding_signals``. What cannot be
declared, such as decoding a JPEG, is left to the caller.

Shapes in steps are of one example, without the batch axis.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from runtime.binding_signals import Axis, SignalStep

MAX_STEPS = 16
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Side = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Column = Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
# FileName-like restrictions do not hold for tensors: exporters write anything.
TensorName = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
FileShape = Annotated[tuple[Annotated[int, msgspec.Meta(ge=-1)], ...], msgspec.Meta(max_length=8)]


class Reshape(msgspec.Struct, frozen=True, tag_field="step", tag="reshape"):
    """The same elements, in the same order, in another shape."""

    shape: Annotated[tuple[Size, ...], msgspec.Meta(max_length=7)]


class Transpose(msgspec.Struct, frozen=True, tag_field="step", tag="transpose"):
    """The axes in another order: (2, 0, 1) makes channels first of channels last.

    Raises:
        ValueError: ``order`` is no permutation.
    """

    order: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=7)]

    def __post_init__(self) -> None:
        """Refuses what is no permutation."""
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"{list(self.order)} is no order of axes")


class Normalise(msgspec.Struct, frozen=True, tag_field="step", tag="normalise"):
    """``(x - mean) / std``: one of each, or one for each place along ``axis``.

    Mean 0 and std 255 makes 0..1 of a byte.

    Raises:
        ValueError: lengths differ, a number is not finite, or a std is 0.
    """

    mean: Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=1 << 16)]
    std: Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=1 << 16)]
    axis: Axis = -1

    def __post_init__(self) -> None:
        """Refuses numbers that would make infinity of an input."""
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means, but {len(self.std)} standard deviations")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or not all(self.std):
            raise ValueError("means and standard deviations must be finite, and the latter not 0")


class Resize(msgspec.Struct, frozen=True, tag_field="step", tag="resize"):
    """The first two axes to this size: bilinear between the centres of pixels, no anti-aliasing.

    As ``Resize`` of ONNX does with mode linear and half_pixel.
    """

    height: Side
    width: Side


class Repeat(msgspec.Struct, frozen=True, tag_field="step", tag="repeat"):
    """An axis of length 1 several times: colour of grey."""

    times: Annotated[int, msgspec.Meta(ge=1, le=64)]
    axis: Axis = -1


class Grey(msgspec.Struct, frozen=True, tag_field="step", tag="grey"):
    """Brightness of red, green and blue along ``axis``, which becomes 1 (ITU-R BT.601)."""

    axis: Axis = -1


PictureStep = Reshape | Transpose | Normalise | Resize | Repeat | Grey
Step = PictureStep | SignalStep
Steps = Annotated[tuple[Step, ...], msgspec.Meta(max_length=MAX_STEPS)]
# What the numbers are that a file gives.
ScoreForm = Literal["logits", "probabilities", "binary_logit", "binary_probability"]
# float32 parts 1 from its neighbours by about this much.
LEAST_PROBABILITY = 1e-7


class InputBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file's name, type and shape of an input, and how to come to it.

    ``shape`` is the file's, floats in place of quantized integers. Its first axis is the batch: -1
    is any, a number is the only one that the file takes; ``is_batched`` false says that there is
    no such axis, and that the file takes one example at a time.
    """

    name: TensorName
    datatype: str
    shape: FileShape
    steps: Steps = ()
    is_batched: bool = True


class OutputBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file's name, type and shape of an output, and what its numbers are.

    ``floor`` is the least probability, so that its logarithm is finite: half a step for integers.
    The rest is for detectors, which often give boxes and scores in one tensor: whether its last two
    axes change places first, then which columns of the last axis these are (the second not
    included), and the column of whether there is an object at all, which scores are multiplied by.
    Their scores are ``probabilities``, or ``logits`` of each label by itself.
    """

    name: TensorName
    datatype: str
    shape: FileShape
    scores: ScoreForm = "logits"
    floor: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = LEAST_PROBABILITY
    is_transposed: bool = False
    columns: tuple[Column, Column] | None = None
    objectness: Column | None = None

    def __post_init__(self) -> None:
        """Refuses columns that are none.

        Raises:
            ValueError: there is nothing between them.
        """
        if self.columns and not self.columns[0] < self.columns[1]:
            raise ValueError(f"the columns {list(self.columns)} hold nothing")
