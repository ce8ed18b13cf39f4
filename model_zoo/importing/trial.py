"""Runs a file of another project as it is, to see what it does with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from runtime.adapters.bound_backend import piece_of, run_in_pieces
from runtime.adapters.edges import Promise
from runtime.adapters.litert_backend import LiteRtBackend
from runtime.adapters.model_worker import TimedBackend
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.adapters.signatures import FileSignature, FileTensor
from runtime.binding import InputBinding
from runtime.core.preprocessing import prepare
from runtime.errors import ArtifactError, BackendError
from runtime.messages import Tensors, TensorSpec

Array = npt.NDArray[np.generic]
BATCH = 64
# Rows of a batch may differ from the same rows alone by rounding.
TOLERANCE = 1e-2
_ROWS = 3


class Trial:
    """One file with its inputs' shapes fixed; gives the numeric outputs as they are."""

    def __init__(
        self,
        contents: bytes,
        signature: FileSignature,
        inputs: Mapping[str, InputBinding],
        source: str,
    ) -> None:
        """Loads it, and finds out whether it takes any batch, as it may say falsely.

        Raises:
            ArtifactError: it cannot be loaded with these shapes.
            BackendError: it fails to run.
        """
        self.binds = dict(inputs)
        self._signature = signature
        self._contents, self._source = contents, source
        self.outputs = [one for one in signature.outputs if one.datatype]
        self.piece = piece_of(self.binds, source)
        try:
            self._engine = self._load()
        except (ArtifactError, BackendError):
            if self.piece is not None:
                raise
            self._engine = self._one_by_one()
        if self.piece is None and not self._takes_batches():
            self._engine.close()
            self._engine = self._one_by_one()

    @property
    def typical_ms(self) -> float:
        """Median time of one example."""
        return self._engine.typical_ms

    def run(self, inputs: Mapping[str, Array], steps: Mapping[str, Sequence[object]]) -> Tensors:
        """Outputs of ``(n, ...)`` callers' inputs after these steps, as the file gives them.

        Raises:
            BackendError: it failed.
            ValueError: a step cannot be done.
        """
        num = len(next(iter(inputs.values())))
        parts: list[Tensors] = []
        for start in range(0, num, BATCH):
            tensors = {
                bind.name: prepare(
                    inputs[name][start : start + BATCH],
                    steps[name],  # type: ignore[arg-type]
                    bind.datatype,
                )
                for name, bind in self.binds.items()
            }
            parts.append(self._run(tensors, min(BATCH, num - start)))
        return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}

    def close(self) -> None:
        """Frees the model."""
        self._engine.close()

    def _run(self, tensors: Tensors, num: int) -> Tensors:
        if self.piece is not None:
            return run_in_pieces(self._engine, tensors, num, *self.piece)
        found = self._engine.run(tensors)
        return {
            name: one.reshape(num, -1)
            for name, one in found.items()
            if one.size % num == 0 and one.size
        }

    def _load(self) -> TimedBackend:
        specs = [TensorSpec(one.name, one.datatype, one.shape) for one in self.binds.values()]
        outputs = [TensorSpec(one.name, one.datatype, one.shape or ()) for one in self.outputs]
        promise = Promise(specs, outputs, {}, is_bound=True)
        if self._signature.engine == "litert":
            return LiteRtBackend.load(self._contents, source=self._source, promise=promise)
        return OnnxBackend.load(self._contents, source=self._source, promise=promise)

    def _one_by_one(self) -> TimedBackend:
        """The same for a batch of one."""
        for name, bind in self.binds.items():
            shape = (1, *bind.shape[1:])
            self.binds[name] = InputBinding(bind.name, bind.datatype, shape, bind.steps)
        self.piece = (1, True)
        return self._load()

    def _takes_batches(self) -> bool:
        """Whether rows of a batch are answered as each of them alone."""
        random = np.random.default_rng(0)
        rows = {
            bind.name: _noise(bind, random.random((_ROWS, *bind.shape[1:])))
            for bind in self.binds.values()
        }
        try:
            together = self._run(rows, _ROWS)
            alone = run_in_pieces(self._engine, rows, _ROWS, 1, is_batched=True)
        except BackendError:
            return False
        return alone.keys() == together.keys() and all(
            together[name].shape == one.shape
            and np.allclose(together[name], one, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            for name, one in alone.items()
        )


def _noise(bind: InputBinding, values: Array) -> Array:
    return prepare(values, (), bind.datatype)


def check_inputs(signature: FileSignature, source: str) -> None:
    """Refuses files whose tensors nobody can send.

    Raises:
        ArtifactError: an input is of texts, or has an axis of length 0; there is none at all.
    """
    if not signature.inputs or not signature.outputs:
        raise ArtifactError(f"{source} has no inputs or no outputs: it is no model to be asked")
    for tensor in signature.inputs:
        if not tensor.datatype:
            raise ArtifactError(
                f"{source} takes {tensor.name!r} as {tensor.kind}: only numbers can be sent. Put "
                "what makes numbers of it (tokens, categories) before the model, and export the "
                "rest"
            )
        if tensor.shape is not None and 0 in tensor.shape:
            raise ArtifactError(
                f"{source} takes {tensor.name!r} of shape {list(tensor.shape)}, which holds "
                "nothing: export it again with the real size, or -1"
            )


def check_outputs(signature: FileSignature, source: str) -> list[FileTensor]:
    """The outputs of numbers.

    Raises:
        ArtifactError: there are none; the text says how to export them.
    """
    served = [one for one in signature.outputs if one.datatype.startswith("FP")]
    if served:
        return served
    kinds = ", ".join(f"{one.name} {one.kind}" for one in signature.outputs)
    if any("map" in one.kind for one in signature.outputs):
        raise ArtifactError(
            f"{source} gives its probabilities as a list of maps ({kinds}): export it again "
            "without ZipMap, e.g. skl2onnx.to_onnx(..., options={id(model): {'zipmap': False}})"
        )
    raise ArtifactError(
        f"{source} gives no scores, only {kinds}: export it with the probabilities or logits of "
        "its classes"
    )
