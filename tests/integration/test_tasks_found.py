"""Detectors, anomaly scorers and embedders of real files in one tier, and what they refuse."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.task_models import (
    BOXES,
    LABELS,
    NUM_PIXELS,
    SIDE,
    anomaly_folder,
    dense,
    detector_folder,
    embedding_folder,
    finder,
    picture,
)
from fakes.tiers import NumbersBackend
from runtime.adapters import golden as golden_module
from runtime.adapters.artifacts import open_model
from runtime.adapters.bound_backend import run_in_pieces
from runtime.adapters.clock import SystemClock
from runtime.adapters.engines import load_members
from runtime.adapters.golden import check_golden, make_golden
from runtime.adapters.memory_bus import MemoryBroker
from runtime.binding import InputBinding, OutputBinding
from runtime.codec import RequestBody, decode_response, encode_response
from runtime.common_settings import ModelSettings
from runtime.deadline import Deadline
from runtime.errors import ArtifactError, BackendError
from runtime.exchange.loading import load_model
from runtime.local_model import LocalResult
from runtime.manifest import Member
from runtime.messages import Outcome, Tensors, TensorSpec, Tier
from runtime.task_fields import AnomalyFields, DetectionFields, EmbeddingFields
from runtime.task_rules import rule_of

SCORES_OF_EACH = TensorSpec("scores", "FP32", (-1, NUM_PIXELS, 2))
ALL_BOXES = TensorSpec("boxes", "FP32", (-1, NUM_PIXELS, 4))


async def _run(folder: Path, x: npt.NDArray[np.float32], **settings: Any) -> LocalResult:
    clock = SystemClock()
    model = await load_model(ModelSettings(folder=str(folder), **settings), Tier.EDGE, clock)
    try:
        return await model.infer({"x": x}, Deadline.after(clock.monotonic_s(), 5000))
    finally:
        model.close()


def _yolo(folder: Path, *, num_labels: int = 2) -> Path:
    shape = (-1, 4 + num_labels, NUM_PIXELS)
    boxes = OutputBinding("output0", "FP32", shape, is_transposed=True, columns=(0, 4))
    scores = msgspec.structs.replace(boxes, columns=(4, 4 + num_labels), scores="probabilities")
    member = Member(
        "m0",
        "m0.onnx",
        inputs={"x": InputBinding("x", "FP32", (-1, SIDE, SIDE))},
        outputs={"boxes": boxes, "scores": scores},
    )
    return detector_folder(
        folder,
        Tier.EDGE,
        dense(num_labels=num_labels),
        members=(member,),
        labels=("spot", "other"),
        outputs=(ALL_BOXES, SCORES_OF_EACH),
        detection=DetectionFields(box_format="centres", box_size=(SIDE, SIDE)),
    )


async def test_one_tensor_of_a_yolo_becomes_boxes(tmp_path: Path) -> None:
    found = await _run(_yolo(tmp_path / "m"), picture((2, 4, 0.9), (6, 1, 0.8)))

    assert json.loads(found.told) == {
        "boxes": [
            {"label": "spot", "score": 0.9, "box": [0.25, 0.5, 0.375, 0.625]},
            {"label": "spot", "score": 0.8, "box": [0.75, 0.125, 0.875, 0.25]},
        ]
    }
    # Not the 64 that the file gives.
    assert found.outputs["boxes"].shape == (1, 2, 4)
    assert found.outputs["scores"].tolist() == [
        [[pytest.approx(0.9), 0.0], [pytest.approx(0.8), 0.0]]
    ]


async def test_pictures_of_a_batch_are_filled_up(tmp_path: Path) -> None:
    pictures = np.concatenate([picture((2, 4, 0.9), (6, 1, 0.8)), picture()])

    found = await _run(_yolo(tmp_path / "m"), pictures)
    dark = await _run(_yolo(tmp_path / "n"), np.concatenate([picture(), picture()]))

    assert found.told == dark.told == ""
    assert found.outputs["boxes"].shape == (2, 2, 4)
    assert found.outputs["scores"][1].max() == 0
    # An answer of several pictures is never without elements, which would be no answer.
    assert dark.outputs["boxes"].shape == (2, 1, 4)
    assert dark.confidence.probability == 0.0


async def test_a_model_in_a_process_may_find_nothing(tmp_path: Path) -> None:
    folder = detector_folder(tmp_path / "m", Tier.EDGE, finder(1.0, 0.5))

    found = await _run(folder, picture(), isolation="process")

    assert found.told == '{"boxes": []}'
    assert found.outputs["boxes"].shape == (1, 0, 4)


async def test_detectors_that_disagree_are_unsure(tmp_path: Path) -> None:
    sharp, blind = finder(1.0, 0.1), finder(0.5, 0.4)
    both = detector_folder(tmp_path / "both", Tier.EDGE, sharp, sharp)
    one = detector_folder(tmp_path / "one", Tier.EDGE, sharp, blind)

    agreed = await _run(both, picture((1, 1, 0.95)))
    apart = await _run(one, picture((1, 1, 0.75)))
    unseen = await _run(one, picture())

    assert json.loads(agreed.told)["boxes"][0]["score"] == pytest.approx(0.95)
    assert agreed.confidence.probability > 0.9
    assert agreed.confidence.agreement == 1.0
    assert json.loads(apart.told) == {"boxes": []}
    assert 0.5 < apart.confidence.probability < 0.8
    assert unseen.confidence.probability == 0.0
    assert unseen.left_out == ()


async def test_vectors_of_one_space_answer_together(tmp_path: Path) -> None:
    folder = embedding_folder(tmp_path / "m", Tier.EDGE, np.eye(3).tolist())
    manifest = open_model(folder).manifest
    several = msgspec.structs.replace(
        manifest,
        members=(Member("a", "m0.onnx"), Member("b", "m0.onnx")),
        embedding=EmbeddingFields("prototypes.npy", shared_space=True),
    )
    rule = rule_of(several, np.eye(3))
    vectors: list[Tensors] = [
        {"y": np.array([[4.0, 0, 0]], np.float32)},
        {"y": np.array([[0, 1.0, 0]], np.float32)},
        {"y": np.full((1, 3), np.nan, np.float32)},
    ]

    together = rule.judge_all(vectors, [3.0, 1.0, 1.0])

    assert together is not None
    assert together.used == (0, 1)
    assert json.loads(together.judged.told)["nearest"] == "left"
    assert together.judged.confidence.agreement == 0.75
    assert not rule.judge({"y": np.zeros(3, np.float32)}).confidence.is_valid


async def test_scores_of_one_number_each_are_scores(tmp_path: Path) -> None:
    folder = anomaly_folder(tmp_path / "m", Tier.EDGE, [1, 1, 1])
    manifest = msgspec.structs.replace(
        open_model(folder).manifest,
        outputs=(TensorSpec("y", "FP32", (-1,)),),
        anomaly=AnomalyFields(1.0, 0.5),
    )
    rule = rule_of(manifest)

    odd = rule.judge({"y": np.array([4.0], np.float32)})
    both = rule.judge_all([{"y": np.array([4.0])}, {"y": np.array([0.0])}], [1, 1])

    assert json.loads(odd.told) == {"score": 4.0, "is_anomalous": True}
    assert odd.confidence.label is None
    assert both is not None
    assert both.judged.confidence.probability < odd.confidence.probability
    assert not rule.judge({"y": np.zeros((1, 2), np.float32)}).confidence.is_valid


class BoxesBackend(NumbersBackend):
    """Gives the same boxes whatever it is asked."""

    def __init__(self, boxes: Any, scores: Any) -> None:
        super().__init__()
        self._found = {
            "boxes": np.array(boxes, np.float32).reshape(1, -1, 4),
            "scores": np.array(scores, np.float32).reshape(1, -1),
        }

    def run(self, inputs: Tensors) -> Tensors:
        del inputs
        self.num_runs += 1
        return dict(self._found)


DESCRIBED: dict[str, Any] = {
    "task": "detection",
    "labels": LABELS,
    "outputs": (BOXES, TensorSpec("scores", "FP32", (-1, -1))),
}
SURE = ([[0, 0, 1, 1]], [0.95])


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        ([], []),
        ([[0, 0, 1, 1]], [0.55]),
        ([[0, 0, 1, 1]], [0.45]),
        ([[0, 0, 1, 1]], [0.0]),
        ([[0, 0, np.nan, 1]], [0.95]),
        ([[0, 0, np.inf, 1]], [0.95]),
        ([[1, 1, 0, 0]], [0.95]),
        ([[0, 0, 1, 1]], [np.nan]),
        ([[0, 0, 1, 1]], [7.0]),
        ([[0, 0, 1, 1], [2, 2, 3, 3]], [0.95]),
    ],
    ids=["none", "weak", "nearly", "padding", "nan", "inf", "inverted", "nan score", "7", "count"],
)
async def test_what_is_unsure_or_no_box_climbs(boxes: Any, scores: Any) -> None:
    broker = MemoryBroker()
    options: dict[str, Any] = {"described_as": DESCRIBED}
    async with AsyncExitStack() as stack:
        device = edge(broker, BoxesBackend(boxes, scores), **options)
        region = gateway(broker, BoxesBackend(boxes, scores), **options)
        top = cloud(broker, BoxesBackend(*SURE), **options)
        await online(stack, device, region, top)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.CLOUD)
    assert json.loads(answer.result)["boxes"][0]["score"] == pytest.approx(0.95)


@pytest.mark.parametrize("is_ensemble", [False, True])
async def test_boxes_that_are_none_are_served_by_nobody(*, is_ensemble: bool) -> None:
    broken = [BoxesBackend([[1, 1, 0, 0]], [0.95])] * (1 + is_ensemble)
    async with cloud(MemoryBroker(), *broken, described_as=DESCRIBED) as top:
        answer, _ = await ask(top)

    assert answer.outcome is (Outcome.FAILED if is_ensemble else Outcome.ABSTAINED)
    assert not answer.outputs
    assert not answer.result


async def test_a_member_that_gives_no_boxes_is_left_out_and_named() -> None:
    members = BoxesBackend(*SURE), BoxesBackend([[1, 1, 0, 0]], [0.95])
    async with cloud(MemoryBroker(), *members, described_as=DESCRIBED) as top:
        answer, _ = await ask(top)

    assert answer.outcome is Outcome.DEGRADED
    assert json.loads(answer.result)["boxes"][0]["score"] == pytest.approx(0.95)


def test_a_bound_is_told_where_it_cuts() -> None:
    boxes = [[10 * n, 0, 10 * n + 5, 5] for n in range(5)]
    folder_fields = DESCRIBED | {"detection": DetectionFields(max_boxes=3)}
    backend = BoxesBackend(boxes, [0.9] * 5)
    tier = cloud(MemoryBroker(), backend, described_as=folder_fields)
    rule = rule_of(tier.model.manifest)

    judged = rule.judge(backend.run({}))
    tier.model.close()

    told = json.loads(judged.told)
    assert (len(told["boxes"]), told["is_cut"]) == (3, True)


def test_what_ssd_gives_in_tensorflow_lite_goes_out_in_the_same_form() -> None:
    """Corners with y first, a class and a score for each of ten boxes, and how many are some."""
    outputs = (
        TensorSpec("boxes", "FP32", (-1, 10, 4)),
        TensorSpec("scores", "FP32", (-1, 10)),
        TensorSpec("classes", "FP32", (-1, 10)),
        TensorSpec("count", "FP32", (-1,)),
    )
    described = DESCRIBED | {
        "labels": ("cat", "dog"),
        "outputs": outputs,
        "detection": DetectionFields(box_format="corners_yx"),
    }
    tier = cloud(MemoryBroker(), NumbersBackend(), described_as=described)
    rule = rule_of(tier.model.manifest)
    tier.model.close()
    found: Tensors = {
        "boxes": np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (1, 10, 1)),
        "scores": np.array([[0.9, *[0.3] * 9]], np.float32),
        "classes": np.array([[1.0, *[0.0] * 9]], np.float32),
        "count": np.array([1.0], np.float32),
    }

    judged = rule.judge(found)
    lying = rule.judge(found | {"count": np.array([11.0], np.float32)})
    uneven = rule.judge(found | {"count": np.array([1.0, 1.0], np.float32)})

    assert json.loads(judged.told) == {
        "boxes": [{"label": "dog", "score": 0.9, "box": [0.2, 0.1, 0.4, 0.3]}]
    }
    assert {name: one.shape for name, one in judged.outputs.items()} == {
        "boxes": (1, 1, 4),
        "scores": (1, 1),
        "classes": (1, 1),
        "count": (1,),
    }
    assert judged.outputs["classes"].tolist() == [[1.0]]
    assert not lying.confidence.is_valid
    assert not uneven.confidence.is_valid


def test_pictures_of_a_file_that_takes_one_have_other_numbers_of_boxes(tmp_path: Path) -> None:
    opened = open_model(detector_folder(tmp_path / "m", Tier.EDGE, finder(1.0, 0.5)))
    (backend,) = load_members(opened)
    golden = make_golden(opened.manifest, [backend])

    found = backend.run({"x": np.concatenate([picture((1, 1, 0.9)), picture()])})

    assert found["boxes"].tolist() == [[[1, 1, 2, 2]], [[0, 0, 0, 0]]]
    assert found["scores"][:, 0].tolist() == [pytest.approx(0.9), 0.0]
    assert check_golden(golden, opened.manifest, [backend], "golden.npz") == 2
    backend.close()


def test_rows_of_other_lengths_are_no_scores() -> None:
    class Uneven(NumbersBackend):
        def run(self, inputs: Tensors) -> Tensors:
            self.num_runs += len(inputs)
            return {"y": np.zeros((1, self.num_runs), np.float32)}

    with pytest.raises(BackendError, match="one by one"):
        run_in_pieces(Uneven(), {"x": np.zeros((2, 2), np.float32)}, 2, 1, is_batched=True)


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_without_elements_pass_as_they_are(*, binary: bool) -> None:
    wanted = RequestBody(inputs={}, binary_outputs=None if binary else frozenset())
    empty: Tensors = {"boxes": np.zeros((1, 0, 4), np.float32), "more": np.ones(2, np.float32)}

    body, length = encode_response(empty, model_name="m", request=wanted)
    found = decode_response(body, length).outputs

    assert found["boxes"].shape == (1, 0, 4)
    assert found["boxes"].dtype == np.float32
    assert found["more"].tolist() == [1.0, 1.0]


def test_golden_examples_in_which_nothing_is_found(tmp_path: Path) -> None:
    opened = open_model(detector_folder(tmp_path / "m", Tier.EDGE, finder(1.0, 1.0)))
    (backend,) = load_members(opened)

    golden = make_golden(opened.manifest, [backend])

    assert check_golden(golden, opened.manifest, [backend], "golden.npz") == 2
    backend.close()


def test_golden_boxes_may_be_one_more_and_no_other_tensor(tmp_path: Path) -> None:
    opened = open_model(detector_folder(tmp_path / "m", Tier.EDGE, finder(1.0, 0.5)))
    other = open_model(detector_folder(tmp_path / "n", Tier.EDGE, finder(1.0, 0.505)))
    (backend,), (slightly,) = load_members(opened), load_members(other)
    golden = make_golden(opened.manifest, [backend])
    wrong = BoxesBackend([[0, 0, 1, 1]], [0.95])

    assert check_golden(golden, opened.manifest, [slightly], "golden.npz") == 2
    with pytest.raises(ArtifactError, match="shape"):
        check_golden(golden, opened.manifest, [wrong], "golden.npz")
    backend.close()
    slightly.close()


def test_golden_examples_of_large_outputs_are_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_model(_yolo(tmp_path / "m"))
    (backend,) = load_members(opened)
    whole = make_golden(opened.manifest, [backend])
    monkeypatch.setattr(golden_module, "MAX_GOLDEN_BYTES", len(whole) - 1)

    fewer = make_golden(opened.manifest, [backend])

    assert len(fewer) < len(whole)
    assert check_golden(fewer, opened.manifest, [backend], "golden.npz") == 2
    backend.close()
