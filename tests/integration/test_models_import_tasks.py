"""``tierwise models import --task``: detectors, scorers, embedders, and what has to be said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.task_models import SIDE, dense, finder, linear
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.adapters.prototypes import encode_prototypes, read_prototypes
from runtime.manifest import ModelManifest
from runtime.task_rules import rule_of
from tierwise.cli import main

Array = Any


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _import(contents: bytes, task: str, *words: str, tier: str = "edge") -> int:
    Path("model.onnx").write_bytes(contents)
    first = ["models", "import", "model.onnx", "--tier", tier, "--name", "found"]
    return main([*first, "--output", "out", "--task", task, *words])


def _imported() -> ModelManifest:
    return open_model(Path("out")).manifest


def _told(x: Array) -> dict[str, Any]:
    """What the imported model says of an example."""
    model = open_model(Path("out"))
    (backend,) = load_members(model)
    rule = rule_of(model.manifest, read_prototypes(model))
    found: dict[str, Any] = json.loads(
        rule.judge(backend.run({"input": np.asarray(x, np.float32)})).told
    )
    backend.close()
    return found


def _spots(num: int = 80, seed: int = 1) -> dict[str, Array]:
    """Pictures with up to three bright pixels, most of them bright enough, and where they are."""
    random = np.random.default_rng(seed)
    pictures = random.uniform(0, 0.05, (num, SIDE, SIDE)).astype(np.float32)
    boxes = np.full((num, 3, 4), np.nan)
    labels = np.full((num, 3), -1)
    for row in range(num):
        for place, at in enumerate(random.permutation(SIDE * SIDE)[: random.integers(0, 4)]):
            y, x = divmod(int(at), SIDE)
            pictures[row, y, x] = random.choice([0.95, 0.9, 0.3], p=[0.6, 0.3, 0.1])
            boxes[row, place] = (x, y, x + 1, y + 1)
            labels[row, place] = 0
    return {"images": pictures, "boxes": boxes, "box_labels": labels}


def test_a_yolo_is_recognised_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", **_spots())

    code = _import(dense(num_labels=2), "detection", "--labels", "spot,other", "--data", "data.npz")

    told = capsys.readouterr()
    assert code == 0, told.err
    assert "mAP@0.5" in told.out
    assert "columns of boxes as centres" in told.err
    assert "pixels of the 8 x 8" in told.err
    manifest = _imported()
    fields = manifest.detection
    assert fields is not None
    assert (fields.box_format, fields.box_size) == ("centres", (8.0, 8.0))
    assert manifest.measured is not None
    assert manifest.measured.figures["mAP@0.5"] > 0.95
    assert 0.5 < manifest.measured.accuracy < 1
    picture = np.zeros((1, SIDE, SIDE))
    picture[0, 4, 2] = 0.9
    assert _told(picture) == {
        "boxes": [{"label": "spot", "score": pytest.approx(0.9), "box": [0.25, 0.5, 0.375, 0.625]}]
    }


def test_a_detector_of_as_many_boxes_as_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", **_spots(), class_names=np.array(["spot"]))

    code = _import(
        finder(1.0, 0.2), "detection", "--data", "data.npz", "--box-size", "1x1",
        "--box-accept", "0.4", "--json", tier="cloud",
    )  # fmt: skip

    told = capsys.readouterr()
    assert code == 0, told.err
    said = json.loads(told.out)
    assert (said["task"], said["labels"], said["accept_at"]) == ("detection", ["spot"], 0.0)
    assert said["measured"]["figures"]["mAP@0.5"] > 0.95
    assert _told(np.zeros((1, SIDE, SIDE))) == {"boxes": []}


def test_a_detector_without_data_is_described_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--labels", "spot", "--box-outputs", "boxes,scores", "--accept-at", "0.7"]

    assert _import(finder(1.0, 0.2), "detection", *words) == 0

    manifest = _imported()
    assert (manifest.accept_at, manifest.measured) == (0.7, None)
    assert "the file takes 8x8), say --box-size" in capsys.readouterr().err


def _clusters(num: int = 90) -> dict[str, Array]:
    random = np.random.default_rng(2)
    labels = np.arange(num) % 3
    return {
        "x": (np.eye(3)[labels] * 4 + random.normal(0, 0.3, (num, 3))).astype(np.float32),
        "y": np.array(["cat", "dog", "owl"])[labels],
    }


def test_prototypes_are_made_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", **_clusters())

    code = _import(linear(np.eye(3, 4).tolist()), "embedding", "--data", "data.npz")

    assert code == 0, capsys.readouterr().err
    manifest = _imported()
    assert manifest.labels == ("cat", "dog", "owl")
    assert manifest.measured is not None
    assert manifest.measured.figures == {"top-1": 1.0}
    assert _told([[0, 5, 0]])["nearest"] == "dog"


def test_prototypes_may_be_given() -> None:
    Path("known.npy").write_bytes(encode_prototypes(np.eye(3)[::-1]))

    code = _import(
        linear(np.eye(3).tolist()), "embedding", "--labels", "a,b,c", "--prototypes", "known.npy"
    )

    assert code == 0
    assert _told([[0, 0, 1]]) == {"nearest": "a", "similarity": 1.0}


def test_prototypes_of_another_model_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("known.npy").write_bytes(encode_prototypes(np.eye(4)))

    code = _import(
        linear(np.eye(3).tolist()), "embedding", "--labels", "a,b,c", "--prototypes", "known.npy"
    )

    assert code != 0
    assert "[3, 3] was announced" in capsys.readouterr().err
    assert not Path("out").exists()


def test_from_which_score_on_is_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(3)
    labels = (np.arange(200) % 5 == 0).astype(np.int64)
    x = random.normal(0, 1, (200, 3)).astype(np.float32)
    x[:, 0] += 4 * labels
    np.savez("data.npz", x=x, y=labels)

    code = _import(linear([[1.0], [0], [0]]), "anomaly", "--data", "data.npz")

    assert code == 0, capsys.readouterr().err
    manifest = _imported()
    assert manifest.anomaly is not None
    assert 1 < manifest.anomaly.threshold < 3.5
    assert manifest.measured is not None
    assert manifest.measured.figures["AUROC"] > 0.97
    assert _told([[9, 0, 0]]) == {"score": 9.0, "is_anomalous": True}


def test_a_threshold_may_be_given() -> None:
    words = ["--threshold", "2.5", "--anomaly-scale", "0.5"]

    assert _import(linear([[1.0], [0], [0]]), "anomaly", *words) == 0

    assert _told([[2.4, 0, 0]])["is_anomalous"] is False


def test_thresholds_of_labels_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(4)
    holds = random.integers(0, 2, (200, 3))
    x = (holds * 4 - 3 + random.normal(0, 0.5, (200, 3))).astype(np.float32)
    np.savez("data.npz", x=x, y=holds)

    code = _import(
        linear(np.eye(3).tolist()), "multilabel", "--labels", "a,b,c", "--data", "data.npz"
    )

    assert code == 0, capsys.readouterr().err
    manifest = _imported()
    # Half way between -3 and 1, as a chance.
    assert all(0.1 < one < 0.5 for one in manifest.label_thresholds)
    assert manifest.measured is not None
    assert manifest.measured.figures["micro-F1"] > 0.97


def test_the_coverage_of_intervals_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(5)
    x = random.normal(0, 1, (200, 3)).astype(np.float32)
    x[:, 2] = 1
    np.savez("data.npz", x=x, y=x[:, 0] + random.uniform(-1.25, 1.25, 200))
    weights = [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]]

    code = _import(
        linear(weights), "regression", "--tolerance", "2", "--data", "data.npz",
    )  # fmt: skip

    assert code == 0, capsys.readouterr().err
    measured = _imported().measured
    assert measured is not None
    assert measured.accuracy == 1.0
    assert 0.65 < measured.figures["coverage"] < 0.95


def test_what_is_said_of_numbers_and_outputs_is_done() -> None:
    words = ["--scores-output", "y", "--scale", "2", "--threshold", "1", "--anomaly-scale", "1"]

    assert _import(linear([[1.0], [0], [0]]), "anomaly", *words) == 0

    assert _told([[6, 0, 0]]) == {"score": 3.0, "is_anomalous": True}


def test_a_part_of_the_data_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", **_spots(100))

    code = _import(
        dense(), "detection", "--labels", "spot", "--data", "data.npz", "--part", "0:60",
        "--box-layout", "columns",
    )  # fmt: skip

    assert code == 0, capsys.readouterr().err
    measured = _imported().measured
    assert measured is not None
    assert measured.num_examples == 30


@pytest.mark.parametrize(
    ("task", "words", "because"),
    [
        ("detection", [], "--labels"),
        ("detection", ["--labels", "a", "--input-shape", "2,2"], "--input-layout"),
        ("multilabel", ["--labels", "a,b,c", "--scores-output", "z"], "--scores-output"),
        ("detection", ["--labels", "a,b", "--box-outputs", "nothing,y"], "--box-outputs"),
        ("detection", ["--labels", "a"], "gives no boxes"),
        ("detection", ["--labels", "a", "--above", "."], "--above"),
        ("anomaly", [], "--threshold and --anomaly-scale"),
        ("anomaly", ["--threshold", "1"], "--threshold and --anomaly-scale"),
        ("anomaly", ["--labels", "a,b"], "has no --labels"),
        ("anomaly", ["--threshold", "1", "--anomaly-scale", "1"], "1 number"),
        ("embedding", ["--labels", "a,b"], "--prototypes"),
        ("embedding", ["--labels", "a,b", "--prototypes", "missing.npy"], "cannot be read"),
        ("embedding", ["--labels", "a"], "two labels"),
        ("regression", [], "--tolerance"),
        ("multilabel", ["--labels", "a,b"], "correct --labels"),
        ("multilabel", [], "--labels"),
    ],
)
def test_what_is_missing_is_asked_for_by_its_name(
    task: str, words: list[str], because: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _import(linear(np.eye(3).tolist()), task, *words)

    assert code != 0
    assert because in capsys.readouterr().err
    assert not Path("out").exists()


def _changed(**changes: Any) -> dict[str, Array]:
    return {name: one for name, one in (_spots(30) | changes).items() if one is not None}


@pytest.mark.parametrize(
    ("arrays", "because"),
    [
        (_changed(boxes=None), "needs `boxes`"),
        (_changed(boxes=np.zeros((30, 3, 5))), "needs `boxes`"),
        (_changed(box_labels=np.zeros((30, 2), np.int64)), "`box_labels` must be"),
        (_changed(box_labels=np.zeros((30, 3), np.int64)), "is NaN"),
        (_changed(images=None), "inputs of"),
        (_changed(images=np.zeros((29, SIDE, SIDE), np.float32)), "inputs of"),
        ({name: one[:10] for name, one in _spots().items()}, "too few"),
        (
            _changed(boxes=np.ones((30, 3, 4)), box_labels=np.full((30, 3), 7)),
            "go up to 7",
        ),
    ],
)
def test_boxes_of_data_that_are_none_are_refused(
    arrays: dict[str, Array], because: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("data.npz", **arrays)

    code = _import(dense(num_labels=2), "detection", "--labels", "a,b", "--data", "data.npz")

    assert code != 0
    assert because in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("task", "labels", "because"),
    [
        ("anomaly", np.arange(40) % 3, "0 (ordinary) and 1"),
        ("anomaly", np.zeros(40, np.int64), "both halves"),
        ("regression", np.array(["a"] * 40), "one number"),
        ("regression", np.full(40, np.nan), "NaN"),
        ("multilabel", np.tile([[1, 1]], (40, 1)), "2 labels"),
        ("multilabel", np.array(["a"] * 40), "rows of zeros and ones"),
        ("embedding", np.tile([[1, 1]], (40, 1)), "one label"),
        ("embedding", np.zeros(40, np.int64), "at least"),
    ],
)
def test_targets_of_another_task_are_refused(
    task: str, labels: Array, because: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("data.npz", x=np.random.default_rng(0).normal(size=(40, 3)), y=labels)
    weights: Any = [[1.0], [0], [0]] if task == "anomaly" else np.eye(3).tolist()
    words = {"regression": ["--tolerance", "1"], "multilabel": ["--labels", "a,b,c"]}

    code = _import(linear(weights), task, "--data", "data.npz", *words.get(task, []))

    assert code != 0
    assert because in capsys.readouterr().err
