"""Finds labels and inputs in an ``.npz`` of anybody's naming: the one place that does.

Known are the names that data sets usually have: ``labels``, ``y``, ``target`` with ``images``,
``X``, ``data``, and the parts of a split (``x_test``, ``y_train``). Of a split the test part is
taken: a model knows its training part by heart, and would seem surer than it is.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_zoo.class_labels import texts_of
from runtime.errors import PolicyError
from runtime.messages import TensorSpec
from runtime.tensors import dtype_of

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]
LABELS = ("labels", "label", "y", "targets", "target", "classes", "class", "ground_truth")
INPUTS = ("x", "inputs", "input", "images", "image", "pictures", "data", "features", "samples")
NAMES = (
    "label_names",
    "class_names",
    "target_names",
    "classnames",
    "names",
    "categories",
    "classes",
)
# In the order in which they are taken.
PARTS = ("test", "testing", "val", "valid", "validation", "dev", "train", "training")
_ONE_OF = "|".join(PARTS)
_PART = re.compile(
    rf"(?:(?P<first>{_ONE_OF})[_-])?(?P<name>.*?)(?:[_-](?P<last>{_ONE_OF}))?",
    re.DOTALL,
)
# `xtest` and `ytest`; of longer names it would be a guess.
_JOINED = re.compile(rf"(?P<name>[xy])(?P<part>{_ONE_OF})")
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Labelled:
    """Inputs by the names of the file, first axis the examples, and a label for each.

    ``labels`` are class indices, names, or one row of zeros and ones each where several may hold.
    ``notes`` say what was found where, for a person.
    """

    inputs: Mapping[str, Array]
    labels: Array
    source: str
    label_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def is_multilabel(self) -> bool:
        """Whether several labels may hold of one example."""
        return self.labels.ndim == _MATRIX


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz``; nothing in it is run.

    Raises:
        PolicyError: it is none, is damaged, or holds objects.
    """
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise PolicyError(f"{path} holds one array; data is an .npz with inputs and labels")
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        hint = "; objects are not read: save arrays of numbers" if "pickle" in str(error) else ""
        raise PolicyError(
            f"{path} cannot be read: {error}{hint}; data is an .npz with `labels` and the model's "
            "inputs by name, or bundled:calibration"
        ) from error


def find_labelled(arrays: Mapping[str, Array], source: str) -> Labelled:
    """Labels and inputs among the arrays of a file.

    Raises:
        PolicyError: there are no labels, no inputs, or they do not belong together; what was there
            is listed.
    """
    listing = ", ".join(f"{name} {list(one.shape)}" for name, one in sorted(arrays.items()))
    key, part = _label_key(arrays)
    if key is None:
        raise PolicyError(
            f"{source} needs an array `labels` (or y, label, target) and at least one input; it "
            f"has {listing or 'nothing'}"
        )
    raw = arrays[key]
    num = len(raw) if raw.ndim else 0
    label_names, name_key = _label_names(arrays, key)
    others = {
        name: one
        for name, one in arrays.items()
        if name not in {key, name_key} and _split(name)[1] == part
    }
    others = {name: one for name, one in others.items() if _split(name)[0] not in LABELS}
    if not others:
        raise PolicyError(f"{source} needs an array `labels` and at least one input; has {listing}")
    if not num:
        raise PolicyError(f"{source} is empty: `{key}` has no labels")
    lengths = {name: len(one) if one.ndim else 0 for name, one in others.items()}
    if set(lengths.values()) != {num}:
        raise PolicyError(f"{source}: {num} labels, but inputs of {lengths}")
    notes = []
    if part:
        notes.append(f"{source} has parts; `{part}` is taken, with the labels `{key}`")
    return Labelled(others, _labels_of(raw, key, source), source, label_names, tuple(notes))


def part_of(data: Labelled, start: int, end: int | None) -> Labelled:
    """Examples ``start`` to ``end``, the latter not included.

    Raises:
        PolicyError: there are none.
    """
    inputs = {name: one[start:end] for name, one in data.inputs.items()}
    labels = data.labels[start:end]
    if not len(labels):
        raise PolicyError(f"{data.source}: no examples are there; it has {len(data.labels)} in all")
    return replace(data, inputs=inputs, labels=labels)


def inputs_for(
    inputs: Mapping[str, Array], specs: Sequence[TensorSpec], source: str
) -> dict[str, Array]:
    """Those arrays that a model takes, by its names and of its types.

    A model of one input takes the one array there is, or the one that is named like inputs are.

    Raises:
        PolicyError: an input is not there, or its numbers cannot become the model's.
    """
    chosen = {spec.name: inputs[spec.name] for spec in specs if spec.name in inputs}
    if len(chosen) < len(specs):
        if len(specs) > 1:
            raise PolicyError(
                f"{source} has the inputs {sorted(inputs)}; the model takes "
                f"{sorted(spec.name for spec in specs)}: name them so"
            )
        chosen = {specs[0].name: inputs[single_input(inputs, source)]}
    return {spec.name: converted(chosen[spec.name], spec, source) for spec in specs}


