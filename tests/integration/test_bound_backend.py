"""A file behind the tensors of its manifest: what fits is run, what does not is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.foreign import CLASSES, SIDE, onnx_classifier, pictures, weights_of
from runtime.adapters.artifacts import ModelFolder, describe_file, open_model, write_model
from runtime.adapters.engines import load_members
from runtime.binding import InputBinding, Normalise, OutputBinding, Reshape
from runtime.core.confidence import softmax
from runtime.errors import ArtifactError, BackendError
from runtime.manifest import Member, ModelManifest
from runtime.messages import TensorSpec, Tier

INPUT = InputBinding(
    "Placeholder:0",
    "FP32",
    (-1, 1, SIDE, SIDE),
    (Reshape((1, SIDE, SIDE)), Normalise((0.0,), (255.0,))),
)
OUTPUT = OutputBinding("dense_2/Softmax:0", "FP32", (-1, 3), scores="probabilities")


def _folder(tmp_path: Path, contents: bytes = b"", **changes: Any) -> ModelFolder:
    contents = contents or onnx_classifier()
    bound: dict[str, Any] = {"inputs": {"picture": INPUT}, "outputs": {"logits": OUTPUT}} | changes
    manifest = ModelManifest(
        name="spot",
        version="1",
        tier=Tier.EDGE,
        files={"m.onnx": describe_file(contents)},
        members=(Member("model", "m.onnx", **bound),),
        inputs=(TensorSpec("picture", "UINT8", (-1, SIDE, SIDE)),),
        outputs=(TensorSpec("logits", "FP32", (-1, 3)),),
        labels=CLASSES,
        accept_at=0.5,
    )
    write_model(tmp_path / "model", manifest, {"m.onnx": contents})
    return open_model(tmp_path / "model")


@pytest.mark.parametrize("batch", [1, 2, 7, 16, 17])
@pytest.mark.parametrize("takes", ["N", 1, 8])
def test_any_batch_is_run_whatever_the_file_takes(
    tmp_path: Path, batch: int, takes: int | str
) -> None:
    size = -1 if isinstance(takes, str) else takes
    bind = msgspec.structs.replace(INPUT, shape=(size, 1, SIDE, SIDE))
    contents = onnx_classifier(shape=(takes, 1, SIDE, SIDE))
    out = msgspec.structs.replace(OUTPUT, shape=(size, 3))
    model = _folder(tmp_path, contents, inputs={"picture": bind}, outputs={"logits": out})
    (backend,) = load_members(model)
    x, _ = pictures(batch)

    found = backend.run({"picture": x})["logits"]

    matrix, bias = weights_of()
    expected = softmax(x.reshape(batch, -1) / np.float32(255) @ matrix + bias)
    np.testing.assert_allclose(softmax(found), expected, atol=1e-5)


def test_what_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    (backend,) = load_members(_folder(tmp_path))

    wrongs: list[dict[str, Any]] = [
        {"x": np.zeros((1, SIDE, SIDE), np.uint8)},
        {"picture": np.zeros((1, SIDE, SIDE), np.float32)},
        {"picture": np.zeros((1, 9, 9), np.uint8)},
        {"picture": np.zeros((0, SIDE, SIDE), np.uint8)},
    ]
    for wrong in wrongs:
        with pytest.raises(BackendError):
            backend.run(wrong)


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    (backend,) = load_members(_folder(tmp_path))
    backend.close()
    backend.close()

    with pytest.raises(BackendError, match="closed"):
        backend.run({"picture": np.zeros((1, SIDE, SIDE), np.uint8)})


@pytest.mark.parametrize(
    ("bind", "because"),
    [
        (InputBinding("Placeholder:0", "FP32", (-1, 1, SIDE, SIDE)), "lead to"),
        (msgspec.structs.replace(INPUT, steps=(Reshape((5,)),)), "reshaped"),
        (msgspec.structs.replace(INPUT, name="x"), "promises the input"),
        (msgspec.structs.replace(INPUT, datatype="INT32"), "promises the input"),
        (msgspec.structs.replace(INPUT, shape=(-1, 1, 9, 9)), "promises the input"),
    ],
)
def test_a_manifest_that_lies_about_the_way_in(
    tmp_path: Path, bind: InputBinding, because: str
) -> None:
    with pytest.raises(ArtifactError, match=because):
        load_members(_folder(tmp_path, inputs={"picture": bind}))


@pytest.mark.parametrize(
    ("bind", "because"),
    [
        (msgspec.structs.replace(OUTPUT, name="x"), "promises the output"),
        (msgspec.structs.replace(OUTPUT, scores="binary_logit"), "announced"),
    ],
)
def test_a_manifest_that_lies_about_the_scores(
    tmp_path: Path, bind: OutputBinding, because: str
) -> None:
    with pytest.raises(ArtifactError, match=because):
        load_members(_folder(tmp_path, outputs={"logits": bind}))


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {}},
        {"outputs": {}},
        {"inputs": {"other": INPUT}},
        {"outputs": {"other": OUTPUT}},
    ],
)
def test_bindings_are_of_all_tensors_or_of_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bind"):
        _folder(tmp_path, **changes)


def test_a_server_has_no_bindings() -> None:
    with pytest.raises(ValueError, match="of a file"):
        Member("m", url="http://a", model="b", inputs={"x": INPUT}, outputs={"y": OUTPUT})
