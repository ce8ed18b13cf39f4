"""The tensors of a file, and those that callers will see in their place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_zoo.importing import candidates
from model_zoo.importing.candidates import Way
from model_zoo.importing.options import ImportOptions
from model_zoo.importing.told_steps import Told, check_alone
from model_zoo.labelled import check_finite, single_input
from runtime.adapters.signatures import FileSignature, FileTensor
from runtime.binding import InputBinding, Step
from runtime.core.preprocessing import shape_after
from runtime.errors import ArtifactError, PolicyError
from runtime.messages import TensorSpec
from runtime.tensors import dtype_of

Array = npt.NDArray[np.generic]
_NUM_MADE_UP = 16


@dataclass(frozen=True, slots=True)
class Outward:
    """An input as callers see it, and the file's; ``array`` is empty where there are no data.

    ``wanted`` is the file's shape of one example, -1 for what is free; ``told`` the steps that a
    person told.
    """

    spec: TensorSpec
    file_name: str
    datatype: str
    batch: int
    is_batched: bool
    wanted: tuple[int, ...]
    array: Array
    told: Told

    def layouts(self, layout: str) -> list[Way]:
        """The ways from the one to the other, with what was told."""
        if self.told:
            return self.told.ways(self.spec.shape[1:], self.wanted)
        return candidates.layouts(self.spec.shape[1:], self.wanted, layout=layout)


def outward_of(
    options: ImportOptions, signature: FileSignature, notes: list[str]
) -> dict[str, Outward]:
    """What callers will see, by name: as the data have it, or as the file has it.

    Raises:
        ArtifactError: a shape is open, or the data and the file have not as many inputs.
        PolicyError: the data hold numbers that are none.
    """
    tensors = signature.inputs
    told = Told(options)
    check_alone(options)
    if told and len(tensors) > 1:
        raise ArtifactError(
            f"--steps and --log-mel are for a single input; {options.file} has {len(tensors)}"
        )
    found: dict[str, Outward] = {}
    for tensor in tensors:
        name = options.input_name if len(tensors) == 1 else _caller_name(tensor.name)
        if name in found:
            raise ArtifactError(f"two inputs of {options.file} would both be called {name!r}")
        array = _array_of(options, tensor, name, is_single=len(tensors) == 1)
        example = array.shape[1:] if array.ndim and options.data is not None else None
        seen = example or options.input_shape or None
        if told and seen is None:
            raise ArtifactError(
                "--steps and --log-mel need to know what callers send: say --input-shape or --data"
            )
        ends = shape_after(seen, told.before(seen)) if told and seen else example
        batch, is_batched, wanted = _axes(tensor, signature, ends, options)
        if options.resize is not None:
            wanted = _resized(wanted, options, tensor)
        if example is None:
            shape, datatype = _told(options, tensor, wanted)
        else:
            shape, datatype = example, _datatype_seen(array, tensor, is_series=bool(told))
            array = array.astype(dtype_of(datatype))
            if -1 in wanted:
                notes.append(
                    f"{tensor.name!r} has free axes in the file, {list(wanted)}: fixed to what the "
                    "data have"
                )
        found[name] = Outward(
            TensorSpec(name, datatype, (-1, *shape)),
            tensor.name,
            tensor.datatype,
            batch,
            is_batched,
            wanted,
            array,
            told,
        )
    return found


def bind_of(one: Outward, steps: tuple[Step, ...], file: Path) -> InputBinding:
    """The binding by these steps.

    Raises:
        ArtifactError: an axis stays open.
        ValueError: a step cannot be done.
    """
    ends = shape_after(one.spec.shape[1:], steps)
    if len(ends) != len(one.wanted):
        raise ValueError(f"{list(ends)} has not as many axes as {list(one.wanted)}")
    shape = candidates.fixed(one.wanted, ends)
    if any(size < 1 for size in shape):
        raise ArtifactError(f"{file}: the size of {one.file_name!r} is open; say --input-shape")
    whole = (one.batch, *shape) if one.is_batched else shape
    return InputBinding(one.file_name, one.datatype, whole, steps, one.is_batched)


def without_data(outward: dict[str, Outward]) -> dict[str, Array]:
    """Made-up examples of what callers send."""
    random = np.random.default_rng(0)
    found: dict[str, Array] = {}
    for name, one in outward.items():
        wanted = dtype_of(one.spec.datatype)
        values = random.random((_NUM_MADE_UP, *one.spec.shape[1:]))
        if wanted == np.uint8:
            values *= 255
        found[name] = values.astype(wanted)
    return found


def _array_of(options: ImportOptions, tensor: FileTensor, name: str, *, is_single: bool) -> Array:
    data = options.data
    if data is None:
        return np.empty(0)
    if is_single:
        key = next((one for one in (tensor.name, name) if one in data.inputs), "")
        key = key or single_input(data.inputs, data.source)
    else:
        key = next((one for one in (tensor.name, name) if one in data.inputs), "")
        if not key:
            raise PolicyError(
                f"{data.source} has no input {tensor.name!r} (or {name!r}); it has "
                f"{sorted(data.inputs)}"
            )
    array = np.asarray(data.inputs[key])
    if array.dtype.kind not in "fiub":
        raise PolicyError(f"{data.source}: {key!r} must hold numbers, not {array.dtype}")
    if array.dtype.kind == "f":
        check_finite(array, f"{data.source}, {key}")
    return array


def _caller_name(name: str) -> str:
    """A name that is easily written, close to the file's."""
    plain = re.sub(r"^serving_default_|:\d+$", "", name)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("_.-") or "input"


