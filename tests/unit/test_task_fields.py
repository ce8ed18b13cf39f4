"""Manifests of detectors, anomaly scorers and embedders: what contradicts itself is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtime.binding import InputBinding, OutputBinding
from runtime.errors import ArtifactError
from runtime.manifest import (
    Member,
    ModelFile,
    ModelManifest,
    decode_manifest,
    encode_manifest,
    model_digest,
)
from runtime.messages import TensorSpec, Tier
from runtime.task_fields import AnomalyFields, DetectionFields, EmbeddingFields

BOXES = TensorSpec("boxes", "FP32", (-1, 10, 4))
OF_EACH = TensorSpec("scores", "FP32", (-1, 10, 2))
BEST = TensorSpec("scores", "FP32", (-1, 10))
CLASSES = TensorSpec("classes", "FP32", (-1, 10))
COUNT = TensorSpec("count", "FP32", (-1,))
VECTOR = TensorSpec("y", "FP32", (-1, 8))
ONE = TensorSpec("y", "FP32", (-1, 1))
DETECTION: dict[str, Any] = {
    "task": "detection",
    "labels": ("cat", "dog"),
    "outputs": (BOXES, OF_EACH),
}
ANOMALY: dict[str, Any] = {
    "task": "anomaly",
    "labels": (),
    "outputs": (ONE,),
    "anomaly": AnomalyFields(1.0, 0.5),
}
EMBEDDING: dict[str, Any] = {
    "task": "embedding",
    "labels": ("cat", "dog"),
    "outputs": (VECTOR,),
    "embedding": EmbeddingFields("prototypes.npy"),
}


def _manifest(**fields: Any) -> ModelManifest:
    return ModelManifest(
        **{
            "name": "m",
            "version": "1",
            "tier": Tier.EDGE,
            "files": {
                "m.onnx": ModelFile("0" * 64, 1),
                "prototypes.npy": ModelFile("1" * 64, 1),
            },
            "members": (Member("m", "m.onnx"),),
            "inputs": (TensorSpec("x", "FP32", (-1, 2)),),
            "accept_at": 0.5,
            **fields,
        }
    )


@pytest.mark.parametrize(
    "fields",
    [
        DETECTION,
        DETECTION | {"detection": DetectionFields(0.3, 0.6, 20, "centres", (640, 480))},
        DETECTION | {"labels": ("cat",), "outputs": (BOXES, BEST)},
        DETECTION | {"labels": ("cat",), "outputs": (BOXES, TensorSpec("s", "FP32", (-1, 10, 1)))},
        DETECTION | {"outputs": (BOXES, BEST, CLASSES)},
        DETECTION | {"outputs": (BOXES, BEST, CLASSES, COUNT)},
        ANOMALY,
        ANOMALY | {"outputs": (TensorSpec("y", "FP32", (-1,)),)},
        EMBEDDING,
    ],
)
def test_what_fits_is_read_as_it_was_written(fields: dict[str, Any]) -> None:
    manifest = _manifest(**fields)

    assert decode_manifest(encode_manifest(manifest), "it") == manifest


def _bound(**changes: Any) -> Member:
    """A member whose file gives boxes and scores in one tensor."""
    shape = (-1, 6, 10)
    boxes = OutputBinding("all", "FP32", shape, is_transposed=True, columns=(0, 4))
    scores = msgspec.structs.replace(boxes, columns=(4, 6), **changes)
    return Member(
        "m",
        "m.onnx",
        inputs={"x": InputBinding("x", "FP32", (-1, 2))},
        outputs={"boxes": boxes, "scores": scores},
    )


def test_boxes_and_scores_may_be_parts_of_one_tensor() -> None:
    manifest = _manifest(**DETECTION, members=(_bound(objectness=5),))

    assert decode_manifest(encode_manifest(manifest), "it") == manifest


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        (DETECTION | {"labels": ()}, "at least 1"),
        (DETECTION | {"outputs": (BOXES,)}, "boxes, scores and perhaps"),
        (DETECTION | {"outputs": (BOXES, BEST, CLASSES, COUNT, ONE)}, "boxes, scores and perhaps"),
        (DETECTION | {"outputs": (CLASSES, OF_EACH)}, "no \\[-1, n, 4\\] boxes"),
        (
            DETECTION | {"outputs": (TensorSpec("boxes", "FP32", (-1, 10, 5)), OF_EACH)},
            "no \\[-1, n, 4\\] boxes",
        ),
        (DETECTION | {"outputs": (BOXES, BEST)}, "a third output"),
        (DETECTION | {"labels": ("cat", "dog", "owl")}, "3 labels"),
        (DETECTION | {"outputs": (BOXES, OF_EACH, CLASSES)}, "2 labels"),
        (
            DETECTION | {"outputs": (BOXES, BEST, TensorSpec("c", "FP32", (-1, 9)))},
            "one class for each box",
        ),
        (
            DETECTION | {"outputs": (BOXES, BEST, CLASSES, TensorSpec("n", "FP32", (-1, 2)))},
            "one count for each example",
        ),
        (DETECTION | {"outputs": (TensorSpec("b", "UINT8", (-1, 10, 4)), OF_EACH)}, "floats"),
        (DETECTION | {"temperature": 2.0}, "temperature"),
        (DETECTION | {"label_thresholds": (0.5, 0.5)}, "label_thresholds"),
        (DETECTION | {"tolerance": 1.0}, "tolerance"),
        (DETECTION | {"detection": DetectionFields(box_size=(640, 0))}, "box_size"),
        (DETECTION | {"detection": DetectionFields(box_size=(float("inf"), 1))}, "box_size"),
        (DETECTION | {"anomaly": AnomalyFields(1, 1)}, "`anomaly` belongs"),
        (DETECTION | {"embedding": EmbeddingFields("prototypes.npy")}, "`embedding` belongs"),
        (ANOMALY | {"detection": DetectionFields()}, "`detection` belongs"),
        (ANOMALY | {"labels": ("odd",)}, "no `labels`"),
        (ANOMALY | {"anomaly": None}, "`anomaly` belongs"),
        (ANOMALY | {"anomaly": AnomalyFields(float("nan"), 1)}, "finite `threshold`"),
        (ANOMALY | {"anomaly": AnomalyFields(1, 0)}, "`scale` above 0"),
        (ANOMALY | {"anomaly": AnomalyFields(1, float("inf"))}, "`scale` above 0"),
        (ANOMALY | {"outputs": (VECTOR,)}, "one score an example"),
        (EMBEDDING | {"labels": ("cat",)}, "at least 2"),
        (EMBEDDING | {"embedding": None}, "`embedding` belongs"),
        (EMBEDDING | {"embedding": EmbeddingFields("other.npy")}, "not listed"),
        (EMBEDDING | {"outputs": (BOXES,)}, "no vector an example"),
        (EMBEDDING | {"outputs": (TensorSpec("y", "FP32", (-1, -1)),)}, "no vector an example"),
        (
            EMBEDDING | {"members": (Member("a", "m.onnx"), Member("b", "m.onnx"))},
            "`shared_space`",
        ),
        (DETECTION | {"members": (_bound(shape=(-1, 6, 11)),)}, "two different things"),
        (
            {
                "labels": ("cat", "dog"),
                "outputs": (
                    TensorSpec("boxes", "FP32", (-1, 2)),
                    TensorSpec("scores", "FP32", (-1, 2)),
                ),
                "members": (_bound(),),
            },
            "are for detection",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], because: str) -> None:
    with pytest.raises(ValueError, match=because):
        _manifest(**fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detection", {"accept": 0}),
        ("detection", {"accept": 1.5}),
        ("detection", {"max_overlap": 1}),
        ("detection", {"max_boxes": 0}),
        ("detection", {"max_boxes": 10_000}),
        ("detection", {"box_format": "polar"}),
        ("detection", {"box_size": [1]}),
        ("embedding", {"prototypes": "../secret.npy"}),
        ("embedding", {"prototypes": "prototypes.pkl"}),
        ("anomaly", {"threshold": 1}),
    ],
)
def test_numbers_and_names_out_of_bounds_are_refused(name: str, value: object) -> None:
    fields = {"detection": DETECTION, "embedding": EMBEDDING, "anomaly": ANOMALY}[name]
    said = msgspec.json.decode(encode_manifest(_manifest(**fields))) | {name: value}

    with pytest.raises(ArtifactError, match=name):
        decode_manifest(msgspec.json.encode(said), "it")


def test_columns_that_hold_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="hold nothing"):
        OutputBinding("y", "FP32", (-1, 6), columns=(4, 4))


def test_members_of_one_space_may_answer_together() -> None:
    members = (Member("a", "m.onnx"), Member("b", "m.onnx"))
    shared = EmbeddingFields("prototypes.npy", shared_space=True)

    assert _manifest(**EMBEDDING | {"members": members, "embedding": shared}).members == members


def test_what_is_said_of_the_task_is_part_of_what_a_model_answers() -> None:
    others = [
        DETECTION | {"detection": DetectionFields(accept=0.4)},
        DETECTION | {"detection": DetectionFields(box_format="centres")},
        ANOMALY | {"anomaly": AnomalyFields(2.0, 0.5)},
        EMBEDDING | {"embedding": EmbeddingFields("prototypes.npy", shared_space=True)},
    ]

    digests = [model_digest(_manifest(**one)) for one in (DETECTION, ANOMALY, EMBEDDING, *others)]

    assert len(set(digests)) == len(digests)


def test_digests_of_tasks_before_these_are_as_they_were() -> None:
    """Policies are bound to them."""
    logits = (TensorSpec("y", "FP32", (-1, 2)),)
    plain = _manifest(labels=("a", "b"), outputs=logits)
    several = _manifest(labels=("a", "b"), outputs=logits, task="multilabel")

    assert model_digest(plain).startswith("075129489642")
    assert model_digest(several).startswith("8d3db10377b5")
