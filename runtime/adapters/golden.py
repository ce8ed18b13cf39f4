"""Golden examples of a model: inputs, and what its members answered where it was published.

An ``.npz`` in the model's folder: ``input/<tensor>`` with a few examples, and for every member
``output/<member>/<tensor>``. Whoever is to serve the model runs them first: a processor, driver or
runtime that computes something else is found out before a caller sees it.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from runtime.errors import ArtifactError, BackendError
from runtime.manifest import ModelManifest
from runtime.messages import Tensors
from runtime.ports import Backend
from runtime.tensors import dtype_of

MAX_GOLDEN_BYTES = 8 << 20
MAX_UNPACKED_BYTES = 64 << 20
NUM_EXAMPLES = 4
# Other processors round otherwise, int8 kernels by a step of a layer's scale.
TOLERANCE = 0.02
# Share of boxes that have to be found again, of those that are compared in each picture.
SAME_BOXES, _MAX_BOXES = 0.9, 300


def make_golden(manifest: ModelManifest, backends: Sequence[Backend]) -> bytes:
    """Golden examples of made-up inputs, the same bytes for the same model on the same machine.

    Raises:
        ArtifactError: a member answers with numbers that are not finite.
        BackendError: a member failed to run.
    """
    contents = _made(manifest, backends, NUM_EXAMPLES)
    # Of large pictures and thousands of boxes, one has to do.
    return contents if len(contents) <= MAX_GOLDEN_BYTES else _made(manifest, backends, 1)


def check_golden(
    contents: bytes, manifest: ModelManifest, backends: Sequence[Backend], source: str
) -> int:
    """Runs golden examples; returns how many outputs were compared.

    Raises:
        ArtifactError: the file is none, or a member answers something else.
        BackendError: a member failed to run.
    """
    arrays = _read(contents, source)
    inputs = {
        name.removeprefix("input/"): array
        for name, array in arrays.items()
        if name.startswith("input/")
    }
    if inputs.keys() != {spec.name for spec in manifest.inputs}:
        raise ArtifactError(f"{source} has inputs {sorted(inputs)}, which are not the model's")
    try:
        found = _outputs(manifest, backends, inputs)
    except BackendError as error:
        raise ArtifactError(f"{source} cannot be run through the model: {error}") from error
    for name, array in found.items():
        expected = arrays.get(name)
        if expected is not None and _are_same_boxes(name, expected, array, manifest):
            continue
        if expected is None or expected.shape != array.shape:
            raise ArtifactError(f"{source} has no {name} of shape {list(array.shape)}")
        if not np.allclose(array, expected, rtol=TOLERANCE, atol=TOLERANCE):
            difference = np.max(np.abs(array.astype(np.float64) - expected))
            raise ArtifactError(
                f"{source} is not reproduced: {name} differs by up to {difference:.4g}. These are "
                "golden outputs of another model, or this machine computes something else"
            )
    return len(found)


def _made(manifest: ModelManifest, backends: Sequence[Backend], num: int) -> bytes:
    random = np.random.default_rng(0)
    inputs: Tensors = {}
    for spec in manifest.inputs:
        sizes = [1 if size < 0 else size for size in spec.shape]
        if spec.shape[:1] == (-1,):
            sizes[0] = num
        values = random.random(sizes)
        if spec.datatype == "UINT8":
            # Of a picture; as integers, numbers below 1 would all be 0.
            values *= 255
        inputs[spec.name] = values.astype(dtype_of(spec.datatype))
    arrays = {f"input/{name}": array for name, array in inputs.items()}
    outputs = _outputs(manifest, backends, inputs)
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise ArtifactError(f"{manifest.name} gives numbers that are not finite: {name}")
    arrays |= outputs
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _are_same_boxes(
    name: str, expected: np.ndarray, array: np.ndarray, manifest: ModelManifest
) -> bool:
    """Whether a detector that gives as many boxes as there are gave nearly all of them again.

    A score that is rounded otherwise makes one box more or less, which is no other model.
    """
    spec = {one.name: one for one in manifest.outputs}.get(name.rpartition("/")[2])
    if manifest.task != "detection" or spec is None or spec.shape[1:2] != (-1,):
        return False
    if expected.shape[:1] + expected.shape[2:] != array.shape[:1] + array.shape[2:]:
        return False
    some, others = (
        one[:, :_MAX_BOXES].reshape(
            len(one), min(_MAX_BOXES, one.shape[1]), math.prod(one.shape[2:])
        )
        for one in (expected, array)
    )
    near = np.isclose(others[:, None], some[:, :, None], rtol=TOLERANCE, atol=TOLERANCE).all(axis=3)
    found = near.any(axis=2).sum() + near.any(axis=1).sum()
    return bool(found >= SAME_BOXES * (near.shape[0] * (near.shape[1] + near.shape[2])))


def _outputs(
    manifest: ModelManifest, backends: Sequence[Backend], inputs: Tensors
) -> dict[str, np.ndarray]:
    return {
        f"output/{member.name}/{name}": array
        for member, backend in zip(manifest.members, backends, strict=True)
        for name, array in backend.run(inputs).items()
    }


def _read(contents: bytes, source: str) -> Mapping[str, np.ndarray]:
    if len(contents) > MAX_GOLDEN_BYTES:
        raise ArtifactError(f"{source} has more than {MAX_GOLDEN_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked <= MAX_UNPACKED_BYTES:
            with np.load(io.BytesIO(contents), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{source} holds no golden examples: {error}") from error
    raise ArtifactError(f"{source} unpacks to {unpacked} bytes, more than {MAX_UNPACKED_BYTES}")