def _axes(
    tensor: FileTensor,
    signature: FileSignature,
    example: tuple[int, ...] | None,
    options: ImportOptions,
) -> tuple[int, bool, tuple[int, ...]]:
    """The batch that a file takes, whether it has an axis for it, and the rest of the shape."""
    if tensor.shape is None:
        seen = example or options.input_shape
        if not seen:
            raise ArtifactError(
                f"{options.file} does not say which shape {tensor.name!r} has: say --input-shape"
            )
        return -1, True, tuple(-1 for _ in seen)
    first, rest = tensor.shape[0], tensor.shape[1:]
    if first in (-1, 1) and rest:
        return first, True, rest
    if example is not None:
        if candidates.layouts(example, rest) and not candidates.layouts(example, tensor.shape):
            return first, True, rest
        if candidates.layouts(example, tensor.shape):
            return 1, False, tensor.shape
    shared = any(one.shape and one.shape[0] == first for one in signature.outputs)
    if shared and rest:
        return first, True, rest
    return 1, False, tensor.shape


def _resized(
    wanted: tuple[int, ...], options: ImportOptions, tensor: FileTensor
) -> tuple[int, ...]:
    """The file's shape with the height and width that were told in its free places."""
    if options.resize is None or len(wanted) != candidates.COLOURS:
        raise ArtifactError(f"--resize: {tensor.name!r} of {options.file} takes no pictures")
    is_first = options.layout == "nchw" or (options.layout == "auto" and wanted[0] in (1, 3))
    height, width = options.resize
    sides = (wanted[0], height, width) if is_first else (height, width, wanted[2])
    if any(own not in (-1, size) for own, size in zip(wanted, sides, strict=True)):
        raise ArtifactError(
            f"--resize {height}x{width} does not fit the {list(wanted)} that {options.file} takes"
        )
    return sides


def _told(
    options: ImportOptions, tensor: FileTensor, wanted: tuple[int, ...]
) -> tuple[tuple[int, ...], str]:
    """Shape of one example and datatype as callers send them, where no data show it."""
    shape = options.input_shape or wanted
    if any(size < 1 for size in shape):
        raise ArtifactError(
            f"{options.file} takes {tensor.name!r} of shape {list(wanted)} an example, where -1 is "
            "open: fix it with --input-shape (such as 224,224,3), --resize, or --data"
        )
    return shape, options.input_datatype or tensor.datatype


def _datatype_seen(array: Array, tensor: FileTensor, *, is_series: bool) -> str:
    if array.dtype == np.uint8:
        return "UINT8"
    if is_series and array.dtype == np.int16:
        # As sound cards give it, and half as long on the wire.
        return "INT16"
    if tensor.datatype.startswith("FP") or array.dtype.kind == "f":
        return "FP32"
    return tensor.datatype
