"""What LiteRT's backend promises, checked where only `tflite-runtime` and numpy 1 are installed.

    python litert_contract.py FOLDER

Run by ``test_tflite_runtime.py``, which has written the files into the folder. Without pytest, as
that and what it takes would bring numpy 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from runtime.adapters.litert_backend import LiteRtBackend
from runtime.errors import ArtifactError, BackendError
from runtime.messages import Tensors, TensorSpec

INPUTS = (TensorSpec("x", "FP32", (-1, 3)),)
OUTPUTS = (TensorSpec("logits", "FP32", (-1, 2)),)
WEIGHTS = np.array([[1, -1], [2, 0], [0, 3]], np.float32)
EXAMPLE = np.array([[1, 2, 3]], np.float32)


def main(folder: Path) -> None:
    """Raises AssertionError where something is not as promised."""
    linear = (folder / "linear.tflite").read_bytes()
    backend = loaded(linear)
    assert backend.report.engine.startswith("tflite-runtime "), backend.report
    assert np.__version__.startswith("1."), np.__version__
    for batch in (1, 2, 7):
        check(backend, np.arange(3 * batch, dtype=np.float32).reshape(batch, 3))
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check, backend, EXAMPLE * n) for n in range(80)]:
            done.result()
    bad: list[Tensors] = [
        {},
        {"y": EXAMPLE},
        {"x": EXAMPLE.astype(np.float64)},
        {"x": np.zeros((1, 4), np.float32)},
        {"x": np.zeros(3, np.float32)},
        {"x": np.zeros((0, 3), np.float32)},
    ]
    for inputs in bad:
        refused(BackendError, partial(backend.run, inputs))
        check(backend, EXAMPLE)
    nan = backend.run({"x": np.full((1, 3), np.nan, np.float32)})["logits"]
    assert np.isnan(np.asarray(nan, np.float64)).all()
    backend.close()
    backend.close()
    refused(BackendError, lambda: backend.run({"x": EXAMPLE}))

    quantized = loaded((folder / "quantized.tflite").read_bytes())
    found = quantized.run({"x": EXAMPLE})["logits"]
    assert np.abs(np.subtract(found, EXAMPLE @ WEIGHTS)).max() <= 0.5
    refused(BackendError, lambda: quantized.run({"x": EXAMPLE * np.float32(np.nan)}))

    # This package does not verify what it reads: a truncated file ends a process, but not this one.
    edge = (folder / "edge.tflite").read_bytes()
    for damaged in (b"", b"garbage" * 100, linear[:100], edge[: len(edge) // 2]):
        refused(ArtifactError, partial(loaded, damaged))

    expected = np.load(folder / "expected.npz")
    specs = (TensorSpec("image", "FP32", (-1, 28, 28)),), (TensorSpec("logits", "FP32", (-1, 10)),)
    bundled = LiteRtBackend.load(edge, source="edge.tflite", expected=specs)
    labels = np.asarray(bundled.run({"image": expected["pixels"]})["logits"]).argmax(1)
    assert (labels == expected["labels"]).mean() >= 0.995
    sys.stdout.write(f"fulfilled by {backend.report}\n")


def loaded(contents: bytes) -> LiteRtBackend:
    """The backend of one file."""
    return LiteRtBackend.load(contents, source="tiny.tflite", expected=(INPUTS, OUTPUTS))


def check(backend: LiteRtBackend, inputs: np.ndarray) -> None:
    """It computes what the model says."""
    found = backend.run({"x": inputs})["logits"]
    assert found.dtype == np.float32
    assert np.allclose(np.asarray(found), inputs @ WEIGHTS)


def refused(kind: type[Exception], call: Callable[[], object]) -> None:
    """It raises this, and nothing else."""
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
