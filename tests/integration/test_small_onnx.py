"""What a small network computes in numpy, its ONNX file computes as well."""

from __future__ import annotations

import numpy as np
import pytest

from model_zoo.baselines import Make, cnn, mlp, ngrams
from model_zoo.small_layers import Dense
from model_zoo.small_nets import SmallNet
from model_zoo.small_onnx import to_onnx
from model_zoo.task_data import Part
from model_zoo.text_codes import codes_of
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.messages import TensorSpec

TEXTS = ("Hej, hvordan går det?", "", "a", "Zażółć gęślą jaźń", "Привіт " * 20, "🙂 日本")
SERIES = np.random.default_rng(0).normal(3, 2, (9, 30, 4)).astype(np.float32)
PART = Part(SERIES, np.zeros(9, np.int64))
NETS: dict[str, Make] = {
    "cnn": cnn(PART, 3, (5, 6, 7), width=3),
    "mlp": mlp(PART, 3, (8, 7)),
    "without pooling": lambda random: SmallNet([Dense(4, 3, random)]),
}


def logits(contents: bytes, name: str, values: np.ndarray) -> np.ndarray:
    backend = OnnxBackend.load(contents, source="small.onnx")
    return np.asarray(backend.run({name: values})["logits"])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [1, 9])
def test_the_file_gives_the_same_logits(name: str, batch: int) -> None:
    net = NETS[name](np.random.default_rng(1))
    values = SERIES[:batch] if name != "without pooling" else SERIES[:batch, 0]
    spec = TensorSpec("series", "FP32", (-1, *values.shape[1:]))

    found = logits(to_onnx(net, spec, 3), "series", values)

    assert np.allclose(found, net.logits(values), atol=1e-4)


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("lengths", [(1,), (1, 2, 3), (3, 4, 5)])
def test_texts_are_hashed_in_the_file_as_they_were_in_training(
    lengths: tuple[int, ...], hidden: int
) -> None:
    net = ngrams(4, lengths, 50, hidden=hidden)(np.random.default_rng(1))
    codes = codes_of(TEXTS, 24)
    spec = TensorSpec("codes", "INT32", (-1, 24))

    exact = logits(to_onnx(net, spec, 4), "codes", codes)
    small = logits(to_onnx(net, spec, 4, is_small=True), "codes", codes)

    assert np.allclose(exact, net.logits(codes), atol=1e-5)
    assert np.allclose(small, exact, atol=0.01)
    assert not np.array_equal(small, exact)


def test_tables_stored_as_int8_take_a_quarter_of_the_room() -> None:
    net = ngrams(4, (1, 2, 3), 2000, hidden=8)(np.random.default_rng(1))
    spec = TensorSpec("codes", "INT32", (-1, 24))

    small, exact = to_onnx(net, spec, 4, is_small=True), to_onnx(net, spec, 4)

    assert len(small) < len(exact) / 3
    assert small == to_onnx(net, spec, 4, is_small=True)


def test_a_layer_of_somebody_elses_cannot_be_written() -> None:
    class Odd(Dense):
        pass

    class Other:
        parameters: tuple[()] = ()

    net = SmallNet([Odd(2, 2, np.random.default_rng(0))])
    net.layers.append(Other())  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="Other cannot be written"):
        to_onnx(net, TensorSpec("x", "FP32", (-1, 2)), 2)
