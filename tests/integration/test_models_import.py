"""``tierwise models import``: classifiers of other projects, as odd as they come."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fakes.foreign import (
    CLASSES,
    SIDE,
    Array,
    onnx_classifier,
    pictures,
    save_data,
    tflite_classifier,
    weights_of,
)
from fakes.tflite_files import quantized_tflite
from model_zoo.policies.collect import accuracy_of, read_examples
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.adapters.golden import check_golden
from runtime.core.confidence import softmax
from runtime.manifest import ModelManifest, model_digest
from tierwise.cli import main

LABELS = ",".join(CLASSES)
GOOD = 0.85


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _import(contents: bytes, *words: str, file: str = "model.onnx", labels: str = LABELS) -> int:
    Path(file).write_bytes(contents)
    said = ["--labels", labels] if labels else []
    first = ["models", "import", file, "--tier", "edge", "--name", "spot", "--output", "out"]
    return main([*first, *said, *words])


def _imported() -> ModelManifest:
    return open_model(Path("out")).manifest


def _accuracy(data: Path) -> float:
    """As every later command sees it."""
    return accuracy_of(Path("out"), read_examples(str(data)))


def _transposed(weights: tuple[Array, Array]) -> tuple[Array, Array]:
    matrix, bias = weights
    return matrix.reshape(SIDE, SIDE, -1).transpose(1, 0, 2).reshape(SIDE * SIDE, -1), bias


def _coloured(weights: tuple[Array, Array], *, is_last: bool) -> tuple[Array, Array]:
    """Takes three colours, and looks at the second alone."""
    matrix, bias = weights
    places = np.zeros((3, SIDE * SIDE, matrix.shape[1]), np.float32)
    places[1] = matrix
    if is_last:
        places = places.transpose(1, 0, 2)
    return places.reshape(-1, matrix.shape[1]), bias


ODD: dict[str, tuple[bytes, Sequence[str]]] = {
    "softmax at its end": (onnx_classifier(), ()),
    "logits": (onnx_classifier(softmax=False), ()),
    "a batch of one only": (onnx_classifier(shape=(1, 1, SIDE, SIDE)), ()),
    "a batch of eight only": (onnx_classifier(shape=(8, 1, SIDE, SIDE)), ()),
    "channels last": (onnx_classifier(shape=("N", SIDE, SIDE, 1), channels_last=True), ()),
    "flattened": (onnx_classifier(shape=("N", SIDE * SIDE)), ()),
    "no channel": (onnx_classifier(shape=("N", SIDE, SIDE)), ()),
    "all axes free": (onnx_classifier(shape=("N", "C", "H", "W")), ()),
    "columns before rows": (onnx_classifier(weights=_transposed(weights_of())), ()),
    "no axis for the batch": (onnx_classifier(shape=(SIDE, SIDE), flat_axis=0), ()),
    "three colours": (
        onnx_classifier(weights=_coloured(weights_of(), is_last=False), shape=("N", 3, SIDE, SIDE)),
        (),
    ),
    "double precision": (onnx_classifier(dtype=TensorProto.DOUBLE), ()),
    "half precision": (onnx_classifier(dtype=TensorProto.FLOAT16), ()),
    "0..255": (onnx_classifier(weights=(weights_of()[0] / 255, weights_of()[1])), ()),
    "names that are hard to type": (onnx_classifier(names=("in put/\u00e4:0", "\u4e2d\u6587")), ()),
}


@pytest.mark.parametrize("kind", sorted(ODD))
def test_odd_onnx_files_answer_as_they_were_trained_to(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    contents, words = ODD[kind]
    data = save_data(Path("data.npz"))

    code = _import(contents, "--data", str(data), *words)

    assert code == 0, capsys.readouterr().err
    manifest = _imported()
    assert manifest.measured is not None
    assert manifest.measured.accuracy > GOOD
    assert manifest.inputs[0].shape == (-1, SIDE, SIDE)
    assert manifest.inputs[0].datatype == "UINT8"
    assert _accuracy(data) > GOOD


@pytest.mark.parametrize("batch", [1, -1])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_tflite_files_of_every_kind(*, batch: int, softmax: bool, centred: bool) -> None:
    data = save_data(Path("data.npz"), x="X_test", y="y_test")
    contents = tflite_classifier(batch=batch, softmax=softmax, centred=centred)

    code = _import(contents, "--data", str(data), file="model.tflite")

    assert code == 0
    assert _accuracy(data) > GOOD
    form = _imported().members[0].outputs["logits"].scores
    assert form == ("probabilities" if softmax else "logits")


DATA: dict[str, Any] = {
    "bytes": lambda x: x,
    "0..1": lambda x: x.astype(np.float32) / 255,
    "floats of 0..255": lambda x: x.astype(np.float64),
    "32-bit integers": lambda x: x.astype(np.int32),
    "channels last": lambda x: x[..., None],
    "channels first": lambda x: x[:, None],
    "flattened": lambda x: x.reshape(len(x), -1),
    "three equal colours": lambda x: np.repeat(x[..., None], 3, axis=-1),
    "three equal colours first": lambda x: np.repeat(x[:, None], 3, axis=1),
    "twice as large": lambda x: x.repeat(2, axis=1).repeat(2, axis=2),
}


@pytest.mark.parametrize("kind", sorted(DATA))
def test_data_as_people_keep_them(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = pictures()
    np.savez("data.npz", images=DATA[kind](x), target=y)

    code = _import(onnx_classifier(), "--data", "data.npz")

    assert code == 0, capsys.readouterr().err
    assert _accuracy(Path("data.npz")) > GOOD


LABELLED: dict[str, Any] = {
    "one-hot": lambda y: np.eye(3)[y],
    "a column": lambda y: y[:, None].astype(np.uint8),
    "floats": lambda y: y.astype(np.float32),
    "texts": lambda y: np.asarray(CLASSES)[y],
    "bytes": lambda y: np.asarray(CLASSES, np.bytes_)[y],
}


@pytest.mark.parametrize("kind", sorted(LABELLED))
def test_labels_as_people_write_them(kind: str) -> None:
    x, y = pictures()
    np.savez("data.npz", X=x, labels=LABELLED[kind](y))

    assert _import(onnx_classifier(), "--data", "data.npz") == 0
    assert _accuracy(Path("data.npz")) > GOOD


def test_without_names_texts_are_classes_in_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = pictures()
    np.savez("data.npz", X=x, y=np.asarray(CLASSES)[y])

    assert _import(onnx_classifier(), "--data", "data.npz", labels="") == 0
    assert _imported().labels == CLASSES
    assert "alphabetical" in capsys.readouterr().err


def test_of_a_split_the_test_part_is_taken_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = pictures()
    bad = np.zeros_like(x)
    np.savez("data.npz", x_train=bad, y_train=y, x_test=x, y_test=y, class_names=CLASSES)

    assert _import(onnx_classifier(), "--data", "data.npz", "--json", labels="") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["measured"]["accuracy"] > GOOD
    assert told["labels"] == list(CLASSES)
    assert any("`test` is taken" in note for note in told["notes"])


def test_a_model_with_several_outputs_gives_its_scores() -> None:
    def more(logits: str) -> tuple[list[Any], list[Any]]:
        nodes = [
            helper.make_node("ArgMax", [logits], ["label"], axis=1, keepdims=0),
            helper.make_node("Gemm", [logits, "w"], ["embedding"], transB=1),
        ]
        infos = [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", SIDE * SIDE]),
        ]
        return nodes, infos

    data = save_data(Path("data.npz"))

    assert _import(onnx_classifier(extra=more), "--data", str(data)) == 0
    assert _imported().members[0].outputs["logits"].name == "dense_2/Softmax:0"
    assert _accuracy(data) > GOOD


@pytest.mark.parametrize("sigmoid", [True, False])
def test_a_single_score_stands_for_two_classes(*, sigmoid: bool) -> None:
    matrix, bias = weights_of()
    weights = (matrix[:, 2:] - matrix[:, :1], bias[2:] - bias[:1])
    x, y = pictures()
    np.savez("data.npz", x=x[y != 1], y=y[y != 1] // 2)
    contents = onnx_classifier(weights=weights, softmax=False, last="Sigmoid" if sigmoid else None)

    assert _import(contents, "--data", "data.npz", labels="left,right") == 0
    assert _accuracy(Path("data.npz")) > GOOD
    form = _imported().members[0].outputs["logits"].scores
    assert form == ("binary_probability" if sigmoid else "binary_logit")


def test_an_integer_model_is_asked_in_floats() -> None:
    random = np.random.default_rng(1)
    x = random.normal(0, 4, (400, 3)).astype(np.float32)
    y = (x @ np.array([[1, -1], [2, 0], [0, 3]])).argmax(axis=1)
    np.savez("data.npz", features=x, target=y)

    assert _import(quantized_tflite(), "--data", "data.npz", file="m.tflite", labels="no,yes") == 0
    assert _accuracy(Path("data.npz")) > GOOD


def test_what_is_written_is_whole_and_says_where_it_is_from() -> None:
    data = save_data(Path("data.npz"))

    assert _import(onnx_classifier(), "--data", str(data), "--part", "0:600") == 0

    opened = open_model(Path("out"))
    provenance = opened.manifest.provenance
    assert provenance is not None
    assert provenance.source == "model.onnx"
    assert "data.npz[0:600]" in provenance.data_set
    assert "tierwise models import model.onnx" in provenance.command
    assert "onnxruntime" in provenance.libraries
    assert opened.manifest.measured is not None
    assert opened.manifest.measured.num_examples == 300
    assert opened.manifest.measured.parameters == 197
    golden = (Path("out") / "golden.npz").read_bytes()
    backends = load_members(opened)
    assert check_golden(golden, opened.manifest, backends, "golden") == 1
    assert {path.name for path in Path("out").iterdir()} == {
        "manifest.json", "model.onnx", "golden.npz",
    }  # fmt: skip


def test_what_lies_between_is_part_of_what_a_policy_is_bound_to() -> None:
    data = save_data(Path("data.npz"))
    assert _import(onnx_classifier(), "--data", str(data), "--scale", "255") == 0
    first = _imported()
    Path("out").rename("first")
    assert _import(onnx_classifier(), "--data", str(data), "--scale", "254") == 0

    assert model_digest(first) != model_digest(_imported())


def test_probabilities_come_out_as_the_file_gave_them() -> None:
    x, _ = pictures(5)
    assert _import(onnx_classifier(), "--scale", "255", "--input-type", "UINT8") == 0
    (backend,) = load_members(open_model(Path("out")))
    matrix, bias = weights_of()

    found = softmax(backend.run({"input": x[:, None]})["logits"])

    expected = softmax(x.reshape(5, -1) / np.float32(255) @ matrix + bias)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_is_told_is_not_tried() -> None:
    x, y = pictures()
    np.savez("data.npz", x=x, y=y)
    shifted = (weights_of()[0] * 0.5, weights_of()[1] + 0.5 * weights_of()[0].sum(axis=0))

    words = ("--data", "data.npz", "--scale", "255", "--normalise", "0.5,0.5")
    assert _import(onnx_classifier(weights=shifted), *words) == 0

    (bind,) = _imported().members[0].inputs.values()
    assert "127.5" in str(bind.steps)
    assert _accuracy(Path("data.npz")) > GOOD


def test_labels_as_texts_beside_probabilities_are_left_alone() -> None:
    """As scikit-learn's converters write it without ZipMap."""

    def more(logits: str) -> tuple[list[Any], list[Any]]:
        nodes = [
            helper.make_node("ArgMax", [logits], ["place"], axis=1, keepdims=0),
            helper.make_node(
                "LabelEncoder", ["place"], ["output_label"], domain="ai.onnx.ml",
                keys_int64s=[0, 1, 2], values_strings=list(CLASSES),
            ),
        ]  # fmt: skip
        return nodes, [helper.make_tensor_value_info("output_label", TensorProto.STRING, ["N"])]

    data = save_data(Path("data.npz"))

    assert _import(onnx_classifier(extra=more), "--data", str(data)) == 0
    assert _accuracy(data) > GOOD


