"""Smaller models, and models in two halves, with real ONNX Runtime and the bundled models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from fakes.models import linear_model, manifest_of
from model_zoo.catalog import bundled_model
from model_zoo.policies.collect import Examples, accuracy_of, collect, read_examples
from model_zoo.shrink.pruning import pruned, with_zeros
from model_zoo.shrink.quantizing import Wish, quantized, sensitivity
from model_zoo.shrink.splitting import choose_cut, cuts_of, fit_exit, split
from model_zoo.shrink.subject import logits_of, open_subject
from runtime.adapters.artifacts import open_model, write_model
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.binding import InputBinding, OutputBinding, Reshape
from runtime.errors import PolicyError, StartError
from runtime.manifest import model_digest
from runtime.messages import TensorSpec, Tier
from tierwise.cli import main

pytestmark = pytest.mark.timeout(120)
NUM = 400


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object], str]:
    code = main(["models", *words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    """One float member of the cloud's ensemble, as a model of its own."""
    whole = open_model(bundled_model("cloud"))
    contents = whole.read_verified("residual.onnx")
    folder = tmp_path / "residual"
    manifest = manifest_of(
        {"residual.onnx": contents},
        name="fashion",
        tier=Tier.CLOUD,
        inputs=whole.manifest.inputs,
        outputs=whole.manifest.outputs,
        labels=whole.manifest.labels,
    )
    write_model(folder, manifest, {"residual.onnx": contents})
    return folder


