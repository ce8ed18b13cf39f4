"""The first inferences of a model: have outputs the announced shapes, and how long is one?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from runtime.errors import ArtifactError
from runtime.messages import Tensors, TensorSpec
from runtime.tensors import dtype_of

Run = Callable[[Tensors], Tensors]
_TIMED_RUNS = 15
_TIMING_BUDGET_S = 0.2


def warm_up(
    run: Run, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], source: str
) -> float:
    """Runs batches of two and one, checks what comes out; the median time of the latter in ms.

    Raises:
        ArtifactError: an output does not have the shape that was announced.
        BackendError: the model failed.
    """
    for batch in (2, 1):
        inputs_of_batch = example(inputs, batch)
        found = run(inputs_of_batch)
        for spec in outputs:
            check_shape(found[spec.name].shape, spec, batch, source)
    times: list[float] = []
    while len(times) < _TIMED_RUNS and sum(times) < _TIMING_BUDGET_S:
        start = time.perf_counter()
        run(inputs_of_batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def example(specs: Sequence[TensorSpec], batch: int) -> Tensors:
    """Zeros of every input; a free first axis is the batch, another free axis is 1."""
    tensors: Tensors = {}
    for spec in specs:
        sizes = [1 if size < 0 else size for size in spec.shape]
        if spec.shape[:1] == (-1,):
            sizes[0] = batch
        tensors[spec.name] = np.zeros(sizes, dtype_of(spec.datatype))
    return tensors


def check_shape(shape: tuple[int, ...], spec: TensorSpec, batch: int, source: str) -> None:
    """Whether an output has the shape that was announced, for a batch of this size.

    Raises:
        ArtifactError: it has another one.
    """
    wanted = (batch if spec.shape[:1] == (-1,) else None, *spec.shape[1:])
    if not _fits(shape, wanted):
        raise ArtifactError(
            f"{source}: {spec.name!r} has shape {list(shape)} for a batch of "
            f"{batch}, where {list(spec.shape)} was announced"
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or size < 0 or size == found for found, size in zip(shape, wanted, strict=True)
    )
