"""A recorded run, replayed under another policy, beside actually running that policy."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fakes.gears import gearbox
from fakes.hierarchy import ask, online
from fakes.labelled import sampled
from fakes.tiers import LABELS, LIMITS, FakeTier, NumbersBackend
from fakes.waiting import eventually
from model_zoo.policies.by_hand import Thresholds, policy_by_hand
from model_zoo.policies.fit import Conditions, Splits, fit_policy
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.replay import replay
from runtime.adapters.decision_log import SqliteDecisionLog
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.replay_log import read_recorded
from runtime.core.audit import AuditSettings
from runtime.messages import USUAL_TIERS, Answer, Tensors, Tier
from runtime.policy import Policy, Targets

NUM_REQUESTS = 20_000
MAX_HALF_WIDTH = 0.03
PRICES = {"edge": 0.0, "regional": 0.3, "cloud": 1.0}


def traffic(seed: int, num: int) -> Predictions:
    """Made-up answers of three tiers whose probabilities three classes can have."""
    made_up = sampled(seed, num, num_labels=len(LABELS), price=tuple(PRICES.values()))
    return replace(made_up, score=0.36 + 0.63 * made_up.score, label_names=LABELS, models={})


@dataclass
class TrafficBackend(NumbersBackend):
    """Answers example ``x[0, 0]`` of the traffic as its tier did."""

    logits: np.ndarray[tuple[int, int], np.dtype[np.float32]] | None = None

    def run(self, inputs: Tensors) -> Tensors:
        assert self.logits is not None
        return {"logits": self.logits[inputs["x"][:, 0].astype(np.int64)]}


def backend(answers: Predictions, tier: int) -> TrafficBackend:
    shape = (answers.num_examples, len(LABELS))
    rest = (1 - answers.score[tier]) / (len(LABELS) - 1)
    shares = np.broadcast_to(rest[:, None], shape).copy()
    np.put_along_axis(shares, answers.predicted[tier][:, None], answers.score[tier][:, None], 1)
    return TrafficBackend(logits=np.log(shares).astype(np.float32))


def tiers(answers: Predictions, policy: Policy, audit_rate: float) -> list[FakeTier]:
    broker = MemoryBroker()
    limits = replace(LIMITS, max_pending=64)
    audits = AuditSettings(rate=audit_rate, max_in_progress=8) if audit_rate else None
    return [
        FakeTier(
            broker,
            tier,
            backend(answers, number),
            above=[Tier.REGIONAL, Tier.CLOUD, None][number],
            inline=True,
            limits=limits,
            gearbox=gearbox(tier, policy),
            audits=audits if tier is Tier.EDGE else None,
        )
        for number, tier in enumerate(USUAL_TIERS)
    ]


async def run(
    answers: Predictions, policy: Policy, audit_rate: float
) -> tuple[list[Answer], FakeTier]:
    """Every example asked once; the answers, and the device with its log."""
    async with AsyncExitStack() as stack:
        device, *above = tiers(answers, policy, audit_rate)
        await online(stack, device, *above)
        found = []
        for row in range(answers.num_examples):
            inputs = {"x": np.array([[row, 0]], np.float32)}
            answer, _ = await ask(device, 5000, request_id=f"r{row}", inputs=inputs)
            found.append(answer)
        if audit_rate:
            drawn = device.auditor
            assert drawn is not None
            await eventually(lambda: drawn.num_in_progress == 0, 30)
    return found, device


def written(folder: Path, device: FakeTier) -> Path:
    """The device's log as a file."""
    with SqliteDecisionLog(folder, gather_s=0, max_queued=2 * NUM_REQUESTS) as log:
        for decided in device.log.records:
            log.append(decided)
        for audited in device.log.audits:
            log.append(audited)
        assert log.flush(60)
    return log.path


def figures(answers: list[Answer], traffic_of: Predictions) -> dict[str, float]:
    by = [answer.tier.value if answer.tier else "" for answer in answers]
    shares = {tier.value: by.count(tier.value) / len(by) for tier in USUAL_TIERS}
    top = traffic_of.predicted[-1]
    agreeing = [answer.label == top[row] for row, answer in enumerate(answers)]
    paid = [
        sum(PRICES[hop.tier.value] for hop in answer.hops if hop.label is not None)
        for answer in answers
    ]
    return {**shares, "cost": float(np.mean(paid)), "agreement": float(np.mean(agreeing))}


@pytest.mark.timeout(300)
async def test_replay_is_within_its_own_interval_of_running_the_policy(tmp_path: Path) -> None:
    answers = traffic(31, NUM_REQUESTS)
    old = fit_policy(
        Splits(traffic(32, 2000), traffic(33, 2000)), Targets(0.03, 0.1), Conditions(), name="old"
    )
    new = policy_by_hand(old, Thresholds({"edge": 0.74, "regional": 0.7}, name="new"))

    _, device = await run(answers, old, audit_rate=0.01)
    recorded = read_recorded([written(tmp_path, device)], since_s=0)
    found = replay(new, recorded.requests)
    actual = figures((await run(answers, new, audit_rate=0.0))[0], answers)

    assert recorded.num_left_out == recorded.num_failed_audits == 0
    assert found.refusal == ""
    assert 100 < found.num_audits < 400
    for name, estimate in {**found.answered_by, "agreement": found.agreement}.items():
        assert estimate.low <= actual[name] <= estimate.high or math.isclose(
            estimate.mean, actual[name], abs_tol=1e-4
        ), name
        assert (estimate.high - estimate.low) / 2 <= MAX_HALF_WIDTH
    assert found.cost.low <= actual["cost"] <= found.cost.high