class TestQuantize:
    def test_a_model_becomes_smaller_in_numbers_and_loses_little(
        self, capsys: pytest.CaptureFixture[str], residual: Path, tmp_path: Path
    ) -> None:
        code, said, _ = ran(
            capsys,
            *("quantize", str(residual), "--data", "bundled:test", "--part", f"0:{NUM}"),
            *("--output", str(tmp_path / "int8"), "--version", "9", "--max-loss", "0.02"),
        )

        small = open_model(tmp_path / "int8")
        nodes = onnx.load(tmp_path / "int8" / "residual.onnx").graph.node
        assert code == 0
        assert sum(node.op_type == "QuantizeLinear" for node in nodes) > 10
        assert small.manifest.version == "9"
        assert small.manifest.measured is not None
        assert small.manifest.provenance is not None
        assert "int8, weights in 7 of 8 bits" in small.manifest.provenance.numeric_format
        assert said["after"]["agreement"] > 0.97  # type: ignore[index]
        fresh = read_examples("bundled:test").part(NUM, 2 * NUM)
        assert accuracy_of(tmp_path / "int8", fresh) > accuracy_of(residual, fresh) - 0.02

    def test_layers_that_suffer_most_stay_as_they_are_until_it_is_good_enough(
        self, residual: Path
    ) -> None:
        subject = open_subject(residual, read_examples("bundled:test").part(0, 120))
        (contents,) = subject.contents().values()
        # Nothing is good enough for this.
        wish = Wish(methods=("minmax",), max_loss=-1.0)

        found = quantized(contents, subject.choice, "logits", wish, lambda *_: None)

        tried = {one.how for one in found.tried}
        assert tried == {"minmax"} | {f"minmax, {n} of 20 layers float32" for n in (1, 2, 4, 8)}

    def test_the_layer_that_was_hurt_is_found(self) -> None:
        model, examples = two_layers(hurt=True)
        wish = Wish(methods=("minmax",))
        small = quantized(model, examples, "logits", wish, lambda *_: None).contents
        ranked = sensitivity(onnx.load_from_string(model), small, examples)

        assert len(ranked) == 2
        assert ranked[0][1] < ranked[1][1]

    def test_what_cannot_be_quantized_is_told(self) -> None:
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["logits"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        )
        contents = serialized(graph)
        examples = Examples({"x": np.ones((50, 3), np.float32)}, np.zeros(50, np.int64), "x")

        with pytest.raises(StartError, match="no convolution and no matrix product"):
            quantized(contents, examples, "logits", Wish(), lambda *_: None)

    def test_matrices_alone_are_tried_in_the_dynamic_way_too(self) -> None:
        model, examples = two_layers()

        found = quantized(model, examples, "logits", Wish(), lambda *_: None)

        assert "dynamic" in {one.how for one in found.tried}

    def test_a_file_with_other_tensors_than_its_manifest_is_quantized_as_it_is(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        model, examples = two_layers()
        manifest = manifest_of(
            {"m.onnx": model},
            inputs=(TensorSpec("image", "FP32", (-1, 4, 4)),),
            outputs=(TensorSpec("logits", "FP32", (-1, 3)),),
            labels=("a", "b", "c"),
        )
        bind = InputBinding("x", "FP32", (-1, 16), (Reshape((16,)),))
        gives = {"logits": OutputBinding("logits", "FP32", (-1, 3))}
        member = replace(manifest.members[0], inputs={"image": bind}, outputs=gives)
        write_model(tmp_path / "m", replace(manifest, members=(member,)), {"m.onnx": model})
        pictures = examples.inputs["x"].reshape(-1, 4, 4)
        np.savez(tmp_path / "data.npz", image=pictures, labels=examples.labels)

        code, said, err = ran(
            capsys,
            *("quantize", str(tmp_path / "m"), "--data", str(tmp_path / "data.npz")),
            *("--output", str(tmp_path / "int8"), "--max-loss", "0.2"),
        )

        assert code == 0, err
        assert said["after"]["agreement"] > 0.8  # type: ignore[index]
        assert open_model(tmp_path / "int8").manifest.members[0].inputs == {"image": bind}


class TestDistill:
    def test_a_student_learns_from_an_ensemble_and_is_a_model_of_the_device(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        code, said, err = ran(
            capsys,
            *("distill", str(bundled_model("cloud")), "--data", "bundled:test", "--part", "0:900"),
            *("--output", str(tmp_path / "student"), "--epochs", "8", "--version", "7"),
        )

        model = open_model(tmp_path / "student")
        fresh = read_examples("bundled:test").part(1000, 1400)
        assert code == 0, err
        assert (model.manifest.tier, model.manifest.version) == (Tier.EDGE, "7")
        assert model.manifest.labels == open_model(bundled_model("cloud")).manifest.labels
        assert (said["kind"], said["num_lessons"]) == ("dense", 630)
        # Ten classes.
        assert accuracy_of(tmp_path / "student", fresh) > 0.6

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (("--part", "0:50"), 3, "at least 100 are needed"),
            (("--kind", "series", "--hidden", "8,8,8,8,8,8,8,8"), 3, "too short"),
            (("--hidden", "0"), 2, "no list of 1 to 8 widths"),
            (("--epochs", "0"), 2, "no number from 1"),
        ],
    )
    def test_what_cannot_be_learned_is_told(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        words: tuple[str, ...],
        code: int,
        told: str,
    ) -> None:
        part = () if "--part" in words else ("--part", "0:200")
        found, _, err = ran(
            capsys,
            *("distill", str(bundled_model("edge")), "--data", "bundled:test", *part),
            *("--output", str(tmp_path / "student"), *words),
        )

        assert (found, told in err) == (code, True), err
        assert not (tmp_path / "student").exists()