def test_several_inputs_are_taken_by_their_names() -> None:
    random = np.random.default_rng(1)
    left, right = random.normal(size=(2, 400, 3)).astype(np.float32)
    y = (left.sum(axis=1) > right.sum(axis=1)).astype(np.int64)
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["the left:0", "right"], ["d"]),
            helper.make_node("ReduceSum", ["d"], ["score"], keepdims=1, axes=[1]),
        ],
        "g",
        [
            helper.make_tensor_value_info("the left:0", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("right", TensorProto.FLOAT, ["N", 3]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    np.savez("data.npz", the_left=left, right=right, y=y)

    code = _import(model.SerializeToString(), "--data", "data.npz", labels="right,left")

    assert code == 0
    assert [spec.name for spec in _imported().inputs] == ["the_left", "right"]
    assert _accuracy(Path("data.npz")) == 1.0


def test_the_threshold_knows_the_tier_above() -> None:
    data = save_data(Path("data.npz"), 2000)
    words = ["models", "import", "good.onnx", "--tier", "cloud", "--name", "spot"]
    Path("good.onnx").write_bytes(onnx_classifier())
    assert main([*words, "--labels", LABELS, "--data", str(data), "--output", "cloud"]) == 0
    poor = onnx_classifier(weights=weights_of("poor"))

    assert _import(poor, "--data", str(data), "--above", "cloud") == 0
    known = _imported().accept_at
    Path("out").rename("known")
    assert _import(poor, "--data", str(data)) == 0

    # A tier that errs asks for less than one that never does.
    assert known <= _imported().accept_at
    assert _import(poor, "--data", str(data), "--accept-at", "0.25", "--output", "third") == 0
    assert open_model(Path("third")).manifest.accept_at == 0.25


def test_a_person_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = io.StringIO("edge\nspot\nleft,middle,right\n")
    monkeypatch.setattr(answers, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", answers)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    Path("m.onnx").write_bytes(onnx_classifier())

    assert main(["models", "import", "m.onnx", "--scale", "255"]) == 0
    assert open_model(Path("models/spot-edge")).manifest.labels == CLASSES


def test_a_file_that_says_any_batch_and_takes_one_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = save_data(Path("data.npz"))

    assert _import(onnx_classifier(baked=True), "--data", str(data)) == 0
    assert "one by one" in capsys.readouterr().err
    assert _imported().members[0].inputs["input"].shape == (1, 1, SIDE, SIDE)
    assert _accuracy(data) > GOOD


def test_a_sigmoid_for_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    data = save_data(Path("data.npz"))

    assert _import(onnx_classifier(softmax=False, last="Sigmoid"), "--data", str(data)) == 0
    assert "divided by their sum" in capsys.readouterr().err
    assert _accuracy(data) > GOOD


@pytest.mark.parametrize("layout", ["nchw", "auto"])
def test_pictures_are_resized_to_what_is_told(layout: str) -> None:
    x, y = pictures()
    np.savez("data.npz", x=x.repeat(2, axis=1).repeat(2, axis=2), y=y)
    contents = onnx_classifier(shape=("N", 1, "H", "W"))

    words = ("--data", "data.npz", "--resize", "8x8", "--input-layout", layout)
    assert _import(contents, *words) == 0
    assert "Resize(height=8, width=8)" in str(_imported().members[0].inputs["input"].steps)
    assert _accuracy(Path("data.npz")) > GOOD


def test_without_data_what_callers_send_is_told() -> None:
    contents = onnx_classifier(
        shape=("N", 3, "H", "W"), weights=_coloured(weights_of(), is_last=False)
    )

    words = ("--input-shape", "16x16x3", "--resize", "8x8", "--input-type", "UINT8")
    normalise = ("--scale", "255", "--normalise", "0:0:0,1:1:1", "--input-layout", "nchw")
    assert _import(contents, *words, *normalise, labels="numbers") == 0
    assert _imported().inputs[0].shape == (-1, 16, 16, 3)
    assert _imported().labels == ("0", "1", "2")
    x, y = pictures()
    large = np.repeat(x.repeat(2, axis=1).repeat(2, axis=2)[..., None], 3, axis=-1)
    np.savez("data.npz", x=large, y=y)
    assert _accuracy(Path("data.npz")) > GOOD


def _linear(shape: Sequence[int | str], weights: Array) -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["float_input"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w"], ["variable"]),
        ],
        "g",
        [helper.make_tensor_value_info("float_input", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, ["N", weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def test_a_table_whose_columns_were_standardised_in_training() -> None:
    random = np.random.default_rng(5)
    weights = random.normal(size=(6, 4))
    plain = random.normal(size=(800, 6))
    y = (plain @ weights).argmax(axis=1)
    x = plain * np.array([1, 100, 0.01, 5, 1000, 2]) + np.array([0, 50, 3, -7, 1e4, 1])
    np.savez("data.npz", X_test=x, y_test=y)

    assert _import(_linear(("N", 6), weights), "--data", "data.npz", labels="") == 0
    assert _imported().inputs[0].datatype == "FP32"
    assert _accuracy(Path("data.npz")) > GOOD


def test_a_series_whose_channels_come_first_in_the_file() -> None:
    random = np.random.default_rng(6)
    weights = random.normal(size=(3 * 16, 4))
    x = random.normal(size=(600, 16, 3))
    y = (x.transpose(0, 2, 1).reshape(600, -1) @ weights).argmax(axis=1)
    np.savez("data.npz", signals=x, label=y)

    assert _import(_linear(("N", 3, 16), weights), "--data", "data.npz", labels="") == 0
    assert _imported().inputs[0].shape == (-1, 16, 3)
    assert _accuracy(Path("data.npz")) > GOOD


def test_tokens_stay_whole_numbers() -> None:
    random = np.random.default_rng(7)
    x = random.integers(0, 50, (400, 5)).astype(np.int32)
    weights = np.concatenate([np.ones((5, 1)), -np.ones((5, 1))], axis=1)
    y = (x.sum(axis=1) < 125).astype(np.int64)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["floats", "middle"], ["centred"]),
            helper.make_node("MatMul", ["centred", "w"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(np.array([25.0], np.float32), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    np.savez("data.npz", input_ids=x, label=y)

    assert _import(model.SerializeToString(), "--data", "data.npz", labels="many,few") == 0
    assert _imported().inputs[0].datatype == "INT64"
    assert _imported().inputs[0].shape == (-1, 5)
    assert _accuracy(Path("data.npz")) > GOOD