def single_input(inputs: Mapping[str, Array], source: str) -> str:
    """The name of the array that is the input of a model of one.

    Raises:
        PolicyError: several could be meant.
    """
    if len(inputs) == 1:
        return next(iter(inputs))
    named = sorted(inputs, key=lambda name: INPUTS.index(_split(name)[0]) if _known(name) else 99)
    if _known(named[0]) and not _known(named[1]):
        return named[0]
    raise PolicyError(
        f"{source} has several inputs, {sorted(inputs)}, and the model takes one: name it `inputs`"
    )


def converted(array: Array, spec: TensorSpec, source: str) -> Array:
    """The same numbers in the type that callers send; integers never lose a digit.

    Raises:
        PolicyError: a number is no number, or has none that is equal to it in that type.
    """
    wanted = dtype_of(spec.datatype)
    if array.dtype.kind == "f":
        check_finite(array, source)
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in "fiub":
        raise PolicyError(f"{source}: inputs must be numbers, not {array.dtype}")
    with np.errstate(all="ignore"):
        found = array.astype(wanted)
        same = wanted.kind == "f" or bool((found == array).all())
    if not same or (wanted.kind == "f" and not np.isfinite(found).all()):
        raise PolicyError(
            f"{source}: {array.dtype} inputs do not fit {spec.datatype}, which the model takes"
        )
    return found


def check_finite(array: Array, source: str) -> None:
    """Refuses numbers that are none.

    Raises:
        PolicyError: there are some; the text says how many, and where the first is.
    """
    bad = ~np.isfinite(array)
    if bad.any():
        rows = np.flatnonzero(bad.reshape(len(array), -1).any(axis=1))
        raise PolicyError(
            f"{source}: {len(rows)} of {len(array)} examples hold NaN or infinity, the first is "
            f"number {rows[0]}: take them out, or fill them in"
        )


def _split(name: str) -> tuple[str, str]:
    """The name without the part of a split, and that part."""
    joined = _JOINED.fullmatch(name.lower())
    if joined is not None:
        return joined["name"], joined["part"]
    match = _PART.fullmatch(name.lower())
    if match is None or not match["name"]:
        return name.lower(), ""
    return match["name"], match["first"] or match["last"] or ""


def _known(name: str) -> bool:
    return _split(name)[0] in INPUTS


def _label_key(arrays: Mapping[str, Array]) -> tuple[str | None, str]:
    """The array of the labels: without a part first, then of the most trustworthy part."""
    found = [(name, *_split(name)) for name in arrays]
    candidates = [
        (("", *PARTS).index(part), LABELS.index(base), name, part)
        for name, base, part in found
        if base in LABELS
    ]
    if not candidates:
        return None, ""
    _, _, name, part = min(candidates)
    return name, part


def _label_names(arrays: Mapping[str, Array], key: str) -> tuple[tuple[str, ...], str]:
    for name, one in arrays.items():
        is_named = name.lower() in NAMES and name != key
        if is_named and one.ndim == 1 and one.dtype.kind in "US":
            return tuple(texts_of(one)), name
    return (), ""


def _labels_of(raw: Array, key: str, source: str) -> Array:
    """(n,) integers or texts, or (n, classes) of zeros and ones where rows may have several."""
    labels = raw
    if labels.ndim == _MATRIX and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == _MATRIX and labels.dtype.kind in "fiub":
        if not np.isin(labels, (0, 1)).all():
            raise PolicyError(
                f"{source}: `{key}` has {list(raw.shape)} numbers that are not zeros and ones"
            )
        if (labels.sum(axis=1) == 1).all():
            hot: Array = labels.argmax(axis=1).astype(np.int64)
            return hot
        return labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "fiubUS":
        raise PolicyError(
            f"{source}: labels must be class indices or names, not {labels.dtype} of shape "
            f"{list(raw.shape)}"
        )
    if labels.dtype.kind == "f":
        check_finite(labels, source)
        if (labels != np.rint(labels)).any():
            raise PolicyError(f"{source}: labels must be class indices, not {labels.dtype}")
    if labels.dtype.kind == "u" and len(labels) and labels.max() > np.iinfo(np.int64).max:
        raise PolicyError(f"{source}: labels must be class indices, not numbers of 64 bits")
    return labels if labels.dtype.kind in "US" else labels.astype(np.int64)
