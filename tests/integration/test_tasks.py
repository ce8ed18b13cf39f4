"""Tasks that give no single label climb as classification does, and say what they found."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import LABELS, NumbersBackend, manifest
from model_zoo.catalog import bundled_policy
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.policy_file import open_gearbox
from runtime.errors import ArtifactError, PolicyError
from runtime.manifest import ModelManifest, decode_manifest, encode_manifest, model_digest
from runtime.messages import Outcome, Reason, TensorSpec, Tier
from runtime.task_rules import rule_of

MULTILABEL = {"task": "multilabel"}
REGRESSION = {"task": "regression", "labels": (), "tolerance": 1.0}
TASKS: dict[str, dict[str, Any]] = {"multilabel": MULTILABEL, "regression": REGRESSION}
# Sure and unsure, as each task has it.
CAT_AND_OWL, PERHAPS_A_DOG = (5.0, -5.0, 5.0), (5.0, 0.1, -5.0)
NARROW, WIDE = (9.9, 10.0, 10.1), (2.0, 9.0, 20.0)
SCORES = {"multilabel": (CAT_AND_OWL, PERHAPS_A_DOG), "regression": (NARROW, WIDE)}
RESULTS: dict[str, dict[str, Any]] = {
    "multilabel": {"labels": {"cat": 0.993307, "owl": 0.993307}},
    "regression": {"value": 10.0, "low": pytest.approx(9.9), "high": pytest.approx(10.1)},
}


@pytest.mark.parametrize("task", sorted(TASKS))
async def test_what_is_sure_is_answered_on_the_device(task: str) -> None:
    broker, sure = MemoryBroker(), NumbersBackend(SCORES[task][0])
    async with AsyncExitStack() as stack:
        device, top = edge(broker, sure, described_as=TASKS[task]), gateway(broker)
        await online(stack, device, top)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.EDGE)
    assert answer.label is None
    assert json.loads(answer.result) == RESULTS[task]
    assert answer.confidence is not None
    assert answer.confidence > 0.8
    assert top.backends[0].num_runs == 0


@pytest.mark.parametrize("task", sorted(TASKS))
async def test_what_is_unsure_climbs_and_what_is_found_comes_back(task: str) -> None:
    broker = MemoryBroker()
    options: dict[str, Any] = {"described_as": TASKS[task]}
    sure, unsure = (NumbersBackend(scores) for scores in SCORES[task])
    async with AsyncExitStack() as stack:
        device = edge(broker, unsure, **options)
        region = gateway(broker, NumbersBackend(SCORES[task][1]), **options)
        top = cloud(broker, sure, **options)
        await online(stack, device, region, top)

        answer, _ = await ask(device)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.CLOUD)
    assert json.loads(answer.result) == RESULTS[task]
    assert len(answer.hops) == 3


@pytest.mark.parametrize("task", sorted(TASKS))
async def test_without_anybody_above_the_unsure_answer_is_given_as_degraded(task: str) -> None:
    backend = NumbersBackend(SCORES[task][1])
    async with edge(MemoryBroker(), backend, described_as=TASKS[task]) as device:
        answer, _ = await ask(device)

    assert answer.outcome is Outcome.DEGRADED
    assert json.loads(answer.result)


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("scores", [(np.nan, 0.0, 1.0), (np.inf, np.inf, np.inf)])
async def test_what_is_no_number_is_never_confident(task: str, scores: tuple[float, ...]) -> None:
    broker = MemoryBroker()
    options: dict[str, Any] = {"described_as": TASKS[task]}
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend(scores), **options)
        region = gateway(broker, NumbersBackend(SCORES[task][0]), **options)
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert answer.tier is Tier.REGIONAL
    assert json.loads(answer.result) == RESULTS[task]


async def test_an_interval_the_wrong_way_round_is_never_confident() -> None:
    broker = MemoryBroker()
    options: dict[str, Any] = {"described_as": REGRESSION}
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend((10.1, 10.0, 9.9)), **options)
        region = gateway(broker, NumbersBackend(NARROW), **options)
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert answer.tier is Tier.REGIONAL


@pytest.mark.parametrize("task", sorted(TASKS))
async def test_members_answer_together_and_a_broken_one_is_left_out(task: str) -> None:
    members = (NumbersBackend(SCORES[task][0]), NumbersBackend(is_broken=True))
    async with cloud(MemoryBroker(), *members, described_as=TASKS[task]) as top:
        answer, _ = await ask(top)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.PARTIAL_ENSEMBLE)
    found, expected = json.loads(answer.result), RESULTS[task]
    assert found.keys() == expected.keys()


async def test_members_that_disagree_about_a_number_are_unsure_of_it() -> None:
    broker = MemoryBroker()
    members = (NumbersBackend((9.9, 10.0, 10.1)), NumbersBackend((29.9, 30.0, 30.1)))
    async with AsyncExitStack() as stack:
        device = edge(broker, *members, described_as=REGRESSION)
        region = gateway(broker, NumbersBackend(NARROW), described_as=REGRESSION)
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert answer.tier is Tier.REGIONAL


async def test_members_of_which_none_is_usable_fail() -> None:
    members = (NumbersBackend((np.nan, 0, 0)), NumbersBackend((np.nan, 0, 0)))
    async with cloud(MemoryBroker(), *members, described_as=MULTILABEL) as top:
        answer, _ = await ask(top)

    assert answer.outcome is Outcome.FAILED


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_batch_has_no_result_of_its_own(task: str) -> None:
    rule = rule_of(_manifest(**TASKS[task]))
    rows = np.array([SCORES[task][0]] * 2, np.float32)

    assert rule.judge({"logits": rows}).told == ""
    assert rule.judge({"logits": rows}).confidence.is_valid
    assert rule.judge({"logits": np.full((1, 3), np.nan, np.float32)}).told == ""


def test_classification_says_it_with_its_label() -> None:
    rule = rule_of(_manifest())
    rows = np.array([[1.0, 0.0, 0.0]], np.float32)

    assert rule.judge({"logits": rows}).told == ""
    assert rule.judge_all([{"logits": rows}], [1.0]) is None
    assert rule.judge({"logits": rows}).confidence.label == 0


def _manifest(**changes: Any) -> ModelManifest:
    return msgspec.structs.replace(manifest(Tier.EDGE), **changes)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"labels": ()}, "at least 2"),
        ({"labels": LABELS[:1]}, "at least 2"),
        ({"task": "multilabel", "labels": ()}, "at least 1"),
        ({"task": "multilabel", "labels": LABELS[:2]}, "3 scores"),
        ({"label_thresholds": (0.5, 0.5, 0.5)}, "label_thresholds"),
        ({"task": "multilabel", "label_thresholds": (0.5,)}, "label_thresholds"),
        ({"task": "regression", "tolerance": 1.0}, "no `labels`"),
        ({"task": "regression", "labels": ()}, "tolerance"),
        ({"tolerance": 1.0}, "tolerance"),
        (
            {
                "task": "regression",
                "labels": (),
                "tolerance": 1.0,
                "outputs": (TensorSpec("y", "FP32", (-1, 1)),),
            },
            "interval",
        ),
        ({"task": "multilabel", "tolerance": 1.0}, "tolerance"),
    ],
)
def test_a_manifest_that_contradicts_its_task(changes: dict[str, Any], because: str) -> None:
    with pytest.raises(ValueError, match=because):
        _manifest(**changes)


def test_a_task_that_nothing_here_answers_is_refused() -> None:
    contents = encode_manifest(_manifest()).replace(
        b'"tier": "edge"', b'"tier": "edge", "task": "x"'
    )

    with pytest.raises(ArtifactError, match="task"):
        decode_manifest(contents, "manifest.json")


def test_what_a_task_says_is_part_of_what_a_model_answers() -> None:
    plain = _manifest()
    several = _manifest(task="multilabel")
    stricter = _manifest(task="multilabel", label_thresholds=(0.9, 0.5, 0.5))

    assert len({model_digest(one) for one in (plain, several, stricter)}) == 3
    assert decode_manifest(encode_manifest(stricter), "it") == stricter


def test_a_policy_is_for_single_labels() -> None:
    path = bundled_policy()
    assert path is not None

    with pytest.raises(PolicyError, match="decides by the label"):
        open_gearbox(path, Tier.EDGE, _manifest(task="multilabel"))
