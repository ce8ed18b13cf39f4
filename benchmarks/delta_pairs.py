"""Pairs of an old and a new model file, made with a fixed seed: what a delta has to carry.

The base is a classifier of the bundled pictures with two hidden layers, trained here in numpy. Its
successors are edits of known size, fine-tunes on shifted pictures, other number formats of these,
and edits of the bundled models. Used by ``benchmarks/delta.py``.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

BUNDLED = Path(__file__).parents[1] / "model_zoo" / "bundled" / "fashion"
SIZES = (784, 512, 256, 10)
BATCH = 64
SEED = 20
SCATTERED_SHARE = 0.05

Floats = npt.NDArray[np.float32]
Weights = dict[str, Floats]
Pair = tuple[bytes, bytes]
# A step of an optimiser: gradients in, the weights changed in place.
Update = Callable[[Weights, Weights], None]


def pairs() -> Iterator[tuple[str, Pair]]:
    """Every pair by name, in the order of the table."""
    rng = np.random.default_rng(SEED)
    base, pictures, labels = _trained(rng)
    old = _file(base)
    successors = _edits(base, rng) | _fine_tunes(base, pictures, labels)
    for name, weights in successors.items():
        yield name, (old, _file(weights))
    yield "metadata byte only", (old, _file(base, note="b"))
    yield "other order and names", (old, _file(successors["sigma 1e-3"], is_renamed=True))
    for name in ("SGD 1e-2 x 300", "Adam 1e-4 x 300"):
        halves = [_file(weights, TensorProto.FLOAT16) for weights in (base, successors[name])]
        yield f"fp16 of {name}", (halves[0], halves[1])
    yield "fp32 to fp16", (old, _file(base, TensorProto.FLOAT16))
    old_int8 = _quantized(old)
    for name in INT8_OF:
        yield f"int8 of {name}", (old_int8, _quantized(_file(successors[name])))
    yield "fp32 to int8", (old, old_int8)
    yield from _bundled(rng)


INT8_OF = (
    "last layer only",
    "sigma 1e-4",
    "sigma 1e-3",
    "sigma 1e-2",
    "Adam 1e-5 x 100",
    "Adam 1e-4 x 300",
)


def _edits(base: Weights, rng: np.random.Generator) -> dict[str, Weights]:
    def noisy(names: list[str], sigma: float) -> Weights:
        return base | {name: _with_noise(base[name], sigma, rng) for name in names}

    scattered = {
        name: np.where(
            rng.random(array.shape) < SCATTERED_SHARE, _with_noise(array, 1e-2, rng), array
        )
        for name, array in base.items()
    }
    everything = list(base)
    return {
        "last layer only": noisy(["w2", "b2"], 1e-2),
        "biases only": noisy([name for name in base if name.startswith("b")], 1e-2),
        "sigma 1e-4": noisy(everything, 1e-4),
        "sigma 1e-3": noisy(everything, 1e-3),
        "sigma 1e-2": noisy(everything, 1e-2),
        "5 % scattered": scattered,
    }


def _with_noise(array: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    noise = rng.normal(0.0, sigma * float(array.std()), array.shape)
    return (array + noise).astype(np.float32)


def _fine_tunes(
    base: Weights, pictures: Floats, labels: npt.NDArray[np.int64]
) -> dict[str, Weights]:
    shifted = np.clip(pictures * np.float32(0.7) + np.float32(0.1) * (pictures > 0), 0, 1)
    tuned = {}
    for name, update, steps in (
        ("SGD 1e-2 x 300", _sgd(1e-2), 300),
        ("Adam 1e-5 x 100", _adam(1e-5), 100),
        ("Adam 1e-4 x 300", _adam(1e-4), 300),
    ):
        weights = {key: array.copy() for key, array in base.items()}
        _train(weights, shifted, labels, update, steps=steps, rng=np.random.default_rng(SEED))
        tuned[name] = weights
    return tuned


def _trained(rng: np.random.Generator) -> tuple[Weights, Floats, npt.NDArray[np.int64]]:
    with np.load(BUNDLED / "pictures" / "test.npz") as stored:
        pictures = (stored["pictures"].reshape(-1, SIZES[0]) / 255).astype(np.float32)
        labels = stored["labels"].astype(np.int64)
    weights: Weights = {}
    for layer, (width_in, width_out) in enumerate(itertools.pairwise(SIZES)):
        drawn = rng.normal(0.0, (2 / width_in) ** 0.5, (width_in, width_out))
        weights[f"w{layer}"] = drawn.astype(np.float32)
        weights[f"b{layer}"] = np.zeros(width_out, np.float32)
    _train(weights, pictures, labels, _adam(1e-3), steps=200, rng=rng)
    return weights, pictures, labels


def _train(
    weights: Weights,
    pictures: Floats,
    labels: npt.NDArray[np.int64],
    update: Update,
    *,
    steps: int,
    rng: np.random.Generator,
) -> None:
    for _ in range(steps):
        drawn = rng.integers(0, len(labels), BATCH)
        update(weights, _gradients(weights, pictures[drawn], labels[drawn]))


def _gradients(weights: Weights, inputs: Floats, labels: npt.NDArray[np.int64]) -> Weights:
    num_layers = len(SIZES) - 1
    values = [inputs]
    for layer in range(num_layers):
        out = values[-1] @ weights[f"w{layer}"] + weights[f"b{layer}"]
        values.append(np.maximum(out, 0) if layer < num_layers - 1 else out)
    odds = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
    error = odds / odds.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    found: Weights = {}
    for layer in reversed(range(num_layers)):
        found[f"w{layer}"] = values[layer].T @ error
        found[f"b{layer}"] = error.sum(axis=0)
        error = (error @ weights[f"w{layer}"].T) * (values[layer] > 0)
    return found


def _sgd(rate: float) -> Update:
    def update(weights: Weights, gradients: Weights) -> None:
        for name, gradient in gradients.items():
            weights[name] -= np.float32(rate) * gradient

    return update


def _adam(rate: float) -> Update:
    """Adam as Kingma and Ba (2015) give it, with their constants."""
    first: Weights = {}
    second: Weights = {}
    num_steps = 0

    def update(weights: Weights, gradients: Weights) -> None:
        nonlocal num_steps
        num_steps += 1
        for name, gradient in gradients.items():
            zero = np.zeros_like(gradient)
            first[name] = 0.9 * first.get(name, zero) + 0.1 * gradient
            second[name] = 0.999 * second.get(name, zero) + 0.001 * gradient**2
            mean = first[name] / (1 - 0.9**num_steps)
            spread = np.sqrt(second[name] / (1 - 0.999**num_steps)) + 1e-8
            weights[name] -= (rate * mean / spread).astype(np.float32)

    return update


def _file(
    weights: Weights,
    datatype: int = TensorProto.FLOAT,
    *,
    note: str = "a",
    is_renamed: bool = False,
) -> bytes:
    prefix = "model.layers." if is_renamed else ""
    dtype = helper.tensor_dtype_to_np_dtype(datatype)
    nodes, last, num_layers = [], "x", len(SIZES) - 1
    for layer in range(num_layers):
        names = [f"{prefix}w{layer}", f"{prefix}b{layer}"]
        nodes.append(helper.make_node("MatMul", [last, names[0]], [f"m{layer}"]))
        nodes.append(helper.make_node("Add", [f"m{layer}", names[1]], [f"a{layer}"]))
        last = f"a{layer}"
        if layer < num_layers - 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{layer}"]))
            last = f"r{layer}"
    tensors = [numpy_helper.from_array(w.astype(dtype), prefix + n) for n, w in weights.items()]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", datatype, ["n", SIZES[0]])],
        [helper.make_tensor_value_info(last, datatype, ["n", SIZES[-1]])],
        tensors[::-1] if is_renamed else tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    model.doc_string = note
    return model.SerializeToString()


def _quantized(file: bytes) -> bytes:
    # It advises on preparing a model first, which these do not need.
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(file)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        return target.read_bytes()


def _bundled(rng: np.random.Generator) -> Iterator[tuple[str, Pair]]:
    for name in ("cloud/wide", "cloud/residual", "cloud/inception", "regional/regional"):
        old = (BUNDLED / f"{name}.onnx").read_bytes()
        model = onnx.load_from_string(old)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.int8 and array.size > 1:
                moved = np.clip(np.rint(array + rng.normal(0, 0.5, array.shape)), -127, 127)
                tensor.raw_data = moved.astype(np.int8).tobytes()
        yield f"bundled {name.split('/')[1]}, int8 moved", (old, model.SerializeToString())
