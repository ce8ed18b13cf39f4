"""What cannot be imported is told, with what to do; nothing is written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fakes.foreign import CLASSES, SIDE, onnx_classifier, pictures, save_data, tflite_classifier
from model_zoo.importing import files
from runtime.adapters.artifacts import open_model
from tierwise.cli import main

LABELS = ",".join(CLASSES)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Imports what must not be; returns what was told, and sees that nothing was written."""

    def run(*words: str, file: str = "model.onnx", labels: str = LABELS) -> str:
        before = sorted(Path().rglob("*"))
        said = ["--labels", labels] if labels else []
        first = ["models", "import", file, "--tier", "edge", "--name", "spot"]
        code = main([*first, "--output", "out", *said, *words])
        told = capsys.readouterr().err
        assert code in {1, 2, 3}, told
        assert "unexpected" not in told
        assert sorted(Path().rglob("*")) == before
        return told

    return run


IMPOSTORS = {
    "empty": (b"", "empty"),
    "a login page": (b"<!DOCTYPE html><title>Sign in</title>", "HTML page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "a PyTorch file": (b"PK\x03\x04" + bytes(50), "PyTorch"),
    "a Keras file": (b"\x89HDF\r\n\x1a\n" + bytes(50), "Keras"),
    "a pickle": (b"\x80\x04\x95" + bytes(50), "never loaded"),
    "noise": (bytes(range(200, 256)), "neither"),
    "half a file": (onnx_classifier()[:500], "ONNX Runtime"),
    "a name that lies": (tflite_classifier(), "its name says otherwise"),
}


@pytest.mark.parametrize("kind", sorted(IMPOSTORS))
def test_what_is_no_onnx_model(kind: str, refused: Callable[..., str]) -> None:
    contents, because = IMPOSTORS[kind]
    Path("model.onnx").write_bytes(contents)

    assert because in refused()


def test_half_a_tflite_file(refused: Callable[..., str]) -> None:
    Path("model.tflite").write_bytes(tflite_classifier()[:300])

    assert "LiteRT" in refused(file="model.tflite")


def test_a_file_that_is_not_there(refused: Callable[..., str]) -> None:
    assert "No such file" in refused(file="nowhere.onnx")


def test_a_folder_in_place_of_a_file(refused: Callable[..., str]) -> None:
    Path("model.onnx").mkdir()

    assert "not a file" in refused()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    Path("model.onnx").chmod(0)

    assert "Permission denied" in refused()


def test_a_model_that_does_not_fit_into_memory(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    monkeypatch.setattr(files, "available_memory_bytes", lambda: 1000)

    assert "of memory are free" in refused()


def test_a_place_that_cannot_be_written(refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    Path("file").write_text("")

    assert "cannot be written" in refused("--output", "file/out")


def test_a_place_that_is_taken(refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    Path("out").mkdir()

    assert "is there already" in refused()


def _graph(
    inputs: list[Any], outputs: list[Any], nodes: list[Any], opset: int = 18, **domains: int
) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name.replace("_", "."), one) for name, one in domains.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def _of(kind: int, shape: Any, name: str) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


FLOAT = TensorProto.FLOAT
STRANGE = {
    "texts": (
        _graph(
            [_of(TensorProto.STRING, ["N", 1], "words")],
            [_of(TensorProto.STRING, ["N", 1], "y")],
            [helper.make_node("Identity", ["words"], ["y"])],
        ),
        "only numbers",
    ),
    "nothing in it": (
        _graph(
            [_of(FLOAT, ["N", 0], "x")],
            [_of(FLOAT, ["N", 0], "y")],
            [helper.make_node("Identity", ["x"], ["y"])],
        ),
        "holds nothing",
    ),
    "an operator of nobody": (
        _graph(
            [_of(FLOAT, ["N", 3], "x")],
            [_of(FLOAT, ["N", 3], "y")],
            [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.acme")],
            com_acme=1,
        ),
        "ONNX Runtime",
    ),
    "an opset of the future": (
        _graph(
            [_of(FLOAT, ["N", 3], "x")],
            [_of(FLOAT, ["N", 3], "y")],
            [helper.make_node("Identity", ["x"], ["y"])],
            opset=999,
        ),
        "opset",
    ),
    "labels alone": (
        _graph(
            [_of(FLOAT, ["N", 3], "x")],
            [_of(TensorProto.INT64, ["N"], "label")],
            [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        ),
        "gives no scores",
    ),
    "maps of scikit-learn": (
        _graph(
            [_of(FLOAT, ["N", 3], "x")],
            [
                helper.make_value_info(
                    "probabilities",
                    helper.make_sequence_type_proto(
                        helper.make_map_type_proto(
                            TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, [])
                        )
                    ),
                )
            ],
            [
                helper.make_node(
                    "ZipMap",
                    ["x"],
                    ["probabilities"],
                    domain="ai.onnx.ml",
                    classlabels_int64s=[0, 1, 2],
                )
            ],
            ai_onnx_ml=1,
        ),
        "zipmap",
    ),
}


@pytest.mark.parametrize("kind", sorted(STRANGE))
def test_models_that_nobody_can_ask(kind: str, refused: Callable[..., str]) -> None:
    contents, because = STRANGE[kind]
    Path("model.onnx").write_bytes(contents)

    assert because in refused()


def _with_weights_elsewhere() -> None:
    model = onnx.load_from_string(onnx_classifier())
    onnx.save(
        model, "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )


def test_weights_in_another_file_are_merged(capsys: pytest.CaptureFixture[str]) -> None:
    _with_weights_elsewhere()
    data = save_data(Path("data.npz"))

    words = ["--tier", "edge", "--name", "spot", "--labels", LABELS, "--data", str(data)]
    assert main(["models", "import", "model.onnx", "--output", "out", *words]) == 0

    assert "were in other files" in capsys.readouterr().err
    manifest = open_model(Path("out")).manifest
    assert list(manifest.files) == ["model.onnx"]
    assert manifest.measured is not None
    assert manifest.measured.accuracy > 0.85


def test_weights_in_another_file_that_is_not_there(refused: Callable[..., str]) -> None:
    _with_weights_elsewhere()
    Path("weights.bin").unlink()

    assert "copy them beside it" in refused()


def test_weights_outside_the_folder_of_the_model(refused: Callable[..., str]) -> None:
    model = onnx.load_from_string(onnx_classifier())
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/hostname")
    model.graph.initializer[0].ClearField("raw_data")
    Path("model.onnx").write_bytes(model.SerializeToString())

    assert "cannot be merged" in refused()


def test_weights_elsewhere_without_onnx(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_weights_elsewhere()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert "tierwise[import]" in refused()


def _refused_data(refused: Callable[..., str], *words: str, **arrays: Any) -> str:
    Path("model.onnx").write_bytes(onnx_classifier())
    np.savez("data.npz", **arrays)
    return refused("--data", "data.npz", *words)


def test_data_that_do_not_belong_to_the_model(refused: Callable[..., str]) -> None:
    x, y = pictures(200)
    wrong = np.zeros((200, 7))

    assert "do not become" in _refused_data(refused, x=wrong, y=y)
    assert "labels go from 1 to 3" in _refused_data(refused, x=x, y=y + 1)
    assert "count from 1" in _refused_data(refused, x=x, y=y + 1)
    assert "no classes of the model" in _refused_data(refused, x=x, y=np.full(200, "up"))
    assert "200 labels, but inputs" in _refused_data(refused, x=x[:9], y=y)
    assert "needs an array `labels`" in _refused_data(refused, x=x)
    assert "needs an array `labels`" in _refused_data(refused, y=y)
    assert "several labels hold" in _refused_data(refused, x=x, y=np.ones((200, 3), np.int64))
    assert "must be class indices" in _refused_data(refused, x=x, y=y + 0.5)
    assert "must hold numbers" in _refused_data(refused, x=np.full((200, 1), "a"), y=y)


def test_data_with_numbers_that_are_none(refused: Callable[..., str]) -> None:
    x, y = pictures(200)
    floats = x.astype(np.float32)
    floats[7, 0, 0] = np.nan

    told = _refused_data(refused, x=floats, y=y)

    assert "1 of 200 examples hold NaN" in told
    assert "number 7" in told


def test_too_few_examples_and_one_class(refused: Callable[..., str]) -> None:
    x, y = pictures(200)

    assert "at least 20" in _refused_data(refused, x=x[:19], y=y[:19])
    assert "of one class" in _refused_data(refused, x=x[y == 1], y=y[y == 1])
    assert "no examples are there" in _refused_data(refused, "--part", "500:", x=x, y=y)
    assert "no range" in _refused_data(refused, "--part", "a:b", x=x, y=y)


def test_objects_are_never_loaded(refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    np.savez("data.npz", x=np.array([{}], object), y=np.array([1]))

    assert "objects are not read" in refused("--data", "data.npz")


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04 half", b"<html>"])
def test_data_that_are_none(refused: Callable[..., str], contents: bytes) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    Path("data.npz").write_bytes(contents)

    assert "cannot be read" in refused("--data", "data.npz")


def test_one_array_is_no_data(refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    Path("data.npz").write_bytes(buffer.getvalue())

    assert "one array" in refused("--data", "data.npz")


def test_labels_that_do_not_fit(refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    Path("labels.txt").write_text("left\nmiddle\n")

    assert "background" in refused("--scale", "255", labels="left,right")
    assert "2 labels" in refused("--scale", "255", labels="labels.txt")
    assert "twice" in refused("--scale", "255", labels="left,left,right")
    assert "two labels or more" in refused(labels="nowhere.txt")
    assert "--labels" in refused("--scale", "255", labels="")
    Path("labels.txt").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refused(labels="labels.txt")


def test_what_is_open_has_to_be_said(refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier(shape=("N", 1, "H", "W")))

    assert "--input-shape" in refused()
    Path("model.onnx").write_bytes(onnx_classifier(shape=("N", SIDE * SIDE)))
    assert "takes no pictures" in refused("--resize", "8x8")
    Path("model.onnx").write_bytes(onnx_classifier())
    assert "does not fit" in refused("--resize", "9x9")


def test_what_nobody_is_there_to_be_asked_for(
    refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())

    assert main(["models", "import", "model.onnx", "--name", "spot"]) == 2
    assert "--tier is missing" in capsys.readouterr().err
    assert main(["models", "import", "model.onnx", "--tier", "edge"]) == 2
    assert "--name is missing" in capsys.readouterr().err
    assert "no output 'nothing'" in refused("--scores-output", "nothing")
    assert "--version" in refused("--version", "a b")


@pytest.mark.parametrize(
    "words",
    [
        ("--normalise", "1"),
        ("--normalise", "1,0"),
        ("--normalise", "1:2,1"),
        ("--scale", "0"),
        ("--scale", "inf"),
        ("--resize", "8"),
        ("--resize", "axb"),
        ("--input-shape", "0,8"),
        ("--accept-at", "1.5"),
        ("--tier", "moon"),
    ],
)
def test_options_that_say_nothing(words: tuple[str, str], refused: Callable[..., str]) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())

    assert "try `tierwise" in refused(*words)


def test_a_warning_where_the_model_is_no_better_than_chance(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("model.onnx").write_bytes(onnx_classifier())
    x, y = pictures(400)
    np.savez("data.npz", x=x, y=(y + 1) % 3)

    words = ["--tier", "edge", "--name", "spot", "--labels", LABELS, "--data", "data.npz"]
    assert main(["models", "import", "model.onnx", "--output", "out", *words]) == 0

    assert "WARNING" in capsys.readouterr().err


def test_a_manifest_that_lies_about_its_file() -> None:
    data = save_data(Path("data.npz"))
    Path("model.onnx").write_bytes(onnx_classifier(shape=("N", SIDE, SIDE)))
    words = ["--tier", "edge", "--name", "spot", "--labels", LABELS, "--data", str(data)]
    assert main(["models", "import", "model.onnx", "--output", "out", *words]) == 0
    path = Path("out") / "manifest.json"

    for old, new in (('"std": [', '"std": [0.0,'), ('"step": "normalise"', '"step": "guess"')):
        text = path.read_text()
        path.write_text(text.replace(old, new))
        assert main(["policy", "collect", "--data", str(data), "--model", "edge=out",
                     "--price", "edge=0", "--output", "p.npz"]) != 0  # fmt: skip
        path.write_text(text)
    for wrong in ("[-1, 9, 8]", "[-1, 8]"):
        _, _, tail = path.read_text().partition('"steps"')
        assert tail
        text = path.read_text()
        path.write_text(text.replace(_bound_shape(text), wrong))
        assert main(["policy", "collect", "--data", str(data), "--model", "edge=out",
                     "--price", "edge=0", "--output", "p.npz"]) == 3  # fmt: skip
        path.write_text(text)


def _bound_shape(text: str) -> str:
    """The shape in the binding of the input."""
    start = text.index("[", text.index('"shape"', text.index('"FP32"', text.index('"members"'))))
    return text[start : text.index("]", start) + 1]


def test_numbers_of_scores_that_are_none_are_refused(refused: Callable[..., str]) -> None:
    x, y = pictures(200)
    np.savez("data.npz", x=x, y=y)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["raw"]),
            helper.make_node("Log", ["raw"], ["y"]),
        ],
        "g",
        [_of(FLOAT, ["N", SIDE, SIDE], "x")],
        [_of(FLOAT, ["N", 3], "y")],
        [numpy_helper.from_array(-np.ones((SIDE * SIDE, 3), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    Path("model.onnx").write_bytes(model.SerializeToString())

    assert "finite" in refused("--data", "data.npz")