class TestPrune:
    def test_as_many_zeros_as_accuracy_allows(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        code, said, _ = ran(
            capsys,
            *("prune", str(bundled_model("regional")), "--data", "bundled:test"),
            *("--part", f"0:{NUM}", "--output", str(tmp_path / "p"), "--max-loss", "0.05"),
            *("--sparsity", "0.3", "--sparsity", "0.9"),
        )

        (tried,) = said["tried"].values()  # type: ignore[attr-defined]
        assert code == 0
        assert [one["sparsity"] for one in tried] == [0.3, 0.9]
        assert tried[1]["accuracy"] < tried[0]["accuracy"] - 0.05
        assert "not runs faster" in said["notes"][-1]  # type: ignore[index]
        assert zeros(tmp_path / "p" / "regional.onnx") > 0.29

    def test_zeros_are_as_many_as_asked_for(self) -> None:
        model = onnx.load_from_string(two_layers()[0])
        for sparsity in (0.0, 0.25, 0.75):
            sparse = onnx.load_from_string(with_zeros(model, sparsity))
            assert abs(share_of_zeros(sparse) - sparsity) < 0.01

    def test_what_has_no_weights_is_told(self) -> None:
        with pytest.raises(StartError, match="no matrices of weights"):
            pruned(linear_model(), Examples({}, np.zeros(3, np.int64), "x"), "logits", max_loss=0)


class TestSplit:
    def test_both_halves_give_what_the_whole_gave_and_the_head_answers_alone(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        regional = bundled_model("regional")
        code, said, _ = ran(
            capsys,
            *("split", str(regional), "--data", "bundled:test", "--part", f"0:{2 * NUM}"),
            *("--output", str(tmp_path / "s"), "--tail-tier", "cloud"),
        )

        head, tail = open_model(tmp_path / "s" / "head"), open_model(tmp_path / "s" / "tail")
        pictures = dict(read_examples("bundled:test").part(NUM, NUM + 50).inputs)
        below = OnnxBackend.load(head.read_verified("head.onnx"), source="head")
        above = OnnxBackend.load(tail.read_verified("tail.onnx"), source="tail")
        whole = OnnxBackend.load(
            open_model(regional).read_verified("regional.onnx"), source="whole"
        )
        passed = below.run(pictures)
        assert code == 0
        assert [one.name for one in head.manifest.outputs] == ["logits", "embedding"]
        assert (head.manifest.tier, tail.manifest.tier) == (Tier.EDGE, Tier.CLOUD)
        assert head.manifest.forwards == "embedding"
        assert tail.manifest.accepts_from == (model_digest(head.manifest),)
        np.testing.assert_array_equal(
            above.run({"embedding": passed["embedding"]})["logits"], whole.run(pictures)["logits"]
        )
        # Ten classes: it knows something, and less than the whole.
        assert 0.5 < said["accuracy_exit"] < said["accuracy_whole"]  # type: ignore[operator]

    def test_half_precision_is_half_as_long_and_answers_nearly_the_same(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        words = (
            *("split", str(bundled_model("regional")), "--data", "bundled:test"),
            *("--part", f"0:{2 * NUM}"),
        )
        _, full, _ = ran(capsys, *words, "--output", str(tmp_path / "full"))
        code, half, _ = ran(capsys, *words, "--output", str(tmp_path / "h"), "--embedding", "FP16")

        manifests = [open_model(tmp_path / "h" / one).manifest for one in ("head", "tail")]
        assert code == 0
        assert [one.datatype for one in (manifests[0].outputs[1], manifests[1].inputs[0])] == [
            "FP16",
            "FP16",
        ]
        assert half["embedding_bytes"] * 2 == full["embedding_bytes"]  # type: ignore[operator]
        assert abs(half["accuracy_whole"] - full["accuracy_whole"]) < 0.02  # type: ignore[operator]

    def test_both_halves_make_the_data_of_a_policy(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        regional = bundled_model("regional")
        ran(
            capsys,
            *("split", str(regional), "--data", "bundled:test", "--part", f"0:{2 * NUM}"),
            *("--output", str(tmp_path / "s")),
        )
        head, tail = tmp_path / "s" / "head", tmp_path / "s" / "tail"
        examples, prices = read_examples("bundled:test").part(0, 60), {"edge": 0.0, "regional": 1.0}

        pair = collect({"edge": head, "regional": tail}, examples, prices)
        whole = collect({"edge": bundled_model("edge"), "regional": regional}, examples, prices)

        # What the upper half answers of the lower one's output is what the whole answers.
        assert pair.predicted[1].tolist() == whole.predicted[1].tolist()
        assert pair.example_id.tolist() == whole.example_id.tolist()
        for folders, because in (
            ({"regional": tail}, "inputs climb as they are"),
            ({"edge": bundled_model("edge"), "regional": tail}, "inputs climb as they are"),
            ({"edge": head, "regional": regional}, "does not fit|has no input"),
        ):
            with pytest.raises(PolicyError, match=because):
                collect(folders, examples, prices)

    def test_the_head_is_below_the_tail(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        words = (
            *("split", str(bundled_model("regional")), "--data", "bundled:test"),
            *("--part", "0:40", "--output", str(tmp_path / "s")),
        )
        code, _, err = ran(capsys, *words, "--head-tier", "regional", "--tail-tier", "regional")

        assert code == 3
        assert "below the tail" in err

    def test_places_are_listed_and_others_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ("split", str(bundled_model("regional")), "--data", "bundled:test")
        code, said, _ = ran(capsys, *words, "--list")
        assert (code, len(said) > 5) == (0, True)

        code, _, err = ran(capsys, *words, "--at", "nowhere")
        assert code == 3
        assert "--list names them" in err

    def test_a_cut_that_does_little_or_all_is_not_chosen(self) -> None:
        contents = open_model(bundled_model("regional")).read_verified("regional.onnx")

        assert 0.25 <= choose_cut(cuts_of(contents)).depth <= 0.8

    def test_one_that_cannot_be_cut_is_told(self) -> None:
        # What came in goes around the only layer.
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["inner"]),
                helper.make_node("Add", ["inner", "x"], ["logits"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
            [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
        )

        with pytest.raises(StartError, match="no place to cut"):
            cuts_of(serialized(graph))

    def test_the_exit_separates_what_can_be_separated(self) -> None:
        chance = np.random.default_rng(1)
        labels = chance.integers(0, 3, 300)
        features = np.eye(3)[labels] * 5 + chance.normal(size=(300, 3)) + 7

        weights, bias = fit_exit(features, labels, 3)

        assert ((features @ weights + bias).argmax(axis=1) == labels).mean() > 0.98

    def test_a_cut_model_with_other_inputs_is_run(self) -> None:
        model, examples = two_layers()
        cut = choose_cut(cuts_of(model))

        halves = split(model, cut, examples, 3)

        head, tail = (OnnxBackend.load(one, source="x") for one in (halves.head, halves.tail))
        found = tail.run({"embedding": head.run(dict(examples.inputs))["embedding"]})["logits"]
        wanted = logits_of(model, examples, "logits", "m")
        assert np.abs(found.astype(np.float32) - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--part", "0:15"), 3, "at least 16 are needed"),
        (("--part", "x"), 3, "--part is A:B"),
        (("--data", "nowhere.npz"), 1, "cannot be read"),
        (("--max-loss", "2"), 2, "no number from 0 to below 1"),
        (("--target", "toaster"), 2, "toaster"),
    ],
)
def test_what_cannot_be_used_is_told_and_writes_nothing(
    capsys: pytest.CaptureFixture[str],
    residual: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    data = () if "--data" in words else ("--data", "bundled:test")
    found, _, err = ran(
        capsys, "quantize", str(residual), *data, "--output", str(tmp_path / "new"), *words
    )

    assert (found, told in err) == (code, True), err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_there_is_left_alone(
    capsys: pytest.CaptureFixture[str], residual: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()

    code, _, err = ran(
        capsys,
        *("prune", str(residual), "--data", "bundled:test", "--output", str(tmp_path / "new")),
    )
    assert code == 3
    assert "is there already" in err
    shutil.rmtree(tmp_path / "new")


def test_a_tensorflow_lite_model_is_refused() -> None:
    folder = bundled_model("edge").with_name("edge-tflite")

    with pytest.raises(StartError, match="is no ONNX file"):
        open_subject(folder, read_examples("bundled:test").part(0, 50))


def two_layers(*, hurt: bool = False) -> tuple[bytes, Examples]:
    """A small network of two layers and what it says about random numbers."""
    chance = np.random.default_rng(5)
    first = chance.normal(size=(16, 24)).astype(np.float32)
    second = chance.normal(size=(24, 3)).astype(np.float32)
    if hurt:
        # One outlier sets the range of all activations of the first layer.
        first[0, 0] = 4000.0
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["inner"], name="first"),
            helper.make_node("Relu", ["inner"], ["active"], name="relu"),
            helper.make_node("MatMul", ["active", "second"], ["logits"], name="second"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    contents = serialized(graph)
    inputs = {"x": chance.normal(size=(120, 16)).astype(np.float32)}
    examples = Examples(inputs, np.zeros(120, np.int64), "made up")
    labels = logits_of(contents, examples, "logits", "m").argmax(axis=1)
    return contents, Examples(inputs, labels.astype(np.int64), "made up")


def serialized(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    contents: bytes = model.SerializeToString()
    return contents


def zeros(path: Path) -> float:
    """The share of zeros in all matrices of weights of a file."""
    return share_of_zeros(onnx.load(path))


def share_of_zeros(model: onnx.ModelProto) -> float:
    arrays = [numpy_helper.to_array(one) for one in model.graph.initializer]
    values = np.concatenate([one.ravel() for one in arrays if one.ndim > 1 and one.size >= 256])
    return float((values == 0).mean())
