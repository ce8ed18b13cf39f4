"""Replaying a policy on recorded traffic: right within its own interval, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from fakes.labelled import sampled
from model_zoo.policies.by_hand import policy_by_hand, read_thresholds
from model_zoo.policies.evaluate import judge
from model_zoo.policies.fit import Conditions, Splits, fit_policy
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.replay import follow, replay
from model_zoo.policies.stages import Stage
from runtime.adapters.replay_log import RecordedRequest
from runtime.core.seen import Seen
from runtime.errors import PolicyError
from runtime.policy import Policy, Targets

TRAFFIC = sampled(21, 20_000)
AUDIT_RATE = 0.01


@pytest.fixture(scope="module")
def fitted() -> Policy:
    return fit_policy(
        Splits(sampled(22, 2000), sampled(23, 2000)), Targets(0.03, 0.1), Conditions(), name="old"
    )


def by_hand(base: Policy, **thresholds: float) -> Policy:
    lines = "\n".join(f"{tier} = {value}" for tier, value in thresholds.items())
    return policy_by_hand(base, read_thresholds(f"[thresholds]\n{lines}", "new.toml"))


def recorded(
    policy: Policy, traffic: Predictions, audit_rate: float, seed: int
) -> list[RecordedRequest]:
    """What the lowest tier's log holds after this policy has answered the traffic."""
    random = np.random.default_rng(seed)
    records = []
    for row in range(traffic.num_examples):
        full = {
            tier: Seen(int(traffic.predicted[k, row]), float(traffic.score[k, row]))
            for k, tier in enumerate(traffic.tiers)
        }
        seen = {"edge": full["edge"]}
        while (course := follow(policy, policy.gears[0], seen)) is None:
            # The next tier that answers on the way.
            seen[next(tier for tier in traffic.tiers if tier not in seen)] = full[
                next(tier for tier in traffic.tiers if tier not in seen)
            ]
        if course.tier == traffic.tiers[-1]:
            seen[course.tier] = full[course.tier]
        # More of those that the device is less sure of.
        doubt = np.sqrt(max(0.0, 1 - full["edge"].score))
        is_eligible = course.tier != traffic.tiers[-1]
        chance = min(1.0, audit_rate * (0.5 + doubt)) if is_eligible else 0.0
        audit = full if random.random() < chance else None
        records.append(
            RecordedRequest(
                wall_s=float(row),
                request_id=f"r{row}",
                tier="edge",
                site="site",
                model="made-up",
                model_version="1",
                policy="",
                gear="",
                budget_ms=1e9,
                seen=seen,
                audit_chance=chance,
                audit=audit,
            )
        )
    return records


def truth(policy: Policy, traffic: Predictions) -> dict[str, float]:
    """What the policy does when it is actually run on the traffic."""
    ends = judge(policy.gears[0], Stage(traffic))
    answer = traffic.predicted[ends.answered_by, np.arange(traffic.num_examples)]
    return {
        "edge": float((ends.answered_by == 0).mean()),
        "regional": float((ends.answered_by == 1).mean()),
        "cloud": float((ends.answered_by == 2).mean()),
        "cost": float(ends.cost.mean()),
        "agreement": float((answer == traffic.predicted[-1]).mean()),
    }


@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.6, 0.6), (0.65, 0.95)])
def test_replay_is_within_its_interval_of_actually_running_the_policy(
    fitted: Policy, thresholds: tuple[float, float]
) -> None:
    new = by_hand(fitted, edge=thresholds[0], regional=thresholds[1])
    actual = truth(new, TRAFFIC)

    found = replay(new, recorded(fitted, TRAFFIC, AUDIT_RATE, seed=1))

    assert found.refusal == ""
    estimates = {**found.answered_by, "agreement": found.agreement}
    for name, estimate in estimates.items():
        assert estimate.low - 1e-9 <= actual[name] <= estimate.high + 1e-9, name
        assert (estimate.high - estimate.low) / 2 <= 0.03
    assert found.cost.low <= actual["cost"] <= found.cost.high


def test_over_many_audits_the_interval_holds_as_often_as_it_says(fitted: Policy) -> None:
    new = by_hand(fitted, edge=0.7, regional=0.6)
    small = TRAFFIC.take(np.arange(2000))
    actual = truth(new, small)["regional"]

    held = [
        estimate.low <= actual <= estimate.high
        for seed in range(30)
        for estimate in [replay(new, recorded(fitted, small, 0.05, seed)).answered_by["regional"]]
    ]

    assert sum(held) >= 26


def test_the_recorded_policy_itself_needs_audits_for_agreement_only(fitted: Policy) -> None:
    records = recorded(fitted, TRAFFIC.take(np.arange(2000)), 0.2, seed=3)

    found = replay(fitted, records)

    actual = truth(fitted, TRAFFIC.take(np.arange(2000)))
    assert found.answered_by["edge"].mean == pytest.approx(actual["edge"])
    assert found.cost.mean == pytest.approx(actual["cost"])
    assert found.inferred > 0


class TestRefusals:
    def test_nothing_recorded(self, fitted: Policy) -> None:
        assert "no requests" in replay(fitted, []).refusal

    def test_answers_that_nobody_gave_and_no_audit_could_have(self, fitted: Policy) -> None:
        records = recorded(fitted, TRAFFIC.take(np.arange(500)), 0.0, seed=1)

        found = replay(by_hand(fitted, edge=0.3), records)

        assert "turn audits on" in found.refusal
        assert found.unsupported > 0.1

    def test_too_few_audits(self, fitted: Policy) -> None:
        records = recorded(fitted, TRAFFIC.take(np.arange(500)), 0.01, seed=1)

        assert "audits speak for" in replay(by_hand(fitted, edge=0.9), records).refusal

    @pytest.mark.parametrize(
        "text",
        ["", "thresholds = 3", "[thresholds]\nedge = 2", "[thresholds]\nedge = nan", "[[", "x = 1"],
    )
    def test_what_is_no_policy_by_hand(self, text: str) -> None:
        with pytest.raises(PolicyError, match="no policy by hand"):
            read_thresholds(text, "new.toml")

    @pytest.mark.parametrize("thresholds", [{"regional": 0.5}, {"edge": 0.5, "cloud": 0.5}])
    def test_thresholds_for_other_tiers(self, fitted: Policy, thresholds: dict[str, float]) -> None:
        with pytest.raises(PolicyError, match="thresholds are for edge, regional"):
            by_hand(fitted, **thresholds)
